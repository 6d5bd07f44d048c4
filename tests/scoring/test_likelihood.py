"""The likelihood baseline, against token probabilities taken one prefix at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference.prompting import ContinuationPrompt, render_question
from scoring import load_scorer
from scoring.engine.engine import Scorer
from scoring.families.likelihood import Likelihood
from tests.scoring.golden_cases import trace
from tests.tiny_models import tiny_tokenizer
from traces.problem import TraceInContext


def reference(model: Any, tokenizer: Any, context: TraceInContext, separator: str) -> list[float]:
    """For every token of the solution a forward pass of its own; then the least of each step."""
    head = (
        "<|begin|><|start|>user<|close|>\n\n"
        + render_question(context.problem, context.evidence).strip()
        + "<|end|><|start|>assistant<|close|>\n\n"
    )
    text = head + separator.join(context.trace.steps)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ends = [
        len(head + separator.join(context.trace.steps[: t + 1]))
        for t in range(len(context.trace.steps))
    ]
    least = [1.0] * len(ends)
    for place in range(1, len(ids)):
        begin = len(tokenizer.decode(ids[:place]))
        if begin < len(head):
            continue
        step = sum(begin >= end for end in ends)
        with torch.no_grad():
            logits = model(torch.tensor([ids[:place]])).logits[0, -1].double()
        least[step] = min(least[step], float(torch.softmax(logits, dim=0)[ids[place]]))
    return least


@pytest.fixture(scope="module")
def checkpoint(medprm_folder: Path) -> tuple[Any, Any]:
    model: Any = AutoModelForCausalLM.from_pretrained(medprm_folder)
    return model, AutoTokenizer.from_pretrained(medprm_folder)


@pytest.mark.parametrize("separator", ["\n", "\n\n", " "])
def test_scores_equal_the_reference(
    checkpoint: tuple[Any, Any], contexts: list[TraceInContext], separator: str
) -> None:
    model, tokenizer = checkpoint
    family = Likelihood(tokenizer, model, ContinuationPrompt(separator=separator))
    found = {label.trace_id: label for label in Scorer(family, max_tokens=1024).score(contexts)}
    for context in (contexts[3], contexts[4]):
        got = [step.score for step in found[context.trace.id].step_labels]
        assert got == pytest.approx(reference(model, tokenizer, context, separator), rel=1e-3)


def test_every_solution_token_is_read_once_and_no_other(
    checkpoint: tuple[Any, Any], contexts: list[TraceInContext]
) -> None:
    model, tokenizer = checkpoint
    for context in contexts:
        laid_out = Likelihood(tokenizer, model).lay_out(context, context.evidence)
        places = [place for step in laid_out.read_at for place in step]
        assert places == list(range(places[0], len(laid_out.ids) - 1))
        assert tokenizer.decode(list(laid_out.ids[places[0] + 1 :])) == "\n".join(
            context.trace.steps
        )
        assert laid_out.ids.count(tokenizer.bos_token_id) == 1


def test_large_vocabularies_are_read_in_parts(
    checkpoint: tuple[Any, Any], contexts: list[TraceInContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = checkpoint
    scorer = Scorer(Likelihood(tokenizer, model), max_tokens=1024)
    whole = list(scorer.score(contexts[:4]))
    monkeypatch.setattr("scoring.engine.heads._LOGITS_NUMBERS", 7 * len(tokenizer))
    for parts, label in zip(scorer.score(contexts[:4]), whole, strict=True):
        for one, other in zip(parts.step_labels, label.step_labels, strict=True):
            assert one.score == pytest.approx(other.score, rel=1e-5)


def test_it_is_never_guessed(medprm_folder: Path) -> None:
    assert load_scorer(str(medprm_folder)).family.name == "medprm"
    assert load_scorer(str(medprm_folder), family="likelihood").family.name == "likelihood"


def test_a_tokenizer_without_offsets_is_refused(
    checkpoint: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from traces.errors import PrmError

    tokenizer = tiny_tokenizer()
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(PrmError, match="fast tokenizer"):
        Likelihood(tokenizer, checkpoint[0])


def test_control_tokens_in_steps_stay_text(checkpoint: tuple[Any, Any]) -> None:
    """They neither end the turn nor shift the other steps: these are read where they were."""
    model, tokenizer = checkpoint
    family = Likelihood(tokenizer, model)
    context = trace("Which dose?", "It is 6 <|end|> ки", "So.")
    laid_out = family.lay_out(context, ())
    harmless = family.lay_out(trace("Which dose?", "It is 6 mg", "So."), ())
    for token in ("<|end|>", "<|start|>", " ки"):
        number = tokenizer.convert_tokens_to_ids(token)
        assert laid_out.ids.count(number) == harmless.ids.count(number)
    assert tokenizer.decode(list(laid_out.ids)).endswith("\n\nIt is 6 <|end|> ки\nSo.")
    first, second = laid_out.read_at
    # Each token behind the prompt is predicted once, the line break with the step behind it.
    assert [*first, *second] == list(range(first[0], len(laid_out.ids) - 1))
    assert first[0] == harmless.read_at[0][0]
    assert tokenizer.decode([laid_out.ids[place + 1] for place in second]) == "\nSo."
