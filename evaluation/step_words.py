"""What labelers say about the same steps, as columns: every measure of agreement reads these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.discrimination import step_scores
from evaluation.evaluated import EvaluatedTrace, neutral_steps, predicted_error, step_calls
from evaluation.figures import Floats, Mask
from traces import FirstError, TraceLabel


@dataclass(frozen=True, slots=True)
class ComparedTrace:
    """One trace with the words of several labelers on it."""

    trace_id: str
    """The trace."""
    problem_id: str
    """Its problem: traces of one problem are resampled together."""
    subset: str
    """The part of the dataset it is reported under."""
    n_steps: int
    """Number of steps, at least 1."""
    labels: Mapping[str, TraceLabel]
    """By labeler; without those that have nothing stored."""
    final_answer: str | None = None
    """The answer the trace ends with; None if unknown."""
    final_answer_correct: bool | None = None
    """Whether that is the gold answer; None if unknown."""


@dataclass(frozen=True, slots=True)
class StepWords:
    """One labeler's words on the steps of all traces, in order; the columns have one length."""

    labeler: str
    """Its name."""
    threshold: float
    """A score below it is the word "incorrect"."""
    known: Mask
    """Whether it says anything about the step."""
    incorrect: Mask
    """Whether it calls the step incorrect; False where it is silent. Neutral is no error."""
    neutral: Mask
    """Whether its word is neutral."""
    scored: Mask
    """Whether it gives the step a score."""
    score: Floats
    """That score; 0 where there is none, to be read under `scored` only."""
    first_errors: tuple[FirstError, ...]
    """One per trace."""


@dataclass(frozen=True, slots=True)
class WordTable:
    """Several labelers on the same steps."""

    traces: Sequence[ComparedTrace]
    """The traces, in order."""
    words: Mapping[str, StepWords]
    """By labeler, in the order asked for."""
    trace_of_step: NDArray[np.int64]
    """Position of each step's trace in `traces`."""
    problem_of_trace: NDArray[np.int64]
    """Number of each trace's problem, 0-based, without gaps."""

    @property
    def problem_of_step(self) -> NDArray[np.int64]:
        """Number of each step's problem."""
        return self.problem_of_trace[self.trace_of_step]


def word_table(
    traces: Sequence[ComparedTrace], names: Sequence[str], thresholds: Mapping[str, float]
) -> WordTable:
    """Lay out the words of these labelers.

    Args:
        thresholds: by labeler, in [0, 1]; a step is correct iff its score is at least that.

    Raises:
        ValueError: a label has another number of steps than its trace.
    """
    numbers: dict[str, int] = {}
    problems = [numbers.setdefault(trace.problem_id, len(numbers)) for trace in traces]
    lengths = [trace.n_steps for trace in traces]
    return WordTable(
        traces,
        {name: _words(traces, name, thresholds[name]) for name in names},
        np.repeat(np.arange(len(traces)), lengths),
        np.array(problems, dtype=np.int64),
    )


def _words(traces: Sequence[ComparedTrace], name: str, threshold: float) -> StepWords:
    calls: list[bool | None] = []
    scores: list[float | None] = []
    neutral: list[bool] = []
    first_errors = []
    for trace in traces:
        label = trace.labels.get(name)
        seen = EvaluatedTrace(
            trace.trace_id, trace.problem_id, trace.subset, trace.n_steps, None, label
        )
        calls += step_calls(seen, label, threshold)
        scores += step_scores(seen)
        said_neutral = set() if label is None else neutral_steps(seen, label)
        neutral += [index in said_neutral for index in range(trace.n_steps)]
        first_errors.append(predicted_error(label, threshold))
    return StepWords(
        name,
        threshold,
        np.array([call is not None for call in calls], dtype=np.bool_),
        np.array([call is True for call in calls], dtype=np.bool_),
        np.array(neutral, dtype=np.bool_),
        np.array([score is not None for score in scores], dtype=np.bool_),
        np.array([score or 0.0 for score in scores], dtype=np.float64),
        tuple(first_errors),
    )


# --- Where a labeler sees the first error, against where another sees it: early, exact, late,


KINDS = ("exact", "early", "late", "missed", "false_alarm", "no_error", "missing")
"""In the order of every output."""
EXPLAINED = {
    "exact": "same first error",
    "early": "names a step before it",
    "late": "names a step behind it",
    "missed": "sees no error where there is one",
    "false_alarm": "sees an error where there is none",
    "no_error": "both see no error",
    "missing": "leaves the first error open",
}
"""What each kind means, for a person."""


@dataclass(frozen=True, slots=True)
class FirstErrorConfusion:
    """One labeler's first errors against another's, which is taken as the truth."""

    of: str
    """The labeler that is looked at."""
    against: str
    """The labeler that is the measure."""
    counts: dict[str, int]
    """Traces by `KINDS`."""
    reference_missing: int
    """Traces left out because the measure leaves the first error open."""

    @property
    def n(self) -> int:
        """Traces that were looked at."""
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
    of: str, against: str, said: Iterable[FirstError], truth: Iterable[FirstError]
) -> FirstErrorConfusion:
    """Count the kinds of one labeler's first errors.

    Args:
        said: of the labeler `of`, one per trace.
        truth: of the labeler `against`, on the same traces.

    Raises:
        ValueError: there are not as many of one as of the other.
    """
    found: Counter[str] = Counter()
    left_out = 0
    for one, reference in zip(said, truth, strict=True):
        if reference.missing:
            left_out += 1
        else:
            found[_kind(one, reference.index)] += 1
    return FirstErrorConfusion(of, against, {kind: found[kind] for kind in KINDS}, left_out)


def _kind(said: FirstError, truth: int | None) -> str:
    if said.missing:
        return "missing"
    if truth is None:
        return "no_error" if said.index is None else "false_alarm"
    if said.index is None:
        return "missed"
    if said.index == truth:
        return "exact"
    return "early" if said.index < truth else "late"
