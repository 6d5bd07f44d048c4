"""Labeled traces as training rows: targets of steps, window, packing, and the collated batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from scoring import Family, FitRules, fit
from traces import StepLabel, TraceInContext, TraceLabel, Verdict
from training.config import TrainConfig

UNTRAINED: Final = -100.0
"""In a batch of labels: no target at this token, as transformers counts them."""


@dataclass(frozen=True, slots=True)
class Example:
    """A trace as token ids, and what is learned at which of them."""

    trace_id: str
    ids: tuple[int, ...]
    read_at: tuple[int, ...]
    """For each step the 0-based position in `ids` where its score is read."""
    targets: tuple[float | None, ...]
    """For each step P(correct) in [0, 1]; None where nothing is learned."""


@dataclass(slots=True)
class Examples:
    """The rows of a split, and what was left out."""

    rows: list[Example] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """Traces left out, by reason (an `AbstentionReason`, or `unlabeled`)."""
    shortened: int = 0
    """Traces in the split with fewer documents than they have."""

    @property
    def steps(self) -> int:
        """Steps with a target."""
        return sum(target is not None for row in self.rows for target in row.targets)


def step_targets(label: TraceLabel, n_steps: int, config: TrainConfig) -> tuple[float | None, ...]:
    """P(correct) for each step; None where the labeler says nothing, and after the first error.

    A neutral step is no error. The first error is the first step whose hard label is incorrect: its
    verdict, else no more than `hard_threshold` successful continuations, else a score below 0.5.
    """
    if label.abstention is not None:
        return (None,) * n_steps
    steps = label.step_labels or (StepLabel(),) * n_steps
    hard = [_hard(step, config.hard_threshold) for step in steps]
    end = next((at for at, correct in enumerate(hard) if correct is False), None)
    if label.first_error_given:
        end = label.first_error_index
        known = n_steps if end is None else end
        hard = [at < known if at <= known else one for at, one in enumerate(hard)]
    soft = config.targets == "soft"
    found = [_soft(step, hard=of) if soft else of for step, of in zip(steps, hard, strict=True)]
    read = n_steps if end is None or config.after_error == "keep" else end + 1
    return tuple(None if one is None or at >= read else float(one) for at, one in enumerate(found))


def _hard(step: StepLabel, threshold: int) -> bool | None:
    if step.abstention is not None:
        return None
    if step.continuations is not None and step.successes is not None:
        return step.successes > threshold
    if step.verdict is not None:
        return step.verdict is not Verdict.INCORRECT
    return None if step.score is None else step.score >= 0.5


def _soft(step: StepLabel, *, hard: bool | None) -> float | None:
    if step.abstention is not None:
        return None
    if step.score is not None:
        return step.score
    return None if hard is None else float(hard)


def examples_of(
    family: Family,
    labeled: Iterable[tuple[TraceInContext, TraceLabel | None]],
    rules: FitRules,
    config: TrainConfig,
) -> Examples:
    """Lay out labeled traces; over-long ones drop documents first, and are skipped if need be."""
    found = Examples()
    for context, label in labeled:
        if label is None:
            found.skipped["unlabeled"] += 1
            continue
        targets = step_targets(label, len(context.trace.steps), config)
        if not any(target is not None for target in targets):
            why = label.abstention.reason.value if label.abstention else "unlabeled"
            found.skipped[why] += 1
            continue
        fitted = fit(family, context, rules)
        if isinstance(fitted, TraceLabel):
            found.skipped[fitted.abstention.reason.value if fitted.abstention else "unread"] += 1
            continue
        found.shortened += fitted.dropped > 0
        places = tuple(places[-1] for places in fitted.laid_out.read_at)
        found.rows.append(Example(context.trace.id, fitted.laid_out.ids, places, targets))
    return found


def packed(rows: Sequence[Example], *, tokens: int, seed: int) -> list[list[Example]]:
    """The examples in rows of at most `tokens` tokens; a longer one has its own.

    Shuffled by the seed, then each goes into the first of the last few rows that has room.
    """
    order = list(rows)
    random.Random(seed).shuffle(order)
    bins: list[list[Example]] = []
    room: list[int] = []
    for row in order:
        size = len(row.ids)
        lately = range(max(0, len(bins) - _OPEN), len(bins))
        at = next((number for number in lately if room[number] >= size), None)
        if at is None:
            bins.append([row])
            room.append(tokens - size)
        else:
            bins[at].append(row)
            room[at] -= size
    return bins


_OPEN = 32
"""Rows that may still take an example."""


def collate(rows: Sequence[Sequence[Example]], *, pad: int) -> dict[str, Tensor]:
    """A batch of packed rows.

    Positions start at 0 with every trace: from that transformers derives that none sees another.
    The padding at a row's end counts as one more trace.

    Returns:
        `input_ids`, `position_ids`, `labels` (P(correct), or `UNTRAINED`), and `read` (whether a
        step score is read), each of shape (rows, tokens).
    """
    width = max(sum(len(one.ids) for one in row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), UNTRAINED)
    read = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, row in enumerate(rows):
        start = 0
        for one in row:
            end = start + len(one.ids)
            ids[number, start:end] = torch.tensor(one.ids)
            positions[number, start:end] = torch.arange(len(one.ids))
            for place, target in zip(one.read_at, one.targets, strict=True):
                read[number, start + place] = True
                if target is not None:
                    labels[number, start + place] = target
            start = end
        positions[number, start:] = torch.arange(width - start)
    return {"input_ids": ids, "position_ids": positions, "labels": labels, "read": read}


def balance(rows: Sequence[Example]) -> tuple[float, float]:
    """Weights of an incorrect and a correct step that make both classes weigh the same.

    Their mean over all steps is 1; both are 1 where a class is empty.
    """
    targets: list[Any] = [one for row in rows for one in row.targets if one is not None]
    right = sum(targets)
    wrong = len(targets) - right
    if not right or not wrong:
        return 1.0, 1.0
    return len(targets) / (2 * wrong), len(targets) / (2 * right)
