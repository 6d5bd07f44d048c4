"""Mistake location as in BIG-Bench Mistake (arXiv 2311.08516): the exact first error, or none.

One accuracy over all traces. Since most of that benchmark's traces have a mistake, the two
accuracies of ProcessBench's protocol are reported too. A missing prediction counts as wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from evaluation import measures
from evaluation.evaluated import EvaluatedTrace, split_by_gold, with_first_error
from evaluation.measures import RESAMPLES, Estimate, Group, estimate, whole_and_subsets
from evaluation.protocols.protocol import GroupFigures, Paper, Protocol, ProtocolReport


@dataclass(frozen=True, kw_only=True, slots=True)
class LocationReport(GroupFigures):
    """Mistake location in one subset, or in all traces pooled."""

    lead = "location_accuracy"
    columns = (
        ("traces", "n"),
        ("with error", "n_error"),
        ("location accuracy", "location_accuracy"),
        ("error accuracy", "error_accuracy"),
        ("correct accuracy", "correct_accuracy"),
        ("missing", "missing"),
    )

    n: int
    """Traces."""
    n_error: int
    """Of these, traces with a mistake."""
    n_correct: int
    """Of these, traces without one."""
    location_accuracy: Estimate
    """Share of all traces whose first mistake, or lack of one, was predicted exactly."""
    error_accuracy: Estimate
    """The same among traces with a mistake."""
    correct_accuracy: Estimate
    """The same among traces without one."""
    processbench_f1: Estimate
    """Harmonic mean of the two; None if a group is empty."""
    missing: int
    """Traces without a prediction."""


class MistakeReport(ProtocolReport[LocationReport]):
    """The result of the protocol `mistake`."""

    __slots__ = ()
    protocol = "mistake"
    title = "mistake location"
    figures = LocationReport


def evaluate_mistake(
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    threshold_source: str = "given",
) -> MistakeReport:
    """Evaluate one labeler by mistake location; arguments as in `evaluate_processbench`."""
    split = with_first_error(split_by_gold(traces), threshold)
    whole, groups = whole_and_subsets(split.usable, measures.first_error_rows, threshold)
    return MistakeReport(
        threshold=threshold,
        threshold_source=threshold_source,
        overall=_report(whole, seed, resamples),
        subsets={name: _report(group, seed, resamples) for name, group in groups.items()},
        gold_unusable=split.gold_unusable,
        gold_missing=split.gold_missing,
    )


def _report(group: Group, seed: int, resamples: int) -> LocationReport:
    sums, drawn = group.resampled(seed, resamples)
    n_error, _, n_correct, _, n_kept, _ = (int(count) for count in sums)
    return LocationReport(
        n=n_error + n_correct,
        n_error=n_error,
        n_correct=n_correct,
        location_accuracy=estimate(measures.location_accuracy, sums, drawn),
        error_accuracy=estimate(measures.error_accuracy, sums, drawn),
        correct_accuracy=estimate(measures.correct_accuracy, sums, drawn),
        processbench_f1=estimate(measures.processbench_f1, sums, drawn),
        missing=n_error + n_correct - n_kept,
    )


PROTOCOL = Protocol(
    name="mistake",
    evaluate=evaluate_mistake,
    measures=("location_accuracy", "error_accuracy", "correct_accuracy"),
    rule=(
        "location_accuracy is the share of traces whose first error, or whose lack of errors, was"
        " found exactly; a missing prediction counts as wrong"
    ),
    references=(
        Paper(
            cited="Tyen et al., 2023",
            key="tyen2023mistake",
            author="Tyen, Gladys",
            title="LLMs cannot find reasoning errors, but can correct them given the error"
            " location",
            arxiv="2311.08516",
        ),
    ),
)
