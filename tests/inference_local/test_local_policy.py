"""The local policy: token boundaries, seeds, limits, stop strings, abstention instead of cutting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference.local.policy import LocalPolicy
from inference.prompting import (
    ContinuationPrompt,
    continuation_messages,
    conversation_ids,
    conversation_text,
)
from labeling.stages import Policy
from tests.policies import local_policy
from tests.tiny_models import save, tiny_llama, tiny_tokenizer
from traces.errors import InputError, ModelRefused
from traces.labels import AbstentionReason
from traces.problem import Problem, Trace, TraceContinuations, TraceInContext, Wanted


def policy(folder: Path, **changes: Any) -> LocalPolicy:
    settings: dict[str, Any] = {
        "spec": "hf:tiny",
        "prompt": ContinuationPrompt(),
        "max_tokens": 10,
        "temperature": 0.8,
        "with_evidence": True,
    }
    return local_policy(folder, **settings | changes)


def run(
    policy: LocalPolicy, contexts: list[TraceInContext], *, k: int = 2, seed: int = 0
) -> dict[str, TraceContinuations]:
    return {done.trace_id: done for done in policy.continue_traces(contexts, k=k, seed=seed)}


@pytest.fixture(scope="module")
def tiny_policy(tiny_folder: Path) -> Policy:
    """Typed as the protocol: mypy holds the class to it."""
    return policy(tiny_folder)


@pytest.fixture(scope="module")
def sampled(
    tiny_policy: LocalPolicy, contexts: list[TraceInContext]
) -> dict[str, TraceContinuations]:
    return run(tiny_policy, contexts)


def test_every_prefix_is_continued_k_times_in_order(
    sampled: dict[str, TraceContinuations], contexts: list[TraceInContext]
) -> None:
    assert len(sampled) == len(contexts)
    for context in contexts:
        steps = len(context.trace.steps)
        got = [(text.step_index, text.index) for text in sampled[context.trace.id].texts]
        assert got == [(step, index) for step in range(steps) for index in range(2)]


@pytest.mark.slow
def test_the_same_whatever_order_budget_company_and_k(
    tiny_folder: Path,
    tiny_policy: LocalPolicy,
    sampled: dict[str, TraceContinuations],
    contexts: list[TraceInContext],
) -> None:
    assert run(tiny_policy, contexts[::-1]) == sampled
    assert run(policy(tiny_folder, cache_tokens=400), contexts) == sampled
    more = run(tiny_policy, contexts[2:3], k=5)["t2"].texts
    assert tuple(text for text in more if text.index < 2) == sampled["t2"].texts
    assert tiny_policy.near_ties == 0


def test_another_seed_gives_other_texts(
    tiny_policy: LocalPolicy, sampled: dict[str, TraceContinuations], contexts: list[TraceInContext]
) -> None:
    other = run(tiny_policy, contexts, seed=1)
    assert all(other[name].texts != sampled[name].texts for name in sampled)


@pytest.mark.parametrize("separator", ["\n", "\n\n", " ", ""])
def test_greedy_equals_generate_after_the_rendered_text(
    tiny_folder: Path, contexts: list[TraceInContext], separator: str
) -> None:
    """Also where the tokenizer joins the end of a prefix with the next step (blank, nothing)."""
    prompt = ContinuationPrompt(system="Go on.", separator=separator)
    context = contexts[3]
    done = run(policy(tiny_folder, prompt=prompt, temperature=0.0), [context], k=1)["t3"]
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_folder)
    for text in done.texts:
        steps = context.trace.prefix(text.step_index)
        rendered = (
            "<|begin|><|start|>system<|close|>\n\nGo on.<|end|><|start|>user<|close|>\n\n"
            "Document 1: The cap of drug 3 is 300 mg.\n\n"
            "Question: Which single dose? Patient 3.<|end|><|start|>assistant<|close|>\n\n"
            + "".join(step + separator for step in steps)
        )
        ids = tokenizer(rendered, add_special_tokens=False, return_tensors="pt")["input_ids"]
        output = model.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0)
        whole = tokenizer.decode(output[0], skip_special_tokens=True)
        assert whole == tokenizer.decode(ids[0], skip_special_tokens=True) + text.text
        assert text.tokens == len(output[0]) - len(ids[0])


def test_prefix_ids_are_those_of_the_text_though_tokens_join(
    tiny_folder: Path, contexts: list[TraceInContext]
) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder)
    trace = contexts[3].trace
    conversations = [
        continuation_messages(
            contexts[3].problem, (), trace.prefix(step), system=None, separator=" "
        )
        for step in range(4)
    ]
    rows = conversation_ids(tokenizer, conversations)
    for ids, conversation in zip(rows, conversations, strict=True):
        text = conversation_text(tokenizer, conversation)
        assert list(ids) == tokenizer(text, add_special_tokens=False)["input_ids"]
    shared = policy(tiny_folder, prompt=ContinuationPrompt(separator=" "))._tokenize(contexts[3])
    for row in shared.shared([Wanted(step, 0, 1) for step in range(4)], seed=0).rows:
        assert (*shared.prefixes[-1][: row.cut], *row.tail) == shared.prefixes[row.counter[0]]


def test_tokens_that_join_over_steps_are_not_shared(tiny_folder: Path) -> None:
    """A prefix that breaks off within a word has other tokens than the whole trace has there."""
    steps = ("The Questio", "n is the dos", "e, an", "d no more.")
    context = TraceInContext(Problem("p", "Why?"), Trace("t", "p", steps))
    joined = policy(tiny_folder, prompt=ContinuationPrompt(separator=""), temperature=0.0)
    wanted = [Wanted(step, 0, 1) for step in range(4)]
    rows = joined._tokenize(context).shared(wanted, seed=0).rows
    assert max(len(row.tail) for row in rows) > 1
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_folder)
    for text in run(joined, [context], k=1)["t"].texts:
        conversation = continuation_messages(
            context.problem, (), context.trace.prefix(text.step_index), system=None, separator=""
        )
        ids = tokenizer(
            conversation_text(tokenizer, conversation),
            add_special_tokens=False,
            return_tensors="pt",
        )["input_ids"]
        output = model.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0)
        assert text.text == tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_evidence_is_shown_only_if_asked_for(
    tiny_folder: Path, sampled: dict[str, TraceContinuations], contexts: list[TraceInContext]
) -> None:
    bare = [replace(context, evidence=()) for context in contexts]
    without = run(policy(tiny_folder, with_evidence=False), contexts)
    assert without == run(policy(tiny_folder), bare)
    assert without != sampled


def test_a_continuation_ends_at_the_end_of_turn_or_at_the_limit(
    tiny_folder: Path, tmp_path: Path, contexts: list[TraceInContext]
) -> None:
    """The generation defaults may name several ids that end a turn."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_folder)
    model.generation_config.eos_token_id = [4, *range(5, 70)]
    done = run(policy(save(tmp_path, tokenizer, model)), contexts)
    texts = [text for one in done.values() for text in one.texts]
    assert "stop" in {text.finish_reason for text in texts}
    assert all(text.tokens == 10 for text in texts if text.finish_reason == "length")
    assert any(text.tokens == 1 and text.text == "" for text in texts)


def test_stop_strings_end_and_are_cut_off(
    tiny_folder: Path, sampled: dict[str, TraceContinuations], contexts: list[TraceInContext]
) -> None:
    texts = [text.text for done in sampled.values() for text in done.texts]
    stop = next(text[4:6] for text in texts if "\N{REPLACEMENT CHARACTER}" not in text[:8] and len(text) > 8)  # fmt: skip
    stopped = run(policy(tiny_folder, stop=("never this", stop)), contexts)
    for name, done in sampled.items():
        for free, cut in zip(done.texts, stopped[name].texts, strict=True):
            if stop in free.text:
                assert cut.text == free.text[: free.text.index(stop)]
                assert (cut.finish_reason, cut.tokens <= free.tokens) == ("stop", True)
            else:
                assert cut == free
    assert any(stop in text for text in texts)
    assert not all(stop in text for text in texts)


def test_what_does_not_fit_is_abstained_from_and_never_cut(
    tmp_path: Path, contexts: list[TraceInContext]
) -> None:
    tokenizer = tiny_tokenizer()
    length = len(
        conversation_ids(
            tokenizer,
            [continuation_messages(contexts[0].problem, contexts[0].evidence, contexts[0].trace.steps, system=None, separator="\n")],
        )[0]
    )  # fmt: skip
    folder = save(tmp_path, tokenizer, tiny_llama(tokenizer, max_position_embeddings=length + 10))
    done = run(policy(folder), [contexts[3], contexts[0]])
    assert done["t0"].abstention is None
    assert {text.tokens for text in done["t0"].texts} == {10}
    abstention = done["t3"].abstention
    assert abstention is not None
    assert abstention.reason is AbstentionReason.OVER_LENGTH
    assert str(length + 10) in abstention.detail
    assert done["t3"].texts == ()
    assert run(policy(folder, max_tokens=11), [contexts[0]])["t0"].abstention is not None


def test_weights_are_named_by_what_they_hold(tiny_folder: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    same = policy(save(tmp_path / "same", tokenizer, tiny_llama(tokenizer)))
    other = policy(save(tmp_path / "other", tokenizer, tiny_llama(tokenizer, seed=1)))
    assert policy(tiny_folder).resolved_model == same.resolved_model
    assert same.resolved_model != other.resolved_model
    assert str(same.resolved_model).startswith("sha256:")


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": 0}]
)
def test_wrong_settings_are_refused_before_loading(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        policy(Path("nowhere"), **wrong)


def test_no_continuations_is_refused(
    tiny_policy: LocalPolicy, contexts: list[TraceInContext]
) -> None:
    with pytest.raises(InputError, match="at least 1"):
        run(tiny_policy, contexts, k=0)


def broken(folder: Path, kind: str) -> Path:
    tokenizer = tiny_tokenizer()
    save(folder, tokenizer, tiny_llama(tokenizer))
    if kind == "truncated weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:200])
    elif kind == "unknown kind":
        (folder / "config.json").write_text('{"model_type": "nonesuch"}')
    elif kind == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    elif kind == "missing weights":
        model = tiny_llama(tokenizer)
        del model.model.layers[1].mlp.up_proj.weight
        model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "kind", ["truncated weights", "unknown kind", "no tokenizer", "missing weights"]
)
def test_a_checkpoint_that_cannot_be_used_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ModelRefused) as refusal:
        policy(broken(tmp_path, kind))
    assert len(str(refusal.value).splitlines()) <= 3


def test_a_model_that_is_nowhere_is_refused() -> None:
    with pytest.raises(ModelRefused, match="no such folder"):
        policy(Path("no/such/model"))
