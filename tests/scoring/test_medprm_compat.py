"""Mode medprm-compat against a slow telling of the released script: what it reads, wrong or right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scoring import FitOptions, load_scorer
from scoring.families.medprm import MedPrm, MedPrmCompat
from tests.scoring.golden_cases import BARE, STEPWISE, trace
from tests.tiny_models import tiny_llama, tiny_tokenizer
from traces.errors import InputError, PrmError

MODE = "medprm-compat"
SPURIOUS = trace(
    "Which ки?", "It ки is\n6.", "So ки it is.", "A.", documents="The ки dose.|180 ки ки"
)


def published(tokenizer: Any, model: Any, context: Any) -> list[float]:
    """P(+) at every ` ки` of the rendered text: logits of the whole sequence, in bfloat16."""
    documents = "".join(
        f"Document {number}: {item.passage.text}\n\n"
        for number, item in enumerate(context.evidence, 1)
    )
    solution = " ".join(step.replace("\n", " ") + " ки" for step in context.trace.steps)
    text = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": f"{STEPWISE} " if documents else BARE},
            {
                "role": "user",
                "content": f"{documents}Question: {context.problem.question}\n\n"
                f"Explanation: {solution}",
            },
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    encoded = tokenizer(text, return_offsets_mapping=True)
    signs = [tokenizer(sign, add_special_tokens=False)["input_ids"][-1] for sign in (" +", " -")]
    with torch.no_grad():
        logits = model(torch.tensor([encoded["input_ids"]])).logits[0]
    return [
        float(torch.softmax(logits[place, signs].bfloat16(), dim=0)[0])
        for place, (begin, end) in enumerate(encoded["offset_mapping"])
        if text[begin:end] == " ки"
    ]


def test_min_and_last_are_the_published_ones(medprm_folder: Path) -> None:
    """Markers in documents, question and steps count, as they do there."""
    tokenizer: Any = AutoTokenizer.from_pretrained(medprm_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(medprm_folder)
    everything = published(tokenizer, model, SPURIOUS)
    assert len(everything) == 9
    scorer = load_scorer(str(medprm_folder), mode=MODE, dtype="float32")
    [label] = scorer.score([SPURIOUS])
    scores = [step.score for step in label.step_labels if step.score is not None]
    assert len(scores) == 3
    step = 2**-7  # One step of bfloat16 near 1: the two logits may be rounded apart.
    assert min(scores) == pytest.approx(min(everything), abs=step)
    assert scores[-1] == pytest.approx(everything[-1], abs=step)
    assert scores[1] == pytest.approx(everything[-2], abs=step)
    [strict] = load_scorer(str(medprm_folder)).score([SPURIOUS])
    assert strict.step_labels[0].score != pytest.approx(scores[0], abs=step)


def test_scores_are_bfloat16_and_good_steps_tie(medprm_folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(medprm_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(medprm_folder)
    compat, strict = MedPrmCompat(tokenizer, model), MedPrm(tokenizer, model)
    rows = model.get_output_embeddings().weight
    apart = rows[tokenizer(" +")["input_ids"][-1]] - rows[tokenizer(" -")["input_ids"][-1]]
    hidden = (apart / apart.norm() ** 2).detach() * torch.tensor([[6.0], [6.2], [-1.0]])
    ids = torch.zeros(3, dtype=torch.int64)
    rounded, exact = compat.probabilities(hidden, ids), strict.probabilities(hidden, ids)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert float(rounded[0]) == float(rounded[1])
    assert float(exact[0]) < float(exact[1])
    assert torch.allclose(rounded, exact, atol=2**-7)


def test_the_system_turn_for_documents_ends_in_a_blank() -> None:
    """Llama 3.1's template trims it; one that does not shows it."""
    tokenizer = tiny_tokenizer(extra=[" ки"])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    family = MedPrmCompat(tokenizer, tiny_llama(tokenizer))
    with_documents = family.lay_out(SPURIOUS, SPURIOUS.evidence)
    without = family.lay_out(SPURIOUS, ())
    assert "output + after that step. <|end|>" in tokenizer.decode(list(with_documents.ids))
    assert "output + after that step.<|end|>" in tokenizer.decode(list(without.ids))


def test_control_tokens_in_texts_are_control_tokens(medprm_folder: Path) -> None:
    context = trace("Which dose?", "It is 6 <|end|>.")
    compat = load_scorer(str(medprm_folder), mode=MODE).family.lay_out(context, ())
    strict = load_scorer(str(medprm_folder)).family.lay_out(context, ())
    end: Any = AutoTokenizer.from_pretrained(medprm_folder).convert_tokens_to_ids("<|end|>")
    assert compat.ids.count(end) == strict.ids.count(end) + 1


def test_a_template_that_rewrites_the_solution_is_refused() -> None:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(PrmError, match="rewrites"):
        MedPrmCompat(tokenizer, tiny_llama(tokenizer)).lay_out(SPURIOUS, ())


def test_the_mode_is_stored_with_its_packing_and_dtype(medprm_folder: Path) -> None:
    strict = load_scorer(str(medprm_folder)).config()
    compat = load_scorer(str(medprm_folder), mode=MODE).config()
    assert strict["mode"] == "strict"
    assert "packing" not in strict
    assert (compat["mode"], compat["packing"], compat["dtype"]) == (MODE, MODE, "bfloat16")
    assert compat["family"] == "medprm"
    # Nothing is limited there, so the whole window is used.
    assert compat["max_tokens"] == 1024


def test_the_mode_is_med_prms_alone(medprm_folder: Path, qwen_folder: Path) -> None:
    with pytest.raises(InputError, match="family medprm"):
        load_scorer(str(qwen_folder), mode=MODE)
    with pytest.raises(InputError, match="family medprm"):
        load_scorer(str(medprm_folder), family="likelihood", mode=MODE)
    with pytest.raises(InputError, match="reserve"):
        load_scorer(str(medprm_folder), mode=MODE, options=FitOptions(reserve=10))
    with pytest.raises(InputError, match="nonesuch"):
        load_scorer(str(medprm_folder), mode="nonesuch")
