"""Hard2Verify's Balanced F1 (Pandit et al., arXiv 2510.13744, utils.py): both classes count alike.

The harmonic mean of two recalls: of correct and of incorrect steps, all steps pooled. A missing
label counts as wrong. Responses are evaluated in the same way (correct iff all steps are), and so
are first errors, which is ProcessBench's F1. Neutral steps are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation import measures
from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces, split_by_gold
from evaluation.frames import Mask, step_calls
from evaluation.measures import (
    RESAMPLES,
    Estimate,
    Group,
    estimate,
    subset_places,
    whole_and_subsets,
)
from evaluation.protocols.protocol import (
    GroupFigures,
    Paper,
    Protocol,
    ProtocolReport,
    Published,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BalancedFigures(GroupFigures):
    """The measures of one group of traces."""

    lead = "balanced_f1"
    columns = (
        ("balanced_f1", "balanced_f1"),
        ("correct recall", "correct_recall.value"),
        ("incorrect recall", "incorrect_recall.value"),
        ("response f1", "response_balanced_f1.value"),
        ("first-error f1", "processbench_f1.value"),
        ("missing", "missing"),
    )

    balanced_f1: Estimate
    """Harmonic mean of both recalls over steps; None if a class is absent from gold."""
    balanced_accuracy: Estimate
    """Mean of both recalls."""
    correct_recall: Estimate
    """Share of correct steps called correct."""
    incorrect_recall: Estimate
    """Share of incorrect steps called incorrect."""
    response_balanced_f1: Estimate
    """Balanced F1 over whole responses."""
    processbench_f1: Estimate
    """Balanced F1 over first errors."""
    n_correct: int
    """Scored steps that gold calls correct."""
    n_incorrect: int
    """Scored steps that gold calls incorrect."""
    missing: int
    """Scored steps that the labeler did not label."""


class BalancedReport(ProtocolReport[BalancedFigures]):
    """The result of the protocol `balanced-f1`."""

    __slots__ = ()
    protocol = title = "balanced-f1"
    figures = BalancedFigures


def evaluate_balanced_f1(
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    threshold_source: str = "given",
) -> BalancedReport:
    """Evaluate one labeler by Balanced F1; arguments as in `evaluate_processbench`."""
    split = split_by_gold(traces)
    rows = (measures.step_rows, measures.solution_rows, measures.first_error_rows)
    wholes, groups = zip(
        *(whole_and_subsets(split.usable, row, threshold) for row in rows), strict=True
    )

    def report(parts: Sequence[Group]) -> BalancedFigures:
        return _report(parts, seed, resamples)

    return BalancedReport(
        threshold=threshold,
        threshold_source=threshold_source,
        overall=report(wholes),
        subsets={name: report([part[name] for part in groups]) for name in groups[0]},
        gold_unusable=split.gold_unusable,
        gold_missing=split.gold_missing,
    )


def _report(parts: Sequence[Group], seed: int, resamples: int) -> BalancedFigures:
    (steps, drawn), responses, errors = (part.resampled(seed, resamples) for part in parts)
    right, over, under, found, _, missing = (int(count) for count in steps)
    return BalancedFigures(
        balanced_f1=estimate(measures.balanced_f1, steps, drawn),
        balanced_accuracy=estimate(measures.balanced_accuracy, steps, drawn),
        correct_recall=estimate(measures.correct_recall, steps, drawn),
        incorrect_recall=estimate(measures.incorrect_recall, steps, drawn),
        response_balanced_f1=estimate(measures.balanced_f1, *responses),
        processbench_f1=estimate(measures.processbench_f1, *errors),
        n_correct=right + over,
        n_incorrect=under + found,
        missing=missing,
    )


SCRIPT = "Salesforce/Hard2Verify, utils.py"


def published_balanced_f1(traces: Iterable[EvaluatedTrace], threshold: float) -> Published:
    """The figures of Hard2Verify's own script.

    A step without a label counts as wrong, but a response is judged by the labels that are there:
    one without any label is read as if its first step had the wrong one. The script divides by
    zero where both recalls are 0.
    """
    usable = split_by_gold(traces).usable
    frame = usable.frame
    said, _ = step_calls(frame, usable.predicted, threshold)
    silent = int((~said[frame.starts[:-1]]).sum())
    causes = []
    if silent:
        causes.append(
            f"{silent} responses have no label for their first step: the script judges them by the"
            " labels that are there"
        )
    return Published(
        source=SCRIPT,
        overall=_script_figures(usable, threshold),
        subsets={
            name: _script_figures(usable.take(at), threshold)
            for name, at in subset_places(usable).items()
        },
        causes=tuple(causes),
    )


def _script_figures(traces: EvaluatedTraces, threshold: float) -> dict[str, float | None]:
    frame = traces.frame
    known, bad = traces.gold_calls(threshold)
    said, call = step_calls(frame, traces.predicted, threshold)
    steps = _counted(bad[known], np.where(said, call, ~bad)[known])
    # A response without any label is read as if its first annotated step had the wrong one.
    places = np.flatnonzero(known)
    owners, first = np.unique(frame.owners(places), return_index=True)
    called = np.zeros(len(frame), np.bool_)
    called[owners] = ~bad[places[first]]
    labeled = frame.total(known & said) > 0
    called = np.where(labeled, frame.total(known & said & call) > 0, called)
    annotated = frame.total(known) > 0
    truth = frame.total(known & bad) > 0
    found, whole = _balanced(steps), _balanced(_counted(truth[annotated], called[annotated]))
    return {
        "balanced_f1": found[2],
        "balanced_accuracy": found[3],
        "correct_recall": found[0],
        "incorrect_recall": found[1],
        "response_balanced_f1": whole[2],
    }


def _counted(bad: Mask, called: Mask) -> list[int]:
    """How many are correct and not called, correct and called, and likewise incorrect."""
    return [int(count) for count in np.bincount(2 * bad.astype(int) + called, minlength=4)]


def _balanced(counts: Sequence[int]) -> tuple[float, float, float | None, float]:
    """Both recalls, their harmonic mean and their mean; a recall without any step is 0."""
    good = counts[0] / (counts[0] + counts[1]) if counts[0] + counts[1] else 0.0
    bad = counts[3] / (counts[2] + counts[3]) if counts[2] + counts[3] else 0.0
    return good, bad, 2 * good * bad / (good + bad) if good + bad else None, (good + bad) / 2


PROTOCOL = Protocol(
    name="balanced-f1",
    evaluate=evaluate_balanced_f1,
    measures=("balanced_f1", "processbench_f1"),
    as_published=published_balanced_f1,
    rule=("balanced_f1 is the harmonic mean of the recall of correct and of incorrect steps"),
    references=(
        Paper(
            cited="Pandit et al., 2025",
            key="pandit2025hard2verify",
            author="Pandit, Shrey",
            title="Hard2Verify: A Step-Level Verification Benchmark for Open-Ended Frontier Math",
            arxiv="2510.13744",
        ),
    ),
)
