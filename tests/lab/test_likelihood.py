"""The likelihood scores: batching changes nothing, and the lowest token decides."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab import prompts
from lab.corruption import draw_trace
from lab.domain import decisive_passage, draw_facts, draw_question
from lab.likelihood import (
    StepRequest,
    first_unlikely_step,
    step_min_probabilities,
    step_min_probability,
)
from lab.training.tokens import build_tokenizer, encode
from lab.training.train_language import fresh_model


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    fresh = fresh_model(tokenizer, seed=0)
    fresh.eval()  # type: ignore[no-untyped-call]
    return fresh


def requests(tokenizer: PreTrainedTokenizerBase, n: int) -> list[StepRequest]:
    rng = random.Random(0)
    drawn = []
    for _ in range(n):
        facts = draw_facts(rng)
        question = draw_question(rng, facts)
        user = prompts.user_text(decisive_passage(facts), question.text)
        head = encode(tokenizer, prompts.generation_prompt(user))
        drawn.append(StepRequest(head, draw_trace(rng, facts, question).steps))
    return drawn


def test_a_batch_gives_what_single_traces_give(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    asked = requests(tokenizer, 7)
    together = step_min_probabilities(model, tokenizer, asked, batch_size=3)
    for request, scores in zip(asked, together, strict=True):
        alone = step_min_probability(model, tokenizer, request.prompt_ids, request.steps)
        assert len(scores) == len(request.steps)
        assert scores == pytest.approx(alone, abs=1e-6)


def test_scores_equal_a_plain_token_by_token_computation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    (whole,) = requests(tokenizer, 1)
    request = StepRequest(whole.prompt_ids, whole.steps[:2])
    expected = []
    ids = list(request.prompt_ids)
    for index, step in enumerate(request.steps):
        lowest = 1.0
        for token in encode(tokenizer, step if index == 0 else "\n" + step):
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            lowest = min(lowest, float(logits.softmax(-1)[token]))
            ids.append(token)
        expected.append(lowest)
    scores = step_min_probability(model, tokenizer, request.prompt_ids, request.steps)
    assert scores == pytest.approx(expected, abs=1e-6)


def test_steps_without_tokens_and_empty_prompts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert step_min_probability(model, tokenizer, [5], []) == []
    assert step_min_probability(model, tokenizer, [5], [""]) == [1.0]
    with pytest.raises(ValueError, match="prompt is empty"):
        step_min_probability(model, tokenizer, [], ["The answer is 900 mg."])


@pytest.mark.parametrize(
    ("scores", "first"), [([], None), ([0.1, 0.5], None), ([0.5, 0.09, 0.01], 1)]
)
def test_the_first_step_below_tau_is_named(scores: list[float], first: int | None) -> None:
    assert first_unlikely_step(scores) == first
