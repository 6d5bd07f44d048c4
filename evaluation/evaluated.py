"""What an evaluation looks at: the gold label of a trace, and the label to evaluate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, overload

import numpy as np

from evaluation.frames import (
    RIGHT,
    UNKNOWN,
    WRONG,
    FirstErrors,
    Floats,
    Index,
    LabelFrame,
    Mask,
    TraceFrame,
    first_errors,
    named_numbers,
    step_calls,
)
from traces import MISSING_FIRST_ERROR, FirstError, TraceLabel, first_error

_ANSWERS = {True: RIGHT, False: WRONG, None: UNKNOWN}
_BACK = {RIGHT: True, WRONG: False}


@dataclass(frozen=True, slots=True)
class EvaluatedTrace:
    """One trace with its gold label and the label to evaluate."""

    trace_id: str
    problem_id: str
    """Traces of one problem are resampled together."""
    subset: str
    """The part of the dataset it is reported under."""
    n_steps: int
    """Number of steps, at least 1."""
    gold: TraceLabel | None
    """None if the trace is not annotated."""
    predicted: TraceLabel | None
    """The label to evaluate; None if the labeler has not labeled the trace."""
    final_answer_correct: bool | None = None
    """Whether the trace ends with the gold answer; None if unknown."""


@dataclass(frozen=True, slots=True)
class EvaluatedTraces(Sequence[EvaluatedTrace]):
    """Many of them, as columns.

    As a sequence it makes each trace when it is asked for, with what measures need of its labels:
    no reasoning, no quotes, and `not_measured` as the reason of every abstention.
    """

    frame: TraceFrame
    gold: LabelFrame
    predicted: LabelFrame

    @classmethod
    def of(cls, traces: Iterable[EvaluatedTrace]) -> EvaluatedTraces:
        """The columns of these traces.

        Raises:
            ValueError: the numbers of steps of a label and its trace differ.
        """
        if isinstance(traces, EvaluatedTraces):
            return traces
        given = list(traces)
        frame = frame_of(given)
        return cls(
            frame,
            LabelFrame.of(frame, [trace.gold for trace in given]),
            LabelFrame.of(frame, [trace.predicted for trace in given]),
        )

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[EvaluatedTrace]:
        starts = self.frame.starts.tolist()
        return (self._trace(place, starts) for place in range(len(self)))

    @overload
    def __getitem__(self, place: int) -> EvaluatedTrace: ...
    @overload
    def __getitem__(self, place: slice) -> EvaluatedTraces: ...
    def __getitem__(self, place: int | slice) -> EvaluatedTrace | EvaluatedTraces:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        return self._trace(range(len(self))[place], self.frame.starts.tolist())

    def _trace(self, place: int, starts: Sequence[int]) -> EvaluatedTrace:
        frame, id = self.frame, self.frame.ids[place]
        steps = slice(starts[place], starts[place + 1])
        return EvaluatedTrace(
            trace_id=id,
            problem_id=frame.problem_ids[frame.problem[place]],
            subset=frame.subsets[frame.subset[place]],
            n_steps=int(frame.n_steps[place]),
            gold=self.gold.label(place, steps, id),
            predicted=self.predicted.label(place, steps, id),
            final_answer_correct=_BACK.get(int(frame.right[place])),
        )

    def take(self, at: Index) -> EvaluatedTraces:
        """The traces at these positions."""
        if len(at) == len(self) and (at == np.arange(len(self))).all():
            return self
        steps: Index | Mask
        if len(at) and (np.diff(at) > 0).all():
            # A mask takes an eighth of the memory of positions.
            chosen = np.zeros(len(self), np.bool_)
            chosen[at] = True
            steps = np.repeat(chosen, self.frame.n_steps)
        else:
            steps = self.frame.steps_at(at)
        return EvaluatedTraces(
            self.frame.take(at), self.gold.take(at, steps), self.predicted.take(at, steps)
        )

    def where(self, mask: Mask) -> EvaluatedTraces:
        """The traces for which the mask holds."""
        return self.take(np.flatnonzero(mask))

    def labeled(self, predicted: LabelFrame) -> EvaluatedTraces:
        """The same traces with the labels of another labeler."""
        return replace(self, predicted=predicted)

    def gold_errors(self, threshold: float | Floats) -> FirstErrors:
        """The first errors by gold."""
        return first_errors(self.frame, self.gold, threshold)

    def found_errors(self, threshold: float | Floats) -> FirstErrors:
        """The first errors by the evaluated labeler."""
        return first_errors(self.frame, self.predicted, threshold)

    def gold_calls(self, threshold: float | Floats) -> tuple[Mask, Mask]:
        """Per step whether gold labels it, and whether it calls it incorrect."""
        return step_calls(self.frame, self.gold, threshold)


class _Placed(Protocol):
    """What `EvaluatedTrace` and `ComparedTrace` share."""

    @property
    def trace_id(self) -> str: ...
    @property
    def problem_id(self) -> str: ...
    @property
    def subset(self) -> str: ...
    @property
    def n_steps(self) -> int: ...
    @property
    def final_answer_correct(self) -> bool | None: ...


def frame_of(traces: Sequence[_Placed]) -> TraceFrame:
    """The columns of traces."""
    problems, problem_ids = named_numbers(trace.problem_id for trace in traces)
    subset, subsets = named_numbers(trace.subset for trace in traces)
    return TraceFrame(
        ids=[trace.trace_id for trace in traces],
        problem=np.array(problems, dtype=np.int64),
        problem_ids=problem_ids,
        subset=np.array(subset, dtype=np.int32),
        subsets=subsets,
        n_steps=np.array([trace.n_steps for trace in traces], dtype=np.int64),
        right=np.array([_ANSWERS[trace.final_answer_correct] for trace in traces], dtype=np.int8),
    )


@dataclass(frozen=True, slots=True)
class GoldSplit:
    """Traces that can be evaluated, and how many cannot."""

    usable: EvaluatedTraces
    """Traces whose gold label is not an abstention."""
    gold_unusable: int
    """Traces whose gold is an abstention."""
    gold_missing: int
    """Traces without any gold."""


def split_by_gold(traces: Iterable[EvaluatedTrace]) -> GoldSplit:
    """Separate the traces without usable gold, which are counted and never scored."""
    known = EvaluatedTraces.of(traces)
    unusable = known.gold.present & known.gold.abstained
    missing = ~known.gold.present
    return GoldSplit(known.where(~(unusable | missing)), int(unusable.sum()), int(missing.sum()))


def with_first_error(split: GoldSplit, threshold: float) -> GoldSplit:
    """The split without the traces whose gold does not say where the first error is.

    Gold without annotation of a step before its first error has no first error.
    """
    errors = split.usable.gold_errors(threshold)
    return replace(
        split,
        usable=split.usable.where(~errors.missing),
        gold_unusable=split.gold_unusable + int(errors.missing.sum()),
    )


def predicted_error(label: TraceLabel | None, threshold: float) -> FirstError:
    """The first error of a label; missing if there is no label."""
    return MISSING_FIRST_ERROR if label is None else first_error(label, threshold)
