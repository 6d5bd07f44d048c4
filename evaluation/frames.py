"""Traces and labels as columns: all measures count on arrays, so that millions of steps fit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from traces import (
    Abstention,
    AbstentionReason,
    FirstError,
    StepLabel,
    TraceLabel,
    Verdict,
)

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.int64]
Counts = NDArray[np.int32]

VERDICT_CODES = {verdict: code for code, verdict in enumerate(Verdict, 1)}
"""The numbers of verdicts in `LabelFrame.verdict`; 0 is none."""
INCORRECT, NEUTRAL = VERDICT_CODES[Verdict.INCORRECT], VERDICT_CODES[Verdict.NEUTRAL]
REASON_KEY = "reason_correct"
"""Key of a label's meta: whether its reason for the first error is right (MR-Score's third
part)."""
WRONG, RIGHT, UNKNOWN = 0, 1, 2
"""Answers to a question of yes and no."""
_ANSWERS = {True: RIGHT, False: WRONG, None: UNKNOWN}
_BLOCK = 1 << 19
"""Steps that are worked on at once."""


@dataclass(frozen=True)
class TraceFrame:
    """Traces without their texts and labels, one entry per trace."""

    ids: Sequence[str]
    problem: Index
    """Number of the trace's problem; traces of one problem are resampled together."""
    problem_ids: Sequence[str]
    """By that number."""
    subset: NDArray[np.int32]
    """Number of the part of the dataset it is reported under."""
    subsets: Sequence[str]
    """By that number."""
    n_steps: Index
    """Number of steps, at least 1."""
    right: NDArray[np.int8]
    """Whether the trace ends with the gold answer: `RIGHT`, `WRONG` or `UNKNOWN`."""

    def __len__(self) -> int:
        return len(self.n_steps)

    @cached_property
    def starts(self) -> Index:
        """Where the steps of each trace begin in a column of steps, shape (traces + 1,)."""
        return np.concatenate([[0], np.cumsum(self.n_steps)]).astype(np.int64)

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Some traces at a time: the slice of the traces, and that of their steps.

        Whatever is wider than a byte per step is worked out in such blocks, so that ten million
        steps fit.
        """
        starts, begin = self.starts, 0
        while begin < len(self):
            end = max(begin + 1, int(np.searchsorted(starts, starts[begin] + _BLOCK, "right")) - 1)
            yield slice(begin, end), slice(int(starts[begin]), int(starts[end]))
            begin = end

    def position(self, traces: slice) -> Index:
        """The 0-based index of each step of these traces in its trace."""
        return _within(self.n_steps[traces])

    def owners(self, steps: Index) -> Index:
        """Positions of the traces of the steps at these positions."""
        return np.searchsorted(self.starts[1:], steps, side="right")

    def total(self, mask: Mask) -> Index:
        """Per trace the number of its steps for which the mask holds."""
        totals = np.zeros(len(self), np.int64)
        for traces, steps in self.blocks():
            totals[traces] = self.total_of(mask[steps], traces)
        return totals

    def total_of(self, mask: Mask, traces: slice) -> Index:
        """As `total`, for the traces of one block and a mask of their steps."""
        starts = self.starts[traces]
        totals: Index = np.add.reduceat(mask, starts - starts[0], dtype=np.int64)
        return totals

    def take(self, at: Index) -> TraceFrame:
        """The traces at these positions."""
        return TraceFrame(
            ids=[self.ids[place] for place in at.tolist()],
            problem=self.problem[at],
            problem_ids=self.problem_ids,
            subset=self.subset[at],
            subsets=self.subsets,
            n_steps=self.n_steps[at],
            right=self.right[at],
        )

    def steps_at(self, at: Index) -> Index:
        """The positions of the steps of the traces at these positions."""
        lengths = self.n_steps[at]
        return np.repeat(self.starts[:-1][at], lengths) + _within(lengths)


@dataclass(frozen=True, slots=True)
class LabelFrame:
    """One labeler's labels on the traces of a frame."""

    present: Mask
    """Per trace whether it is labeled; an abstention is a label."""
    abstained: Mask
    """Per trace whether the label is an abstention from the whole trace."""
    given: Mask
    """Per trace whether the labeler itself named the first error, or said there is none."""
    named: Mask
    """Per trace whether that is a step."""
    index: Index
    """That step, 0-based, where `named`; elsewhere 0 without a meaning."""
    reason: NDArray[np.int8]
    """Per trace whether the labeler's reason was assessed: `RIGHT`, `WRONG` or `UNKNOWN`."""
    verdict: NDArray[np.uint8]
    """Per step one of `VERDICT_CODES`, 0 without a verdict."""
    scored: Mask
    """Per step whether it has a score."""
    score: Floats
    """Per step, 0 without a meaning where there is none; a single 0 for a labeler without any."""

    @classmethod
    def empty(cls, frame: TraceFrame, *, scores: bool = True) -> Self:
        """No labels yet; `put` fills them in.

        Args:
            frame: the traces.
            scores: whether steps may have scores, which take eight times the memory of verdicts.
        """
        n, steps = len(frame), int(frame.n_steps.sum())
        return cls(
            present=np.zeros(n, np.bool_),
            abstained=np.zeros(n, np.bool_),
            given=np.zeros(n, np.bool_),
            named=np.zeros(n, np.bool_),
            index=np.zeros(n, np.int64),
            reason=np.full(n, UNKNOWN, np.int8),
            verdict=np.zeros(steps, np.uint8),
            scored=np.zeros(steps, np.bool_),
            score=np.zeros(steps) if scores else np.broadcast_to(np.zeros(1), steps),
        )

    @classmethod
    def of(cls, frame: TraceFrame, labels: Sequence[TraceLabel | None]) -> Self:
        """The labels of these traces, one per trace.

        Raises:
            ValueError: the numbers of steps of a label and its trace differ.
        """
        made, starts = cls.empty(frame), frame.starts
        for place, label in enumerate(labels):
            if label is not None:
                made._put(place, label, slice(starts[place], starts[place + 1]), frame.ids[place])
        return made

    def _put(self, place: int, label: TraceLabel, steps: slice, trace_id: str) -> None:
        self.present[place] = True
        self.abstained[place] = label.abstention is not None
        self.given[place] = label.first_error_given
        self.named[place] = label.first_error_index is not None
        self.index[place] = label.first_error_index or 0
        assessed = label.meta.get(REASON_KEY)
        if isinstance(assessed, bool):
            self.reason[place] = RIGHT if assessed else WRONG
        if not label.step_labels:
            return
        if len(label.step_labels) != steps.stop - steps.start:
            raise ValueError(
                f"{len(label.step_labels)} step labels for the {steps.stop - steps.start} steps of"
                f" trace '{trace_id}'"
            )
        given = label.step_labels
        self.verdict[steps] = [
            0 if step.verdict is None else VERDICT_CODES[step.verdict] for step in given
        ]
        self.scored[steps] = [step.score is not None for step in given]
        self.score[steps] = [step.score or 0.0 for step in given]

    def take(self, at: Index, steps: Index | Mask) -> LabelFrame:
        """The labels of the traces at these positions, whose steps are at `steps`."""
        return LabelFrame(
            present=self.present[at],
            abstained=self.abstained[at],
            given=self.given[at],
            named=self.named[at],
            index=self.index[at],
            reason=self.reason[at],
            verdict=self.verdict[steps],
            scored=(scored := self.scored[steps]),
            score=self.score[steps] if self.score.strides[0] else self.score[: len(scored)],
        )

    def label(self, place: int, steps: slice, trace_id: str) -> TraceLabel | None:
        """The label of one trace, as far as columns hold it; None if there is none."""
        if not self.present[place]:
            return None
        silent = Abstention(AbstentionReason.NOT_MEASURED)
        names: Mapping[int, Verdict] = {code: verdict for verdict, code in VERDICT_CODES.items()}
        given = [
            StepLabel(names.get(code), score if scored else None)
            if code or scored
            else StepLabel(abstention=silent)
            for code, scored, score in zip(
                self.verdict[steps].tolist(),
                self.scored[steps].tolist(),
                self.score[steps].tolist(),
                strict=True,
            )
        ]
        assessed = int(self.reason[place])
        return TraceLabel(
            trace_id,
            tuple(given) if any(step.abstention is None for step in given) else (),
            first_error_given=bool(self.given[place]),
            first_error_index=int(self.index[place]) if self.named[place] else None,
            abstention=silent if self.abstained[place] else None,
            meta={} if assessed == UNKNOWN else {REASON_KEY: assessed == RIGHT},
        )


class TracePart(Protocol):
    """Some traces as columns; `storage.TraceColumns` is one."""

    @property
    def keys(self) -> Index:
        """Numbers of the traces, by which labels name them."""

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def problem_ids(self) -> Sequence[str]: ...
    @property
    def subsets(self) -> Sequence[str]: ...
    @property
    def n_steps(self) -> Index: ...
    @property
    def final_answers_correct(self) -> Sequence[bool | None]: ...


class LabelPart(Protocol):
    """Some labels of a labeler as columns; `storage.LabelArrays` is one."""

    @property
    def keys(self) -> Index:
        """Numbers of the labeled traces."""

    @property
    def abstentions(self) -> Sequence[str | None]: ...
    @property
    def first_error_given(self) -> Mask: ...
    @property
    def first_error_named(self) -> Mask: ...
    @property
    def first_error_index(self) -> Index: ...
    @property
    def offsets(self) -> Index:
        """Where the steps of each label begin, shape (labels + 1,)."""

    @property
    def verdicts(self) -> NDArray[np.uint8]: ...
    @property
    def scored(self) -> Mask: ...
    @property
    def scores(self) -> Floats: ...


@dataclass(frozen=True, slots=True)
class KeyedFrame:
    """The traces of a frame with the numbers by which labels name them."""

    frame: TraceFrame
    keys: Index
    order: Index
    """Positions of the traces by ascending key."""

    @classmethod
    def of(cls, parts: Iterable[TracePart], subsets: Collection[str] = ()) -> Self:
        """The traces of all parts, in order; of these subsets only, if any are named."""
        ids: list[str] = []
        problems: dict[str, int] = {}
        names: dict[str, int] = {}
        columns: list[tuple[NDArray[Any], ...]] = []
        for part in parts:
            numbers = [names.setdefault(name, len(names)) for name in part.subsets]
            kept = [not subsets or name in subsets for name in part.subsets]
            ids += compress(part.ids, kept)
            owners = compress(part.problem_ids, kept)
            problem = [problems.setdefault(each, len(problems)) for each in owners]
            right = [_ANSWERS[one] for one in compress(part.final_answers_correct, kept)]
            columns.append(
                (
                    part.keys[kept],
                    np.array(problem, np.int64),
                    np.array(numbers, np.int32)[kept],
                    part.n_steps[kept],
                    np.array(right, np.int8),
                )
            )
        kinds = (np.int64, np.int64, np.int32, np.int64, np.int8)
        empty = tuple(np.zeros(0, kind) for kind in kinds)
        keys, problem_of, subset, n_steps, answers = map(
            np.concatenate, zip(*(columns or [empty]), strict=True)
        )
        frame = TraceFrame(
            ids=ids,
            problem=problem_of,
            problem_ids=list(problems),
            subset=subset,
            subsets=list(names),
            n_steps=n_steps,
            right=answers,
        )
        return cls(frame, keys, np.argsort(keys, kind="stable"))

    def labels(self, parts: Iterable[LabelPart], reasons: Mapping[int, bool]) -> LabelFrame:
        """The labels of all parts, except those of other traces.

        Args:
            parts: labels.
            reasons: by key of the trace whether the labeler's reason was found right.
        """
        made = LabelFrame.empty(self.frame, scores=False)
        for part in parts:
            rows, at = self._places(part.keys)
            made.present[at] = True
            made.abstained[at] = [part.abstentions[row] is not None for row in rows.tolist()]
            made.given[at] = part.first_error_given[rows]
            made.named[at] = part.first_error_named[rows]
            made.index[at] = part.first_error_index[rows]
            lengths = np.diff(part.offsets)[rows]
            there = lengths > 0
            steps = self.frame.steps_at(at[there])
            source = np.repeat(part.offsets[rows[there]], lengths[there]) + _within(lengths[there])
            made.verdict[steps] = part.verdicts[source]
            made.scored[steps] = part.scored[source]
            if part.scored.any():
                if not made.score.strides[0]:
                    made = replace(made, score=np.zeros(len(made.verdict)))
                made.score[steps] = part.scores[source]
        _, places = self._places(np.array(list(reasons), np.int64))
        for place in places.tolist():
            made.reason[place] = RIGHT if reasons[int(self.keys[place])] else WRONG
        return made

    def _places(self, keys: Index) -> tuple[Index, Index]:
        """Which of these keys are in the frame, and their positions."""
        if not len(self.keys):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        found = np.searchsorted(self.keys, keys, sorter=self.order)
        at = self.order[np.minimum(found, len(self.keys) - 1)]
        rows = np.flatnonzero(self.keys[at] == keys)
        return rows, at[rows]


def _within(lengths: Index) -> Index:
    """0, 1, ... for each of these lengths."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


@dataclass(frozen=True, slots=True)
class FirstErrors:
    """First errors, one per trace."""

    missing: Mask
    """Whether the label leaves the first error open."""
    named: Mask
    """Whether there is an error."""
    index: Index
    """Its 0-based step where `named`; elsewhere 0 without a meaning."""

    def __len__(self) -> int:
        return len(self.missing)

    def __getitem__(self, place: int) -> FirstError:
        index = int(self.index[place]) if self.named[place] else None
        return FirstError(missing=bool(self.missing[place]), index=index)

    def equal(self, other: FirstErrors) -> Mask:
        """Where both are the same, missing ones included."""
        return np.asarray(
            (self.missing == other.missing)
            & (self.named == other.named)
            & (self.index == other.index)
        )


def _low(
    labels: LabelFrame, threshold: float | Floats, steps: slice, *, tie_is_correct: bool
) -> Mask:
    """Where a score of these steps means incorrect, as `traces.is_incorrect` decides."""
    score, limit = labels.score[steps], threshold
    if not labels.score.strides[0]:
        return np.zeros(len(score), np.bool_)
    if isinstance(limit, np.ndarray):
        limit = limit[steps]
    low = score < limit if tie_is_correct else score <= limit
    return np.asarray(low & labels.scored[steps])


def first_errors(
    frame: TraceFrame,
    labels: LabelFrame,
    threshold: float | Floats,
    *,
    tie_is_correct: bool = True,
) -> FirstErrors:
    """What `traces.first_error` gives for each trace; missing where there is no label.

    Args:
        frame: the traces.
        labels: their labels.
        threshold: of scores, for all steps or one per step.
        tie_is_correct: whether a score that equals the threshold is correct.
    """
    found, open_ = np.zeros(len(frame), np.bool_), np.zeros(len(frame), np.bool_)
    first = np.zeros(len(frame), np.int64)
    for traces, steps in frame.blocks():
        verdict = labels.verdict[steps]
        bare = verdict == 0
        silent = bare & ~labels.scored[steps]
        low = _low(labels, threshold, steps, tie_is_correct=tie_is_correct)
        decisive = np.flatnonzero((verdict == INCORRECT) | (bare & low) | silent)
        ends = frame.starts[traces.start : traces.stop + 1] - steps.start
        at = np.append(decisive, ends[-1])[np.searchsorted(decisive, ends[:-1])]
        found[traces] = at < ends[1:]
        open_[traces] = found[traces] & np.append(silent, False)[at]
        first[traces] = at - ends[:-1]
    missing = np.where(labels.given, False, open_) | labels.abstained | ~labels.present
    named = np.where(labels.given, labels.named, found) & ~missing
    index = np.where(labels.given, labels.index, first)
    return FirstErrors(missing, named, np.where(named, index, 0))


def step_calls(
    frame: TraceFrame,
    labels: LabelFrame,
    threshold: float | Floats,
    *,
    tie_is_correct: bool = True,
) -> tuple[Mask, Mask]:
    """Per step whether it is labeled, and whether the label calls it incorrect.

    A label with only a first error calls the steps before it correct and does not label later ones.
    Arguments as in `first_errors`.
    """
    size = len(labels.verdict)
    known, incorrect = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    for block in frame.blocks():
        known[block[1]], incorrect[block[1]] = block_calls(
            frame, labels, threshold, block, tie_is_correct=tie_is_correct
        )
    return known, incorrect


def block_calls(
    frame: TraceFrame,
    labels: LabelFrame,
    threshold: float | Floats,
    block: tuple[slice, slice],
    *,
    tie_is_correct: bool = True,
) -> tuple[Mask, Mask]:
    """As `step_calls`, for the steps of one of `TraceFrame.blocks`."""
    traces, steps = block
    lengths = frame.n_steps[traces]
    judged = labels.verdict[steps] > 0
    known = judged | labels.scored[steps]
    low = _low(labels, threshold, steps, tie_is_correct=tie_is_correct)
    incorrect = np.where(judged, labels.verdict[steps] == INCORRECT, low)
    if labels.given[traces].any():
        given = np.repeat(labels.given[traces], lengths)
        stop = np.where(labels.named[traces], labels.index[traces], lengths)
        ends, position = np.repeat(stop, lengths), frame.position(traces)
        incorrect |= given & ~known & (position == ends)
        known |= given & (position <= ends)
    if labels.abstained[traces].any():
        speaks = ~np.repeat(labels.abstained[traces], lengths)
        known &= speaks
        incorrect &= speaks
    return known, incorrect


def numbered(values: NDArray[Any]) -> Index:
    """The values as numbers from 0 without gaps, in the order in which they first occur."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    _, first, kind = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[kind.reshape(-1)]


def named_numbers(names: Iterable[str]) -> tuple[list[int], list[str]]:
    """Names as numbers from 0 in the order in which they first occur, and the names by number."""
    known: dict[str, int] = {}
    numbers = [known.setdefault(name, len(known)) for name in names]
    return numbers, list(known)
