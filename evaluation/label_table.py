"""Labels of several labelers on the same steps, as columns: the input of all agreement measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.discrimination import step_scores
from evaluation.evaluated import EvaluatedTrace, neutral_steps, predicted_error, step_calls
from evaluation.measures import Floats, Mask
from traces import FirstError, TraceLabel


@dataclass(frozen=True, slots=True)
class ComparedTrace:
    """One trace with the labels of several labelers."""

    trace_id: str
    problem_id: str
    """Traces of one problem are resampled together."""
    subset: str
    """The part of the dataset it is reported under."""
    n_steps: int
    """Number of steps, at least 1."""
    labels: Mapping[str, TraceLabel]
    """By labeler; without those that have not labeled the trace."""
    final_answer: str | None = None
    """None if unknown."""
    final_answer_correct: bool | None = None
    """None if unknown."""


@dataclass(frozen=True, slots=True)
class StepColumns:
    """One labeler's labels on the steps of all traces, in order; columns of equal length."""

    labeler: str
    threshold: float
    """A score below it means incorrect."""
    known: Mask
    """Whether the step is labeled."""
    incorrect: Mask
    """Whether the step is called incorrect; False for neutral and for unlabeled steps."""
    neutral: Mask
    scored: Mask
    """Whether the step has a score."""
    score: Floats
    """0 where there is none: valid under `scored` only."""
    first_errors: tuple[FirstError, ...]
    """One per trace."""


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Several labelers on the same steps."""

    traces: Sequence[ComparedTrace]
    """The traces, in order."""
    columns: Mapping[str, StepColumns]
    """By labeler, in the requested order."""
    trace_of_step: NDArray[np.int64]
    """Position of each step's trace in `traces`."""
    problem_of_trace: NDArray[np.int64]
    """Number of each trace's problem, 0-based, without gaps."""

    @property
    def problem_of_step(self) -> NDArray[np.int64]:
        """Number of each step's problem."""
        return self.problem_of_trace[self.trace_of_step]


def label_table(
    traces: Sequence[ComparedTrace], names: Sequence[str], thresholds: Mapping[str, float]
) -> LabelTable:
    """Lay out the labels of these labelers.

    Args:
        thresholds: by labeler, in [0, 1]; a step is correct iff its score is at least that.

    Raises:
        ValueError: the numbers of steps of a label and its trace differ.
    """
    numbers: dict[str, int] = {}
    problems = [numbers.setdefault(trace.problem_id, len(numbers)) for trace in traces]
    lengths = [trace.n_steps for trace in traces]
    return LabelTable(
        traces,
        {name: _columns(traces, name, thresholds[name]) for name in names},
        np.repeat(np.arange(len(traces)), lengths),
        np.array(problems, dtype=np.int64),
    )


def _columns(traces: Sequence[ComparedTrace], name: str, threshold: float) -> StepColumns:
    calls: list[bool | None] = []
    scores: list[float | None] = []
    neutral: list[bool] = []
    first_errors = []
    for trace in traces:
        label = trace.labels.get(name)
        seen = EvaluatedTrace(
            trace_id=trace.trace_id,
            problem_id=trace.problem_id,
            subset=trace.subset,
            n_steps=trace.n_steps,
            gold=None,
            predicted=label,
        )
        calls += step_calls(seen, label, threshold)
        scores += step_scores(seen)
        neutral_indices = set() if label is None else neutral_steps(seen, label)
        neutral += [index in neutral_indices for index in range(trace.n_steps)]
        first_errors.append(predicted_error(label, threshold))
    return StepColumns(
        labeler=name,
        threshold=threshold,
        known=np.array([call is not None for call in calls], dtype=np.bool_),
        incorrect=np.array([call is True for call in calls], dtype=np.bool_),
        neutral=np.array(neutral, dtype=np.bool_),
        scored=np.array([score is not None for score in scores], dtype=np.bool_),
        score=np.array([score or 0.0 for score in scores], dtype=np.float64),
        first_errors=tuple(first_errors),
    )


KINDS = ("exact", "early", "late", "missed", "false_alarm", "no_error", "missing")
"""In output order."""
EXPLAINED = {
    "exact": "same first error",
    "early": "predicts an earlier step",
    "late": "predicts a later step",
    "missed": "predicts no error where there is one",
    "false_alarm": "predicts an error where there is none",
    "no_error": "neither has an error",
    "missing": "no prediction",
}
"""What each kind means."""


@dataclass(frozen=True, slots=True)
class FirstErrorConfusion:
    """One labeler's first errors against another's, which is taken as the reference."""

    of: str
    """The evaluated labeler."""
    against: str
    """The reference labeler."""
    counts: dict[str, int]
    """Traces by `KINDS`."""
    reference_missing: int
    """Traces left out because the reference has no first error or lack of one."""

    @property
    def n(self) -> int:
        """Traces compared."""
        return sum(self.counts.values())

    def as_json(self) -> dict[str, Any]:
        """The key `first_errors` of a pair."""
        return {
            "of": self.of,
            "against": self.against,
            "n": self.n,
            **self.counts,
            "reference_missing": self.reference_missing,
        }


def first_error_confusion(
    of: str, against: str, predicted: Iterable[FirstError], reference: Iterable[FirstError]
) -> FirstErrorConfusion:
    """Count the kinds of one labeler's first errors.

    Args:
        predicted: of the labeler `of`, one per trace.
        reference: of the labeler `against`, on the same traces.

    Raises:
        ValueError: the numbers of traces differ.
    """
    found: Counter[str] = Counter()
    left_out = 0
    for one, truth in zip(predicted, reference, strict=True):
        if truth.missing:
            left_out += 1
        else:
            found[_kind(one, truth.index)] += 1
    return FirstErrorConfusion(of, against, {kind: found[kind] for kind in KINDS}, left_out)


def _kind(predicted: FirstError, truth: int | None) -> str:
    if predicted.missing:
        return "missing"
    if truth is None:
        return "no_error" if predicted.index is None else "false_alarm"
    if predicted.index is None:
        return "missed"
    if predicted.index == truth:
        return "exact"
    return "early" if predicted.index < truth else "late"
