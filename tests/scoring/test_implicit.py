"""Implicit PRMs to the token: ids and places by hand, sums against both models run whole in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from scoring import load_scorer
from scoring.engine.engine import Scorer
from scoring.families.implicit import REWARDS, ImplicitPrm
from tests.scoring.golden_cases import WORDS, llama, trace
from tests.scoring.golden_tokenizers import llama31, qwen25
from tests.tiny_models import save, tiny_llama, tiny_tokenizer
from traces.problem import Trace, TraceInContext

Make = Callable[[], Any]
STEPS = ("6 x 30 = 180 mg.", "It is\n\n180", "So it is 180.")
NUMBERED = tuple(f"Step {number}: {step}" for number, step in enumerate(STEPS, 1))
CONTEXT: TraceInContext = trace("Which dose?", *STEPS)


def qwen_tokenizer() -> Any:
    return qwen25(WORDS)


def llama_tokenizer() -> Any:
    return llama31(WORDS)


MADE: dict[str, Make] = {"qwen2.5": qwen_tokenizer, "llama3.1": llama_tokenizer}


def pair(tokenizer: Any, **changes: Any) -> tuple[Any, Any]:
    """A random PRM and a random reference of another width."""
    size = max(tokenizer.get_vocab().values()) + 1
    return (
        tiny_llama(tokenizer, seed=1, vocab_size=size, hidden_size=8, **changes),
        tiny_llama(tokenizer, seed=2, vocab_size=size, hidden_size=16, **changes),
    )


def bounds(tokenizer: Any, question: str, steps: Sequence[str]) -> list[int]:
    """The published places: of the header, and of each step, each encoded by itself.

    Two tokens before the end, of which one is the blank line with the published tokenizers.
    """
    places = []
    blank = len(tokenizer("\n\n", add_special_tokens=False)["input_ids"])
    for count in range(len(steps) + 1):
        turns = [("user", question), ("assistant", "\n\n".join(steps[:count]))]
        text = tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in turns], tokenize=False
        ).strip()
        inside = 0 < count < len(steps)
        encoded = tokenizer(text + "\n\n" * inside, add_special_tokens=False)["input_ids"]
        places.append(len(encoded) - (1 + blank if inside else 2))
    return places


def rewards(models: tuple[Any, Any], ids: Sequence[int], places: Sequence[int]) -> list[float]:
    """The published sums: all logits of both models, in float64, differenced, masked, summed."""
    sequence = torch.tensor([ids])
    logs = []
    with torch.no_grad():
        for model in models:
            logits = model.double()(sequence).logits[0, :-1]
            chosen = torch.log_softmax(logits, dim=-1)[range(len(ids) - 1), sequence[0, 1:]]
            logs.append(chosen)
    each = 0.001 * (logs[0] - logs[1])
    each[: max(places[0] - 1, 0)] = 0
    sums = each.cumsum(0)
    return [float(sums[place]) for place in places[1:]]


GOLDEN: dict[str, tuple[str, tuple[int, ...], tuple[tuple[int, int], ...]]] = {
    "qwen2.5": (
        "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\nWhich dose?<|im_end|>\n"
        "<|im_start|>assistant\nStep 1: 6 x 30 = 180 mg.\n\nStep 2: It is\n\n180\n\n"
        "Step 3: So it is 180.<|im_end|>\n",
        (
            151644, 8948, 198, 1000, 1001, 1074, 13, 151645, 198, 151644, 872, 198, 54, 71, 72, 66,
            71, 1062, 30, 151645, 198, 151644, 77091, 198, 50, 83, 68, 79, 220, 16, 25, 220, 21,
            1077, 220, 18, 15, 1078, 220, 16, 23, 15, 1064, 13, 271, 50, 83, 68, 79, 220, 17, 25,
            3059, 83, 1034, 271, 16, 23, 15, 271, 50, 83, 68, 79, 220, 18, 25, 1068, 1069, 1034,
            220, 16, 23, 15, 13, 151645, 198,
        ),
        # From before the header's line break (23) to before the S (45) behind the blank line, ...
        ((22, 44), (45, 59), (60, 74)),
    ),
    "llama3.1": (
        llama("", "Which dose?", "\n\n".join(NUMBERED)),
        (
            128000, 128006, 9125, 128007, 271, 51, 78, 67, 64, 88, 1071, 25, 220, 17, 21, 1072, 220,
            17, 15, 17, 19, 271, 128009, 128006, 882, 128007, 271, 54, 71, 72, 66, 71, 1060, 30,
            128009, 128006, 78191, 128007, 271, 50, 83, 68, 79, 220, 16, 25, 220, 21, 1076, 220,
            1077, 1078, 220, 1062, 1063, 382, 50, 83, 68, 79, 220, 17, 25, 3059, 83, 1033, 271, 1062,
            271, 50, 83, 68, 79, 220, 18, 25, 1067, 1068, 1033, 220, 1062, 13, 128009,
        ),
        # Full stop and blank line are one token (382) here: the first sum takes in S and t.
        ((37, 56), (57, 68), (69, 81)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_ids_and_places_are_those_written_down(name: str) -> None:
    written, ids, places = GOLDEN[name]
    tokenizer = MADE[name]()
    laid_out = ImplicitPrm(tokenizer, *pair(tokenizer)).lay_out(CONTEXT, ())
    assert laid_out.ids == ids
    assert tokenizer.decode(list(ids)) == written
    assert list(ids) == tokenizer(written, add_special_tokens=False)["input_ids"]
    assert tuple((at[0], at[-1]) for at in laid_out.read_at) == places
    assert len(tokenizer("\n\n", add_special_tokens=False)["input_ids"]) == 1
    header, *ends = bounds(tokenizer, "Which dose?", NUMBERED)
    assert (header - 1, *ends) == (places[0][0], *(last for _, last in places))
    flat = [place for at in laid_out.read_at for place in at]
    assert flat == list(range(places[0][0], places[-1][1] + 1)), "every token once"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Checkpoints of a PRM and its reference."""
    tokenizer = qwen_tokenizer()
    saved = [
        save(tmp_path_factory.mktemp(name), tokenizer, model)
        for name, model in zip(("prm", "ref"), pair(tokenizer), strict=True)
    ]
    return str(saved[0]), str(saved[1])


def candidates(count: int) -> list[TraceInContext]:
    """Several solutions of one problem, of one to three steps."""
    made = []
    for number in range(count):
        steps = tuple(
            f"{step} {'So 6. ' * (number % 4)}".strip() for step in STEPS[: 1 + number % 3]
        )
        made.append(replace(CONTEXT, trace=Trace(f"c{number}", "p", steps)))
    return made


@pytest.mark.parametrize("batch_tokens", [None, 40])
def test_sums_are_those_of_both_models_run_whole(batch_tokens: int | None) -> None:
    """Candidates share their beginnings in both models; the slow way runs each alone, in float64."""
    tokenizer = tiny_tokenizer()
    scorer = Scorer(
        ImplicitPrm(tokenizer, *pair(tokenizer)), max_tokens=512, batch_tokens=batch_tokens
    )
    assert scorer.shares
    contexts = candidates(7)
    found = {label.trace_id: label for label in scorer.score(contexts)}
    models, spread = pair(tokenizer), []
    for context in contexts:
        steps = [f"Step {n}: {step}" for n, step in enumerate(context.trace.steps, 1)]
        turns = [("user", "Which dose?"), ("assistant", "\n\n".join(steps))]
        text = tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in turns], tokenize=False
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        wanted = rewards(models, ids, bounds(tokenizer, "Which dose?", steps))
        label = found[context.trace.id]
        assert label.meta[REWARDS] == pytest.approx(wanted, abs=1e-7)
        scores = [step.score for step in label.step_labels]
        assert scores == pytest.approx([1 / (1 + math.exp(-each)) for each in wanted], abs=1e-7)
        spread += wanted
    assert max(spread) - min(spread) > 1e-3, "the two models differ"


@pytest.mark.slow
def test_checkpoints_give_the_same_scores_and_name_both_weights(folders: tuple[str, str]) -> None:
    model, reference = folders
    scorer = load_scorer(model, family="eurusprm-stage2", reference=f"hf:{reference}")
    stored = scorer.config()
    assert (stored["family"], scorer.family.aggregation) == ("eurusprm-stage2", "last")
    assert (stored["coefficient"], stored["reference"]) == (0.001, f"hf:{reference}")
    assert stored["weights"] != stored["reference_weights"]
    assert stored["reference_weights"].startswith("sha256:")
    [label] = scorer.score([CONTEXT])
    tokenizer = qwen_tokenizer()
    models = tuple(AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    places = bounds(tokenizer, "Which dose?", NUMBERED)
    wanted = rewards((models[0], models[1]), GOLDEN["qwen2.5"][1], places)
    assert label.meta[REWARDS] == pytest.approx(wanted, abs=1e-7)
    # The other way round, a reward is a loss.
    turned = load_scorer(reference, reference=model)
    assert turned.family.name == "implicit-prm"
    [label] = turned.score([CONTEXT])
    assert label.meta[REWARDS] == pytest.approx([-each for each in wanted], abs=1e-7)


TRAPS = (
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "\n",
    "\n\n",
    " ",
    ".",
    "Step 2:",
    "6 mg",
    "é",
    "患者",
)
TEXTS = st.lists(st.sampled_from(TRAPS) | st.text(max_size=3), max_size=5).map("".join)
FAMILIES: dict[str, ImplicitPrm] = {}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
@settings(max_examples=40, deadline=None)
@given(question=TEXTS, steps=st.lists(TEXTS, min_size=1, max_size=4))
def test_whatever_the_texts_hold_every_token_is_read_once_for_one_step(
    name: str, question: str, steps: list[str]
) -> None:
    if name not in FAMILIES:
        tokenizer = MADE[name]()
        FAMILIES[name] = ImplicitPrm(tokenizer, *pair(tokenizer))
    family = FAMILIES[name]
    laid_out = family.lay_out(trace(f"Q{question}", *steps), ())
    plain = family.lay_out(trace("Q", *["a"] * len(steps)), ())
    control = family.tokenizer.added_tokens_decoder
    assert [i for i in laid_out.ids if i in control] == [i for i in plain.ids if i in control]
    flat = [place for at in laid_out.read_at for place in at]
    assert flat == list(range(flat[0], flat[-1] + 1))
    assert all(laid_out.read_at)
    closing = max(place for place, i in enumerate(laid_out.ids) if i in control)
    assert flat[-1] + 1 == closing, "the last token read closes the turn"
