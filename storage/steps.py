"""The step labels of a trace in one row: a character a step, and the scores as doubles.

A row per step costs five times the space and the time, and most labels are short: a verdict, a
score, or both. `marks` has one character per step, lower case without a score and upper case with
one; `scores` has the scores of the upper-case steps in order, as little-endian doubles; whatever
else a step label holds is in `notes`, which most traces do not have.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from itertools import repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from storage import checks
from traces import Abstention, AbstentionReason, InputError, Quote, StepLabel, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MARKS: Mapping[Verdict | AbstentionReason, str] = {
    Verdict.CORRECT: "c",
    Verdict.INCORRECT: "i",
    Verdict.NEUTRAL: "n",
    AbstentionReason.BLOCKED: "b",
    AbstentionReason.TRUNCATED: "t",
    AbstentionReason.UNREADABLE: "r",
    AbstentionReason.NO_EVIDENCE: "e",
    AbstentionReason.OVER_LENGTH: "o",
    AbstentionReason.NOT_MEASURED: "m",
    AbstentionReason.MODEL_ERROR: "x",
    AbstentionReason.NO_ANSWER: "a",
    AbstentionReason.UNPARSED: "u",
    AbstentionReason.UNCERTAIN: "q",
    AbstentionReason.DISAGREEMENT: "d",
    AbstentionReason.FILTERED: "f",
    AbstentionReason.GOLD_UNUSABLE: "g",
}
"""The character of a step without a score; the database holds them, so they never change."""
_SCORE_ONLY = "S"
_BARE = {verdict: MARKS[verdict] for verdict in Verdict}
_ABSTAINED = {reason: MARKS[reason] for reason in AbstentionReason}
_SCORED: dict[Verdict | None, str] = {
    None: _SCORE_ONLY,
    **{verdict: MARKS[verdict].upper() for verdict in Verdict},
}
_VERDICTS = {mark: verdict for verdict, mark in _SCORED.items()}
_PLAIN = {mark: StepLabel(verdict) for verdict, mark in _BARE.items()} | {
    mark: StepLabel(abstention=Abstention(reason)) for reason, mark in _ABSTAINED.items()
}
"""Labels are immutable: those that hold a word only are made once."""
_NOTED = ("reasoning", "successes", "continuations", "unparsed", "unfinished")
_NOTHING = (None,) * len(_NOTED)
_read_noted = attrgetter(*_NOTED)
_ASSIGN = {field.name: getattr(StepLabel, field.name).__set__ for field in fields(StepLabel)}
"""How the slot of each field is filled; every field has the default None."""
_DETAIL = "detail"

EVERY_MARK = "".join((*_PLAIN, *_VERDICTS))
"""Every character that `marks` may hold."""

CODES: Mapping[Verdict, int] = {verdict: code for code, verdict in enumerate(Verdict, 1)}
"""The numbers of verdicts in `LabelArrays.verdicts`; 0 is none."""
_REASONS = {reason: code for code, reason in enumerate(AbstentionReason, 1)}


class PackedSteps(NamedTuple):
    """The step labels of a trace as columns."""

    marks: str
    """One character per step."""
    scores: bytes | None
    """The scores in order; None if there are none."""
    labeled: int
    """Steps with a verdict or a score."""
    notes: dict[str, Any] | None
    """Further fields by name, each a list with one entry or None per step; None if there are none.
    The details of abstentions are under `detail`."""


def pack_steps(steps: Sequence[StepLabel], trace_id: str) -> PackedSteps:
    """The step labels of a trace as columns, without their quotes.

    Raises:
        InputError: one has neither a word nor a score, or an abstention with either, or a value
            that cannot be stored.
    """
    marks: list[str] = []
    scores: list[float] = []
    silent, noted = 0, False
    for index, step in enumerate(steps):
        score, abstention = step.score, step.abstention
        mark: str | None
        if abstention is not None:
            alone = score is None and step.verdict is None
            mark = _ABSTAINED.get(abstention.reason) if alone else None
            silent += 1
            noted = noted or bool(abstention.detail)
        elif score is None:
            mark = None if step.verdict is None else _BARE.get(step.verdict)
        else:
            if type(score) is not float or not 0.0 <= score <= 1.0:
                score = checks.fraction(score, f"The score of the {_place(trace_id, index)}")
            scores.append(score or 0.0)
            mark = _SCORED.get(step.verdict)
        if mark is None:
            raise _wordless(step, _place(trace_id, index))
        marks.append(mark)
        noted = noted or _read_noted(step) != _NOTHING
    packed = struct.pack(f"<{len(scores)}d", *scores) if scores else None
    notes = _notes(steps, trace_id) if noted else None
    return PackedSteps("".join(marks), packed, len(marks) - silent, notes)


def _place(trace_id: str, index: int) -> str:
    return f"label of step {index} of trace {trace_id!r}"


def _wordless(step: StepLabel, where: str) -> InputError:
    both = step.abstention is not None
    return InputError(
        f"The {where} must have either an abstention or a verdict or score,"
        f" and has {'both' if both else 'neither'}."
    )


def _notes(steps: Sequence[StepLabel], trace_id: str) -> dict[str, Any]:
    notes: dict[str, Any] = {}
    for name in _NOTED:
        values = [getattr(step, name) for step in steps]
        if any(value is not None for value in values):
            if name != "reasoning":
                values = [
                    checks.count(value, f"The {name} of the {_place(trace_id, index)}")
                    for index, value in enumerate(values)
                ]
            notes[name] = values
    details = [step.abstention.detail if step.abstention else None for step in steps]
    return notes | {_DETAIL: details} if any(details) else notes


def unpack_steps(
    marks: str,
    scores: bytes | None,
    notes: Mapping[str, Any] | None = None,
    quotes: Mapping[int, Quote] | None = None,
) -> tuple[StepLabel, ...]:
    """The step labels that `pack_steps` was given; `quotes` are those of the steps by index."""
    if not notes and not quotes:
        if not scores:
            return _unscored(marks)
        if len(scores) == 8 * len(marks):
            return tuple(unpack_scored(marks, scores))
    values = struct.unpack(f"<{len(scores or b'') // 8}d", scores or b"")
    left = iter(values)
    labels = []
    for index, mark in enumerate(marks):
        others = {name: listed[index] for name, listed in (notes or {}).items()}
        detail = others.pop(_DETAIL, None) or ""
        plain = _PLAIN.get(mark)
        if plain is None:
            others["score"] = next(left)
        abstention = None if plain is None else plain.abstention
        if abstention is not None and detail:
            abstention = Abstention(abstention.reason, detail)
        verdict = _VERDICTS[mark] if plain is None else plain.verdict
        quote = quotes.get(index) if quotes else None
        labels.append(StepLabel(verdict, abstention=abstention, quote=quote, **others))
    return tuple(labels)


def unpack_scored(marks: str, scores: bytes) -> list[StepLabel]:
    """The step labels of any number of traces, where every step has a score and no notes.

    A frozen dataclass sets its fields one call of Python at a time. The loops here run in C, which
    takes a quarter of the time.
    """
    labels = list(map(object.__new__, repeat(StepLabel, len(marks))))
    values: dict[str, Iterable[Any]] = {
        "verdict": map(_VERDICTS.__getitem__, marks),
        "score": struct.unpack(f"<{len(marks)}d", scores),
    }
    for name, assign in _ASSIGN.items():
        deque(map(assign, labels, values.get(name, repeat(None))), maxlen=0)
    return labels


@lru_cache(maxsize=4096)
def _unscored(marks: str) -> tuple[StepLabel, ...]:
    return tuple(map(_PLAIN.__getitem__, marks))


@dataclass(frozen=True, slots=True)
class TraceColumns:
    """Traces without their texts, one entry per trace."""

    keys: NDArray[np.int64]
    """Keys of the traces in this database, shape (n,)."""
    ids: list[str]
    problem_ids: list[str]
    subsets: list[str]
    n_steps: NDArray[np.int64]
    """Steps per trace, shape (n,)."""
    final_answers: list[str | None]
    """The final answer of each trace; None if it has none."""
    final_answers_correct: list[bool | None]
    """Whether each trace ends with the gold answer; None if unknown."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]]) -> Self:
        """From rows of key, id, problem id, subset, steps, final answer and its correctness."""
        import numpy as np

        columns: list[Any] = list(map(list, zip(*rows, strict=True))) if rows else [[]] * 7
        keys, ids, problems, subsets, n_steps, answers, right = columns
        return cls(
            keys=np.array(keys, np.int64),
            ids=ids,
            problem_ids=problems,
            subsets=subsets,
            n_steps=np.array(n_steps, np.int64),
            final_answers=answers,
            final_answers_correct=right,
        )


@dataclass(frozen=True, slots=True)
class LabelArrays:
    """Labels of one labeler as arrays: n traces, and s step labels in one flat array.

    The step labels of trace i are at `offsets[i]:offsets[i + 1]`; a labeler that named a first
    error only, or abstained on the whole trace, has none there.
    """

    keys: NDArray[np.int64]
    """Keys of the traces in this database, shape (n,); as in `TraceColumns`."""
    ids: list[str]
    """Ids of the traces, n of them."""
    abstentions: list[str | None]
    """Why the trace has no label, an `AbstentionReason`; None if it has one."""
    first_error_given: NDArray[np.bool_]
    """Whether the labeler itself named the first error or said there is none, shape (n,)."""
    first_error_named: NDArray[np.bool_]
    """Whether it named a step, shape (n,)."""
    first_error_index: NDArray[np.int64]
    """That step where `first_error_named`; elsewhere 0 without a meaning. Shape (n,)."""
    offsets: NDArray[np.int64]
    """Where the step labels of each trace begin, shape (n + 1,)."""
    marks: NDArray[np.uint8]
    """The characters of the step labels, shape (s,); `verdicts` and others read them."""
    scores: NDArray[np.float64]
    """The scores where `scored`; elsewhere 0 without a meaning. Shape (s,)."""

    @property
    def verdicts(self) -> NDArray[np.uint8]:
        """`CODES` of the verdicts, 0 where there is none, shape (s,)."""
        return _tables()[0][self.marks]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which steps have a score, shape (s,)."""
        return _tables()[1][self.marks]

    @property
    def reasons(self) -> NDArray[np.uint8]:
        """Why a step has neither: its 1-based place in `AbstentionReason`, else 0. Shape (s,)."""
        return _tables()[2][self.marks]

    def first_errors(
        self, threshold: float = 0.5, *, tie_is_correct: bool = True
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
        """What `traces.first_error` gives for each trace.

        Returns:
            Whether it is missing, whether there is an error, and its index (0 without a meaning
            where there is none); each of shape (n,).
        """
        import numpy as np

        verdicts, scored = self.verdicts, self.scored
        low = self.scores < threshold if tie_is_correct else self.scores <= threshold
        wrong = (verdicts == CODES[Verdict.INCORRECT]) | ((verdicts == 0) & scored & low)
        silent = (verdicts == 0) & ~scored
        decisive = np.flatnonzero(wrong | silent)
        starts, ends = self.offsets[:-1], self.offsets[1:]
        nearest = np.searchsorted(decisive, starts)
        steps = np.append(decisive, len(self.marks))[nearest]
        found = steps < ends
        missing = (starts == ends) | (found & np.append(silent, False)[steps])
        given = self.first_error_given
        abstained = np.array([reason is not None for reason in self.abstentions], bool)
        missing = np.where(given, False, missing) | abstained
        has = np.where(given, self.first_error_named, found) & ~missing
        index = np.where(given, self.first_error_index, steps - starts)
        return missing, has, np.where(has, index, 0)

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]]) -> Self:
        """From rows of key, id, abstention, first error (given, index), marks and scores."""
        import numpy as np

        columns: list[Any] = list(map(list, zip(*rows, strict=True))) if rows else [[]] * 7
        keys, ids, abstentions, given, index, words, packed = columns
        marks = np.frombuffer("".join(filter(None, words)).encode("ascii"), np.uint8)
        scores = np.zeros(len(marks))
        scores[_tables()[1][marks]] = np.frombuffer(b"".join(filter(None, packed)), "<f8")
        return cls(
            keys=np.array(keys, np.int64),
            ids=ids,
            abstentions=abstentions,
            first_error_given=np.array(given, bool),
            first_error_named=np.array([each is not None for each in index], bool),
            first_error_index=np.array([each or 0 for each in index], np.int64),
            offsets=np.cumsum([0, *(len(word or "") for word in words)], dtype=np.int64),
            marks=marks,
            scores=scores,
        )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The labels of several parts in one."""
        import numpy as np

        if not parts:
            return cls.of(())
        starts = np.cumsum([0, *(len(part.marks) for part in parts)])
        offsets = [part.offsets[:-1] + at for part, at in zip(parts, starts, strict=False)]
        return cls(
            keys=np.concatenate([part.keys for part in parts]),
            ids=[each for part in parts for each in part.ids],
            abstentions=[each for part in parts for each in part.abstentions],
            first_error_given=np.concatenate([part.first_error_given for part in parts]),
            first_error_named=np.concatenate([part.first_error_named for part in parts]),
            first_error_index=np.concatenate([part.first_error_index for part in parts]),
            offsets=np.append(np.concatenate(offsets), starts[-1]),
            marks=np.concatenate([part.marks for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
        )


@cache
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint8]]:
    """For each character: the code of its verdict, whether it has a score, why it has neither."""
    import numpy as np

    verdicts, reasons = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    scored = np.zeros(256, bool)
    for verdict, code in CODES.items():
        verdicts[ord(_BARE[verdict])] = verdicts[ord(_SCORED[verdict])] = code
    for reason, code in _REASONS.items():
        reasons[ord(_ABSTAINED[reason])] = code
    scored[[ord(mark) for mark in _VERDICTS]] = True
    return verdicts, scored, reasons
