"""Held-out figures of the lab's models, compared with the exact truth."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab import prompts
from lab.corruption import CorruptedTrace, draw_trace
from lab.domain import DrugFacts, Question, draw_facts, draw_question
from lab.likelihood import TAU, StepRequest, first_unlikely_step, step_min_probabilities
from lab.solution import final_answer, gold_answer
from lab.training.examples import draw_passage
from lab.training.sampling import complete
from lab.training.tokens import decode, encode, token_id


@dataclass(frozen=True)
class HeldOut:
    """One held-out draw: a trace of known truth with a right and a wrong passage."""

    facts: DrugFacts
    question: Question
    passage: str
    wrong_passage: str
    trace: CorruptedTrace


@dataclass(frozen=True)
class FirstErrorFigures:
    """First-error detection as in ProcessBench."""

    error_accuracy: float
    correct_accuracy: float
    step_accuracy: float

    @property
    def processbench_f1(self) -> float:
        """Return the harmonic mean of error accuracy and correct accuracy."""
        total = self.error_accuracy + self.correct_accuracy
        return 2 * self.error_accuracy * self.correct_accuracy / total if total else 0.0


def draw_held_out(
    seed: int, n: int, *, window: float = 0.6, error_share: float = 0.5
) -> list[HeldOut]:
    """Draw facts, questions, passages and traces; training never uses these seeds."""
    rng = random.Random(f"held out {seed}")
    drawn = []
    for _ in range(n):
        facts = draw_facts(rng)
        question = draw_question(rng, facts)
        other = draw_facts(rng)
        while other.drug == facts.drug:
            other = draw_facts(rng)
        drawn.append(
            HeldOut(
                facts,
                question,
                passage=draw_passage(rng, facts, window),
                wrong_passage=draw_passage(rng, other, window),
                trace=draw_trace(rng, facts, question, error_share=error_share),
            )
        )
    return drawn


def first_error_figures(
    traces: Sequence[CorruptedTrace], found: Sequence[int | None]
) -> FirstErrorFigures:
    """Compare found first errors with the truth; labels are cumulative from the first error on."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    steps_right = steps_all = 0
    for trace, guess in zip(traces, found, strict=True):
        truth = trace.first_error_index
        hits[truth is not None].append(guess == truth)
        for index in range(len(trace.steps)):
            wrong = truth is not None and index >= truth
            steps_right += wrong == (guess is not None and index >= guess)
            steps_all += 1
    return FirstErrorFigures(
        _share(hits[True]), _share(hits[False]), steps_right / max(steps_all, 1)
    )


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else 0.0


def greedy_pass_rate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: Sequence[HeldOut]
) -> dict[str, float]:
    """Return greedy pass@1 with the right passage."""
    return {"pass_rate": pass_rate(model, tokenizer, held_out)}


def pass_rate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Sequence[HeldOut],
    *,
    temperature: float = 0.0,
    wrong_passage: bool = False,
) -> float:
    """Return the share of questions whose sampled solution ends in the correct answer."""
    end_id = token_id(tokenizer, prompts.END)
    heads = [prompt_ids(tokenizer, h, wrong_passage=wrong_passage) for h in held_out]
    completions = complete(model, heads, end_id=end_id, temperature=temperature)
    return _share(
        [
            final_answer(prompts.split_steps(decode(tokenizer, ids)))
            == gold_answer(h.facts, h.question)
            for ids, h in zip(completions, held_out, strict=True)
        ]
    )


def likelihood_figures(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Sequence[HeldOut],
    *,
    wrong_passage: bool = False,
    tau: float = TAU,
) -> FirstErrorFigures:
    """Return how well the likelihood judge finds the first errors."""
    requests = [
        StepRequest(prompt_ids(tokenizer, h, wrong_passage=wrong_passage), h.trace.steps)
        for h in held_out
    ]
    found = [
        first_unlikely_step(scores, tau)
        for scores in step_min_probabilities(model, tokenizer, requests)
    ]
    return first_error_figures([h.trace for h in held_out], found)


def marker_first_errors(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Sequence[HeldOut],
    *,
    wrong_passage: bool = False,
) -> FirstErrorFigures:
    """Return how well the marker PRM finds the first errors at threshold .5."""
    traces = [
        MarkedTrace(h.wrong_passage if wrong_passage else h.passage, h.question.text, h.trace.steps)
        for h in held_out
    ]
    found = [first_unlikely_step(s, 0.5) for s in marker_scores(model, tokenizer, traces)]
    return first_error_figures([h.trace for h in held_out], found)


def marker_figures(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: Sequence[HeldOut]
) -> dict[str, float]:
    """Return the marker PRM's figures with the right passage, for the training log."""
    figures = marker_first_errors(model, tokenizer, held_out)
    return {
        "error_accuracy": round(figures.error_accuracy, 3),
        "correct_accuracy": round(figures.correct_accuracy, 3),
        "processbench_f1": round(figures.processbench_f1, 3),
    }


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, held_out: HeldOut, *, wrong_passage: bool
) -> list[int]:
    """Return the prompt of judge and policy for one held-out draw."""
    passage = held_out.wrong_passage if wrong_passage else held_out.passage
    user = prompts.user_text(passage, held_out.question.text)
    return encode(tokenizer, prompts.generation_prompt(user))


@dataclass(frozen=True)
class MarkedTrace:
    """Input of the marker PRM."""

    passage: str | None
    question: str
    steps: Sequence[str]


@torch.inference_mode()
def marker_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    traces: Sequence[MarkedTrace],
    batch_size: int = 16,
) -> list[list[float]]:
    """Return P(` +`) against P(` -`) at each ` ки` of each trace, in the order given."""
    marker, positive, negative = (
        token_id(tokenizer, text) for text in (prompts.MARKER, prompts.POSITIVE, prompts.NEGATIVE)
    )
    rows = [
        encode(
            tokenizer,
            prompts.generation_prompt(prompts.marked_user_text(t.passage, t.question, t.steps)),
        )
        for t in traces
    ]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found: list[list[float]] = [[] for _ in rows]
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        width = max(len(rows[index]) for index in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        for row, index in enumerate(part):
            ids[row, : len(rows[index])] = torch.tensor(rows[index])
        logits = model(input_ids=ids, use_cache=False).logits[..., [positive, negative]].float()
        scores = logits.softmax(dim=-1)[..., 0]
        for row, index in enumerate(part):
            found[index] = scores[row][ids[row] == marker].tolist()
    return found
