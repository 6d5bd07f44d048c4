"""The best threshold for a measure on a named split, among all that make a difference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces, split_by_gold
from evaluation.frames import Counts, Floats, Index, Mask
from evaluation.measures import MEASURES, Rows
from traces import InputError

GIVEN = "given"
"""Source of a threshold that the user gave."""


@dataclass(frozen=True, slots=True)
class ThresholdSweep:
    """A measure at every threshold that makes a difference."""

    measure: str
    """A name in `measures.MEASURES`."""
    thresholds: tuple[float, ...]
    """Ascending, in (0, 1): midpoints between neighboring scores, and one beyond each end."""
    values: tuple[float | None, ...]
    """The measure at each, over all traces pooled; None where undefined."""

    def best(self) -> tuple[float, float] | None:
        """The best threshold and the measure there; of ties the one nearest to 0.5.

        None if the measure is undefined everywhere.
        """
        known = [
            (threshold, value)
            for threshold, value in zip(self.thresholds, self.values, strict=True)
            if value is not None
        ]
        # Ascending, and max keeps the first of ties: the lower of two equally near ones.
        return max(known, key=lambda pair: (pair[1], -abs(pair[0] - 0.5))) if known else None

    def thinned(self, points: int) -> list[tuple[float, float | None]]:
        """At most `points` (>= 2) of the pairs, evenly spaced in rank, including both ends."""
        pairs = list(zip(self.thresholds, self.values, strict=True))
        if len(pairs) <= points:
            return pairs
        chosen = np.linspace(0, len(pairs) - 1, points).round().astype(int)
        return [pairs[index] for index in chosen]


@dataclass(frozen=True, slots=True)
class FittedThreshold:
    """A threshold with its provenance."""

    threshold: float
    """In (0, 1)."""
    dataset: str
    """The dataset it was fitted on."""
    subset: str
    measure: str
    """The measure it was fitted for."""
    value: float
    """That measure on the split it was fitted on, so in-sample."""
    n_traces: int
    """Traces with usable gold in that split."""
    in_sample: tuple[str, ...] = ()
    """Evaluated subsets that share traces with the split, whose figures are optimistic."""

    @property
    def source(self) -> str:
        """`fit:DATASET/SUBSET`, with a warning if it is in-sample; part of every output."""
        note = f" (in-sample: {', '.join(self.in_sample)})" if self.in_sample else ""
        return f"fit:{self.dataset}/{self.subset}{note}"

    def as_json(self) -> dict[str, Any]:
        """The key `threshold_fit` of `stepgold evaluate`."""
        return {
            "dataset": self.dataset,
            "subset": self.subset,
            "measure": self.measure,
            "value": self.value,
            "n_traces": self.n_traces,
            "in_sample": bool(self.in_sample),
            "in_sample_subsets": list(self.in_sample),
        }


def threshold_sweep(traces: Iterable[EvaluatedTrace], measure: str) -> ThresholdSweep:
    """The measure, pooled over traces, at every threshold that changes a call.

    Calls change only where the threshold passes a score, and only in the traces with that score, so
    each trace is counted once per score of its own.

    Raises:
        InputError: unknown measure, or no step is decided by a score.
    """
    if measure not in MEASURES:
        raise InputError(
            f"Unknown measure '{measure}'.", remedy=f"use one of {', '.join(MEASURES)}"
        )
    chosen = MEASURES[measure]
    usable = split_by_gold(traces).usable
    scores, counts = _deciding_scores(usable)
    if not len(scores):
        raise _no_scores()
    scores_seen, where = np.unique(scores, return_inverse=True)
    steps = np.zeros((len(scores_seen), 6))
    base = np.zeros(6)
    for _, at, changes in _changes(usable, scores, counts, chosen.rows):
        if at is None:
            base += changes.sum(axis=0)
        else:
            np.add.at(steps, where.reshape(-1)[at], changes)
    sums = base + np.vstack([np.zeros(6), steps.cumsum(axis=0)])
    edges = [0.0, *map(float, scores_seen), 1.0]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    # No threshold separates scores that are equal or differ in the last bit only.
    kept = [i for i, t in enumerate(middles) if edges[i] < t < edges[i + 1]]
    values, defined = chosen.formula(sums[kept])
    return ThresholdSweep(
        measure,
        tuple(middles[i] for i in kept),
        tuple(float(v) if known else None for v, known in zip(values, defined, strict=True)),
    )


def fit_threshold(
    traces: Iterable[EvaluatedTrace], measure: str, *, dataset: str, subset: str
) -> FittedThreshold:
    """The threshold with the highest value of a measure on a split.

    This is how ProcessBench (section 4.1) evaluates Skywork's PRM.

    Args:
        traces: the split; traces without usable gold are left out.
        measure: a name of `measures.MEASURES`.
        dataset, subset: names of the split.

    Raises:
        InputError: unknown measure, no scores, or the measure is undefined at every threshold.
    """
    usable = split_by_gold(traces).usable
    if not decided_by_scores(usable):
        raise _no_scores(f"{dataset}/{subset}")
    best = threshold_sweep(usable, measure).best()
    if best is None:
        raise InputError(
            f"'{measure}' is undefined on the split: one of its groups is empty.",
            where=f"{dataset}/{subset}",
            remedy="fit on a split with traces of both kinds",
        )
    return FittedThreshold(
        threshold=best[0],
        dataset=dataset,
        subset=subset,
        measure=measure,
        value=best[1],
        n_traces=len(usable),
    )


def decided_by_scores(traces: Iterable[EvaluatedTrace]) -> bool:
    """Whether a score decides any step: a labeler of verdicts needs no threshold."""
    return bool(_deciding(EvaluatedTraces.of(traces)).any())


def _deciding(traces: EvaluatedTraces) -> Mask:
    """Per step whether its score decides it because it has no verdict."""
    labels = traces.predicted
    steps = labels.scored & (labels.verdict == 0)
    if labels.abstained.any():
        steps &= ~np.repeat(labels.abstained, traces.frame.n_steps)
    return np.asarray(steps)


def _deciding_scores(traces: EvaluatedTraces) -> tuple[Floats, Index]:
    """The distinct deciding scores of each trace, ascending, and their number per trace."""
    deciding = _deciding(traces)
    scores = traces.predicted.score[deciding]
    owner = traces.frame.owners(np.flatnonzero(deciding))
    order = np.lexsort((scores, owner))
    scores, owner = scores[order], owner[order]
    fresh = np.ones(len(scores), np.bool_)
    fresh[1:] = (scores[1:] != scores[:-1]) | (owner[1:] != owner[:-1])
    return scores[fresh], np.bincount(owner[fresh], minlength=len(traces))


def _no_scores(where: str | None = None) -> InputError:
    return InputError(
        "No step is decided by a score, so there is no threshold to fit.",
        where=where,
        remedy="fit with a labeler that gives scores, or give a number",
    )


def _changes(
    traces: EvaluatedTraces, scores: Floats, counts: Index, rows_of: Rows
) -> Iterator[tuple[int, Index | None, Counts]]:
    """How the counts of traces change at each of their deciding scores.

    Yields:
        First 0, None, and the counts of every trace below its lowest score; then, for n from 1,
        the place in `scores` of the n-th score of each trace that has one, and the change of the
        trace's counts there. Thresholds between two neighboring scores give equal calls.
    """
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    last = rows_of(traces, -math.inf)
    yield 0, None, last
    for number in range(1, int(counts.max()) + 1 if len(counts) else 1):
        kept = counts >= number
        traces, last = traces.where(kept), last[kept]
        starts, counts = starts[kept], counts[kept]
        at = starts + number - 1
        more = counts > number
        above = np.full(len(at), math.inf)
        above[more] = (scores[at[more]] + scores[at[more] + 1]) / 2
        rows = rows_of(traces, np.repeat(above, traces.frame.n_steps))
        yield number, at, rows - last
        last = rows
