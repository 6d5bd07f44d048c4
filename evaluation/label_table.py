"""Labels of several labelers on the same steps, as columns: the input of all agreement measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.evaluated import EvaluatedTraces, frame_of
from evaluation.frames import (
    NEUTRAL,
    FirstErrors,
    Floats,
    Index,
    LabelFrame,
    Mask,
    TraceFrame,
    first_errors,
    numbered,
    step_calls,
)
from traces import TraceLabel


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
class ComparedTraces:
    """Many of them, as columns."""

    frame: TraceFrame
    labels: Mapping[str, LabelFrame]
    """By labeler."""

    @classmethod
    def of(
        cls, traces: Sequence[ComparedTrace] | ComparedTraces, names: Iterable[str]
    ) -> ComparedTraces:
        """The columns of these traces with the labels of these labelers.

        Raises:
            ValueError: the numbers of steps of a label and its trace differ.
        """
        if isinstance(traces, ComparedTraces):
            return traces
        frame = frame_of(traces)
        labels = {
            name: LabelFrame.of(frame, [trace.labels.get(name) for trace in traces])
            for name in dict.fromkeys(names)
        }
        return cls(frame, labels)

    def __len__(self) -> int:
        return len(self.frame)

    def against(self, name: str, gold: str) -> EvaluatedTraces:
        """The traces with one labeler to evaluate against gold."""
        return EvaluatedTraces(self.frame, self.labels[gold], self.labels[name])


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
    verdict: NDArray[np.uint8]
    """Its code in `frames.VERDICT_CODES`."""
    scored: Mask
    """Whether the step has a score."""
    score: Floats
    """0 where there is none: valid under `scored` only."""
    first_errors: FirstErrors
    """One per trace."""

    def neutral(self, steps: slice) -> Mask:
        """Which of these steps it calls neutral."""
        return np.asarray(self.verdict[steps] == NEUTRAL)


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Several labelers on the same steps."""

    frame: TraceFrame
    """The traces, in order."""
    columns: Mapping[str, StepColumns]
    """By labeler, in the requested order."""
    problem_of_trace: Index
    """Number of each trace's problem, 0-based, without gaps."""

    @property
    def n_steps(self) -> int:
        """Steps of all traces."""
        return int(self.frame.n_steps.sum())


def called_counts(
    table: LabelTable,
) -> Iterator[tuple[slice, slice, NDArray[np.int16], NDArray[np.int16]]]:
    """Some traces at a time: their slice, that of their steps, and per step how many labelers call
    it correct, and how many incorrect."""
    columns = table.columns.values()
    for traces, steps in table.frame.blocks():
        good, bad = np.zeros((2, steps.stop - steps.start), np.int16)
        for one in columns:
            good += one.known[steps] & ~one.incorrect[steps]
            bad += one.known[steps] & one.incorrect[steps]
        yield traces, steps, good, bad


def label_table(
    traces: ComparedTraces, names: Sequence[str], thresholds: Mapping[str, float]
) -> LabelTable:
    """Lay out the labels of these labelers.

    Args:
        thresholds: by labeler, in [0, 1]; a step is correct iff its score is at least that.
    """
    columns = {
        name: _columns(traces.frame, traces.labels[name], name, thresholds[name]) for name in names
    }
    return LabelTable(traces.frame, columns, numbered(traces.frame.problem))


def _columns(frame: TraceFrame, labels: LabelFrame, name: str, threshold: float) -> StepColumns:
    known, incorrect = step_calls(frame, labels, threshold)
    return StepColumns(
        labeler=name,
        threshold=threshold,
        known=known,
        incorrect=incorrect,
        verdict=labels.verdict,
        scored=labels.scored,
        score=labels.score,
        first_errors=first_errors(frame, labels, threshold),
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
    of: str, against: str, predicted: FirstErrors, reference: FirstErrors
) -> FirstErrorConfusion:
    """Count the kinds of one labeler's first errors.

    Args:
        predicted: of the labeler `of`, one per trace.
        reference: of the labeler `against`, on the same traces.

    Raises:
        ValueError: the numbers of traces differ.
    """
    if len(predicted) != len(reference):
        raise ValueError(f"{len(predicted)} first errors and {len(reference)} first errors")
    stated = ~reference.missing
    said = stated & ~predicted.missing
    both = said & predicted.named & reference.named
    masks = {
        "exact": both & (predicted.index == reference.index),
        "early": both & (predicted.index < reference.index),
        "late": both & (predicted.index > reference.index),
        "missed": said & ~predicted.named & reference.named,
        "false_alarm": said & predicted.named & ~reference.named,
        "no_error": said & ~predicted.named & ~reference.named,
        "missing": stated & predicted.missing,
    }
    counts = {kind: int(masks[kind].sum()) for kind in KINDS}
    return FirstErrorConfusion(of, against, counts, int(reference.missing.sum()))
