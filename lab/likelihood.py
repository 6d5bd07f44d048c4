"""The lab's judge, and its slow reference: the lowest token probability of each step.

A model that solves the task writes correct steps with confidence, so that one improbable token
reveals a wrong step. Training measures the model in memory with these functions; the `lab` judge
and the `likelihood` PRM family run the engine of `scoring`, which tests compare with them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab import prompts
from scoring import load_scorer
from traces import LabeledTrace, StepLabel, TraceInContext, TraceLabel, Verdict

TAU: Final = 0.1
"""A step with a token less likely than this is incorrect."""


@dataclass(frozen=True)
class StepRequest:
    """One trace to score after its prompt."""

    prompt_ids: Sequence[int]
    steps: Sequence[str]


def step_min_probability(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[int],
    steps: Sequence[str],
) -> list[float]:
    """Return the lowest token probability of each step, with one step per line."""
    return step_min_probabilities(model, tokenizer, [StepRequest(prompt_ids, steps)])[0]


@torch.inference_mode()
def step_min_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[StepRequest],
    batch_size: int = 32,
) -> list[list[float]]:
    """Score many traces, in batches of similar length; results are in the order given.

    The line break before a step belongs to that step. A step without tokens scores 1.
    """
    layouts = [_step_tokens(tokenizer, request.steps) for request in requests]
    lengths = [len(r.prompt_ids) + len(ids) for r, (ids, _) in zip(requests, layouts, strict=True)]
    order = sorted(range(len(requests)), key=lengths.__getitem__)
    found: list[list[float]] = [[] for _ in requests]
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        rows = [list(requests[i].prompt_ids) + layouts[i][0] for i in part]
        heads = [len(requests[i].prompt_ids) for i in part]
        for index, probabilities in zip(
            part, _token_probabilities(model, rows, heads), strict=True
        ):
            scores = [1.0] * len(requests[index].steps)
            for step, probability in zip(layouts[index][1], probabilities, strict=True):
                scores[step] = min(scores[step], probability)
            found[index] = scores
    return found


def first_unlikely_step(probabilities: Sequence[float], tau: float = TAU) -> int | None:
    """Return the first step whose lowest token probability is below `tau`.

    >>> first_unlikely_step([0.9, 0.02, 0.8])
    1
    """
    return next((i for i, p in enumerate(probabilities) if p < tau), None)


def _step_tokens(
    tokenizer: PreTrainedTokenizerBase, steps: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Return the token ids of the joined steps and the step each token begins in."""
    if not steps:
        return [], []
    text = prompts.STEP_SEPARATOR.join(steps)
    ends = list(accumulate(len(step) + len(prompts.STEP_SEPARATOR) for step in steps))
    starts = [end - len(prompts.STEP_SEPARATOR) for end in ends[:-1]]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    owners = [bisect_right(starts, first) for first, _ in encoded["offset_mapping"]]
    return list(encoded["input_ids"]), owners


def _token_probabilities(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], heads: Sequence[int]
) -> list[list[float]]:
    """Return the probability of each token after the head of its row (right-padded batch)."""
    if min(heads) < 1:
        raise ValueError("The prompt is empty, so the first token of a trace has no probability.")
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, device=model.device)
        mask[index, : len(row)] = 1
    kept = width - min(heads) + 1
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=kept, use_cache=False).logits
    found = []
    for index, (row, head) in enumerate(zip(rows, heads, strict=True)):
        first = head - 1 - (width - kept)
        scores = logits[index, first : first + len(row) - head].float().log_softmax(dim=-1)
        tokens = ids[index, head : len(row)]
        found.append(scores.gather(1, tokens[:, None])[:, 0].exp().tolist())
    return found


class LikelihoodJudge:
    """Labels steps by the token probabilities of one causal language model, without JSON or quotes.

    It has the interface of the Gemini judge, so that the pipeline runs without a key. A trace is
    incorrect from the first step with a token of probability below TAU (docs/decisions/0016-lab-models.md).
    """

    def __init__(self, folder: str, *, tau: float = TAU) -> None:
        """Load the model in `folder`; a token less probable than `tau` in (0, 1) makes a step
        wrong."""
        self._scorer = load_scorer(folder, family="likelihood")
        self._tau = tau

    def config(self) -> dict[str, Any]:
        """Return the configuration that is stored with the labels."""
        return {"rule": "likelihood", "tau": self._tau, "scorer": self._scorer.config()}

    def judge(self, contexts: Iterable[TraceInContext]) -> Iterator[LabeledTrace]:
        """Yield one label per trace; a trace beyond the model's window is an abstention."""
        for label in self._scorer.score(contexts):
            resolved = self._scorer.resolved_model
            yield LabeledTrace(self._verdicts(label), resolved_model=resolved)

    def _verdicts(self, label: TraceLabel) -> TraceLabel:
        steps: list[StepLabel] = []
        wrong = False
        for step in label.step_labels:
            if step.score is None:
                steps.append(step)
                continue
            wrong = wrong or step.score < self._tau
            steps.append(StepLabel(Verdict.INCORRECT if wrong else Verdict.CORRECT))
        resolved = {"resolved_model": self._scorer.resolved_model}
        return replace(label, step_labels=tuple(steps), meta={**label.meta, **resolved})
