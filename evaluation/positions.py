"""Where in a trace a labeler looks for errors: the lowest score, and calls by step index.

A PRM trained on outcomes tends to put its lowest score on the last step (process-to-outcome shift,
arXiv 2501.07301, section 3.2): it judges the answer, not the steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.bootstrap import RESAMPLES, Estimate, as_list, generator
from evaluation.evaluated import EvaluatedTrace, predicted_error, split_by_gold, step_calls
from evaluation.scored_steps import step_scores
from evaluation.shares import share_by_problem

DEPTHS = 10
"""Bins of the relative position of the lowest score."""
LAST_INDEX = 20
"""Steps from this index on share one row."""


@dataclass(frozen=True, slots=True)
class MinimumPosition:
    """Where the lowest score of a trace stands; of equally low ones the first."""

    n: int
    """Traces with a score on every step."""
    incomplete: int
    """Traces without: left out."""
    share_at_last: Estimate
    """Share of traces whose lowest score is on the last step; None without traces."""
    mean_depth: float | None
    """Mean of (index + 1) / steps, in (0, 1]; None without traces."""
    depths: tuple[int, ...]
    """Traces by that figure, in `DEPTHS` bins of equal width; the upper edge belongs to the bin."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {
            "n": self.n,
            "incomplete": self.incomplete,
            "share_at_last": self.share_at_last.value,
            "share_at_last_ci95": as_list(self.share_at_last),
            "mean_depth": self.mean_depth,
            "depths": list(self.depths),
        }


@dataclass(frozen=True, slots=True)
class StepIndexRow:
    """What gold and a labeler say about the steps at one index."""

    index: int
    """0-based; in the last row the steps from here on."""
    open_ended: bool
    """Whether later steps are counted here too."""
    n: int
    """Steps at which gold says correct or incorrect."""
    gold_incorrect: float
    """Share of them that gold calls incorrect."""
    n_called: int
    """Of them, steps on which the labeler has a word."""
    called_incorrect: float | None
    """Share of those that the labeler calls incorrect; None without any."""
    mean_score: float | None
    """Mean of the labeler's scores there; None without any."""
    gold_first: int
    """Traces whose first error is here by gold."""
    called_first: int
    """Traces whose first error is here by the labeler."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {
            "index": self.index,
            "open_ended": self.open_ended,
            "n": self.n,
            "gold_incorrect": self.gold_incorrect,
            "n_called": self.n_called,
            "called_incorrect": self.called_incorrect,
            "mean_score": self.mean_score,
            "gold_first": self.gold_first,
            "called_first": self.called_first,
        }


def minimum_position(
    traces: Sequence[EvaluatedTrace], seed: int = 0, resamples: int = RESAMPLES
) -> MinimumPosition:
    """Where the lowest scores of these traces stand; no gold is needed."""
    found: list[tuple[str, int, int]] = []
    for trace in traces:
        scores = [score for score in step_scores(trace) if score is not None]
        if len(scores) == trace.n_steps:
            found.append((trace.problem_id, scores.index(min(scores)), trace.n_steps))
    depths = [0] * DEPTHS
    for _, index, n_steps in found:
        # The bin of (index + 1) / n_steps, counted in whole numbers: its upper edge belongs to it.
        depths[((index + 1) * DEPTHS - 1) // n_steps] += 1
    at_last = [index == n_steps - 1 for _, index, n_steps in found]
    share = share_by_problem(
        [problem for problem, *_ in found], at_last, generator(seed, "minimum"), resamples
    )
    mean = sum((index + 1) / n for _, index, n in found) / len(found) if found else None
    return MinimumPosition(len(found), len(traces) - len(found), share, mean, tuple(depths))


def step_index_rows(
    traces: Iterable[EvaluatedTrace], threshold: float = 0.5
) -> tuple[StepIndexRow, ...]:
    """Gold and labeler by step index, from the first step on; indices without gold are left out."""
    size = LAST_INDEX + 1
    n, bad, called, flagged, scored = ([0] * size for _ in range(5))
    first, called_first, total = [0] * size, [0] * size, [0.0] * size
    for trace in split_by_gold(traces).usable:
        truth = step_calls(trace, trace.gold, threshold)
        calls = step_calls(trace, trace.predicted, threshold)
        for index, (incorrect, call, score) in enumerate(
            zip(truth, calls, step_scores(trace), strict=True)
        ):
            if incorrect is None:
                continue
            at = min(index, LAST_INDEX)
            n[at] += 1
            bad[at] += incorrect
            called[at] += call is not None
            flagged[at] += call is True
            if score is not None:
                scored[at] += 1
                total[at] += score
        for label, firsts in ((trace.gold, first), (trace.predicted, called_first)):
            found = predicted_error(label, threshold)
            if not found.missing and found.index is not None:
                firsts[min(found.index, LAST_INDEX)] += 1
    return tuple(
        StepIndexRow(
            at,
            at == LAST_INDEX,
            n[at],
            bad[at] / n[at],
            called[at],
            flagged[at] / called[at] if called[at] else None,
            total[at] / scored[at] if scored[at] else None,
            first[at],
            called_first[at],
        )
        for at in range(size)
        if n[at]
    )
