"""What labelers say about the same steps, as columns: every measure of agreement reads these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.evaluated import EvaluatedTrace, neutral_steps, predicted_error, step_calls
from evaluation.measures import Floats, Mask
from evaluation.scored_steps import step_scores
from traces.first_error import FirstError
from traces.labels import TraceLabel


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
