"""What a file format is made of: how its rows are recognized, read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, BinaryIO

from formats.files.container import RawRow
from traces import (
    MISSING_FIRST_ERROR,
    AbstentionReason,
    Evidence,
    FirstError,
    ImportedTrace,
    Labeler,
    Passage,
    Problem,
    RejectedRow,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
    first_error,
)


class FormatLimit(StrEnum):
    """Why a format cannot carry an existing label."""

    NOT_CARRIED = "not_carried"
    """The format has no place for it: a score where verdicts are needed, its marker in a step."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """A trace to write, with one labeler's label."""

    problem: Problem
    trace: Trace
    label: TraceLabel
    labeler: Labeler
    evidence: tuple[Evidence, ...] = ()
    """Evidence for the problem, best first."""
    support: tuple[tuple[Labeler, TraceLabel], ...] = ()
    """Labels that this one is based on: a consensus is based on a judge's and an MC labeler's."""


@dataclass(frozen=True, slots=True)
class SkippedTrace:
    """A trace that was not written."""

    trace_id: str
    reason: AbstentionReason | FormatLimit
    """The labeler's own reason, or that the format cannot carry the label."""
    detail: str = ""
    """One sentence."""


class CannotCarry(ValueError):
    """Raised by a format for a label it cannot write honestly."""

    def __init__(self, reason: AbstentionReason | FormatLimit, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def require_label(row: ExportRow) -> None:
    """Raise CannotCarry for a trace that has no label at all, with the labeler's reason."""
    if row.label.abstention is not None:
        raise CannotCarry(row.label.abstention.reason, row.label.abstention.detail)
    if not row.label.first_error_given and not row.label.step_labels:
        raise CannotCarry(AbstentionReason.NOT_MEASURED, "the labeler did not label the trace")


def stated_first_error(row: ExportRow) -> int | None:
    """The first error that follows from verdicts, 0-based; None for no error.

    Raises:
        CannotCarry: only scores decide it (formats apply no threshold), or a step before it has
            no verdict.
    """
    require_label(row)
    if not row.label.first_error_given and any(
        step.verdict is None and step.score is not None for step in row.label.step_labels
    ):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED, "the label is a score; this format carries verdicts"
        )
    found: FirstError = first_error(row.label)
    if found == MISSING_FIRST_ERROR:
        reason = next(
            (
                step.abstention.reason
                for step in row.label.step_labels
                if step.abstention is not None
            ),
            AbstentionReason.NOT_MEASURED,
        )
        raise CannotCarry(reason, "a step before the first error has no verdict")
    return found.index


def binary_verdicts(row: ExportRow) -> list[bool]:
    """One verdict per step, True for correct, as far as the label goes.

    Neutral counts as correct. Unlabeled steps after the first error are left out, so the list may
    be shorter than the trace.
    """
    error = stated_first_error(row)
    if error is None:
        return [True] * len(row.trace.steps)
    known = [True] * error + [False]
    for step in row.label.step_labels[error + 1 :]:
        if step.verdict is None:
            break
        known.append(step.verdict is not Verdict.INCORRECT)
    return known


def whole_verdicts(row: ExportRow) -> list[bool]:
    """One verdict for every step, True for correct.

    Raises:
        CannotCarry: the label does not cover all steps, for instance because it is a first error.
    """
    verdicts = binary_verdicts(row)
    if len(verdicts) < len(row.trace.steps):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED,
            f"step {len(verdicts) + 1} has no verdict; this format needs one for every step",
        )
    return verdicts


def values_of(row: ExportRow) -> tuple[list[bool] | list[float], bool]:
    """The values of a training row: verdicts, or scores where there are no verdicts.

    Returns:
        One value per step, as far as the label goes (see `binary_verdicts`), and whether they are
        scores in [0, 1].
    """
    require_label(row)
    steps = row.label.step_labels
    scores = [step.score for step in steps if step.score is not None]
    # A verdict wins over a score, so scores are written only where there are no verdicts at all.
    without_verdicts = not row.label.first_error_given and all(
        step.verdict is None for step in steps
    )
    # Soft labels may end after the first error, as verdicts may.
    leading = all(step.score is None for step in steps[len(scores) :])
    ended = len(scores) == len(steps) or not first_error(row.label).missing
    if without_verdicts and scores and leading and ended:
        return scores, True
    return binary_verdicts(row), False


class NeutralPolicy(StrEnum):
    """How to read a neutral step (`--neutral`).

    Practice differs: OpenAI and Qwen count PRM800K's neutral as positive, TRL as negative
    (`rating == 1`), VisualProcessBench leaves it out.
    """

    KEEP = "keep"
    """As the verdict neutral."""
    POSITIVE = "positive"
    """As correct."""
    NEGATIVE = "negative"
    """As incorrect."""
    IGNORE = "ignore"
    """Without a verdict; the first error is still the annotator's first -1."""


IMPORTED_CORPUS = "imported"
"""Corpus name of evidence that came with a dataset."""
REASON_LIMIT = 300
"""Longest reason of a rejected row, in characters: a value of a corrupt row may fill pages."""
OWN_KEYS = ("trace_id", "labeler")
"""Keys that our exports add where a format has no place for the trace's id or its labeler."""


class RowFault(ValueError):
    """Why a row cannot be used, as one sentence without its full stop."""


class Misfit(RowFault):
    """A label that does not fit the steps (wrong length, index outside); the steps are usable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileContext:
    """The file being read, and the options it is read with."""

    path: str
    """As the user wrote it."""
    stem: str
    """Base name without .json, .jsonl, .parquet and .gz."""
    subset: str | None = None
    """From `--subset`; None leaves it to the format."""
    several: bool = False
    """Whether the call reads other files too."""
    labeler: Labeler | None = None
    """From `--labeler`, for formats that do not name theirs."""
    neutral: NeutralPolicy = NeutralPolicy.KEEP
    alternatives: bool = False
    """Whether rated completions that were not taken become traces too."""
    prm: str | None = None
    """From `--prm`: the checkpoint that a file's scores come from; None if unknown."""
    split: str = "auto"
    """From `--split`: how unsplit responses become steps."""

    @property
    def fallback_subset(self) -> str:
        """The subset of rows that name none: of several files each is one of its own."""
        return self.stem if self.several else "default"

    def rejected(
        self, row: RawRow, id: str | None, reason: str, *, imported: bool = False
    ) -> RejectedRow:
        """The row as an entry of the list of problem rows; `imported` if its steps are usable."""
        text = " ".join(reason.split())
        short = text if len(text) <= REASON_LIMIT else f"{text[: REASON_LIMIT - 1]}…"
        return RejectedRow(file=self.path, line=row.line, id=id, reason=short, imported=imported)

    def note(self, row: RawRow, id: str | None, text: str) -> RejectedRow:
        """A harmless note about an imported row."""
        return replace(self.rejected(row, id, text, imported=True), harmless=True)

    def row_id(self, row: RawRow) -> str:
        """The id of a row in a format without ids: `<file stem>:<0-based row>`."""
        return f"{self.stem}:{row.index}"


def stated_id(row: Mapping[str, Any], otherwise: str) -> str:
    """The trace's id: the one that our export wrote into the row, else the format's own."""
    return id_or_none(row, "trace_id") or otherwise


def position_id(row: RawRow, file: FileContext) -> str | None:
    """`FileFormat.name_row` of formats whose rows have no id."""
    return stated_id(row.value, file.row_id(row))


def id_or_none(row: Mapping[str, Any], key: str) -> str | None:
    """An id as text: a text, or a whole number in decimal digits; None for anything else.

    >>> id_or_none({"id": 7}, "id"), id_or_none({"id": True}, "id"), id_or_none({"id": " "}, "id")
    ('7', None, None)
    """
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None


def id_of(row: Mapping[str, Any], key: str) -> str:
    """An id as text; see `id_or_none`."""
    found = id_or_none(row, key)
    if found is None:
        raise RowFault(f"'{key}' is {_kind(row, key)}, not a text or a whole number")
    return found


def whole_number(value: Any) -> int | None:
    """A whole number, also where pandas wrote it as a float; None for anything else.

    >>> whole_number(2), whole_number(2.0), whole_number(2.5), whole_number(True)
    (2, 2, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value == value // 1 else None


def text_of(row: Mapping[str, Any], key: str) -> str:
    """A text with at least one visible character."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RowFault(f"'{key}' is {_kind(row, key)}, not a text")
    return value


def optional_text_of(row: Mapping[str, Any], key: str) -> str | None:
    """A text; None if the key is absent, null or blank."""
    value = row.get(key)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise RowFault(f"'{key}' is {_kind(row, key)}, not a text")
    return value


def optional_bool_of(row: Mapping[str, Any], key: str) -> bool | None:
    """True or false; None if the key is absent or null."""
    value = row.get(key)
    if value is not None and not isinstance(value, bool):
        raise RowFault(f"'{key}' is {_kind(row, key)}, not true or false")
    return value


def texts_of(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts; empty if the key is absent or null."""
    value = row.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowFault(f"'{key}' is {_kind(row, key)}, not a list of texts")
    for position, text in enumerate(value):
        if not isinstance(text, str):
            raise RowFault(f"'{key}' holds {_named(text)} at position {position + 1}, not a text")
    return tuple(value)


def steps_of(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The steps of a trace: a list of texts, at least one of them not blank."""
    steps = texts_of(row, key)
    if not any(step.strip() for step in steps):
        raise RowFault(f"there are no steps in '{key}'")
    return steps


def object_of(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A JSON object; empty if the key is absent or null."""
    value = row.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RowFault(f"'{key}' is {_kind(row, key)}, not an object")
    return value


def rest_of(row: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The other keys of a row, to keep as meta."""
    return {key: value for key, value in row.items() if key not in known}


def question_id(
    question: str, options: tuple[str, ...] = (), more: Sequence[str | None] = ()
) -> str:
    """The problem id in formats without one: a hash, so that equal questions share it."""
    content = json.dumps([question, options, list(more)], ensure_ascii=False)
    return f"q-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def imported_evidence(source: str, title: str, text: str, rank: int) -> Evidence:
    """Evidence that came with a row; `rank` is 0-based."""
    passage = Passage(
        corpus=IMPORTED_CORPUS,
        document=source,
        index=0,
        start=0,
        end=len(text),
        text=text,
        title=title,
    )
    return Evidence(passage, None, rank)


def _kind(row: Mapping[str, Any], key: str) -> str:
    return _named(row[key]) if key in row else "missing"


def _named(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text '{value[:20]}'" if value.strip() else "a blank text"
        case list():
            return "a list"
    return "an object"


class Part(StrEnum):
    """A part of a labeled trace that an export may lose; losses are counted by part."""

    OPTIONS = "options"
    ANSWER = "answer"
    """The gold answer."""
    IMAGES = "images"
    PROBLEM_META = "problem_meta"
    """Fields of the source about the problem."""
    SUBSET = "subset"
    """The subset, where it is not `default`."""
    GENERATOR = "generator"
    FINAL_ANSWER = "final_answer"
    OUTCOME = "final_answer_correct"
    TRACE_META = "trace_meta"
    """Fields of the source about the trace."""
    EVIDENCE = "evidence"
    TEXT = "text"
    """The exact text: the format trims or numbers steps, or joins lines."""
    NEUTRAL = "neutral"
    """Neutral verdicts: formats with two verdicts write them as correct."""
    SCORES = "scores"
    LATER_VERDICTS = "later_verdicts"
    """Verdicts or scores after the first error."""
    ABSTENTIONS = "abstentions"
    """Why single steps have no verdict (`not_measured` needs no place)."""
    REMARKS = "remarks"
    """Reasoning, quotes and Monte Carlo counts of steps."""
    LABEL_META = "label_meta"
    """Other statements of the labeler about the trace."""


def parts_of(row: ExportRow) -> frozenset[Part]:
    """The parts that a labelled trace has."""
    problem, trace, label = row.problem, row.trace, row.label
    steps = label.step_labels
    there = {
        Part.OPTIONS: problem.options,
        Part.ANSWER: problem.answer is not None,
        Part.IMAGES: problem.images,
        Part.PROBLEM_META: problem.meta,
        Part.SUBSET: trace.subset != "default",
        Part.GENERATOR: trace.generator is not None,
        Part.FINAL_ANSWER: trace.final_answer is not None,
        Part.OUTCOME: trace.final_answer_correct is not None,
        Part.TRACE_META: trace.meta,
        Part.EVIDENCE: row.evidence,
        Part.NEUTRAL: any(step.verdict is Verdict.NEUTRAL for step in steps),
        Part.SCORES: any(step.score is not None for step in steps),
        Part.LATER_VERDICTS: any(step.abstention is None for step in _later_steps(row)),
        Part.ABSTENTIONS: any(
            step.abstention is not None
            and step.abstention.reason is not AbstentionReason.NOT_MEASURED
            for step in steps
        ),
        Part.REMARKS: any(_has_remarks(step) for step in steps),
        Part.LABEL_META: label.meta,
    }
    return frozenset(part for part, found in there.items() if found)


def _later_steps(row: ExportRow) -> tuple[StepLabel, ...]:
    found = first_error(row.label)
    if found.missing or found.index is None:
        return ()
    return row.label.step_labels[found.index + 1 :]


def _has_remarks(step: StepLabel) -> bool:
    said = (step.reasoning, step.quote, step.successes, step.continuations)
    return any(value is not None for value in (*said, step.unparsed, step.unfinished))


@dataclass(frozen=True, slots=True)
class Rendered:
    """A labeled trace as a format writes it."""

    row: dict[str, Any]
    steps_left_out: int = 0
    """Unlabeled steps after the first error, which the row lacks."""
    lost: frozenset[Part] = frozenset()
    """Parts that the format carries in general, but not for this trace."""


Parse = Callable[[RawRow, FileContext], Iterator[ImportedTrace | RejectedRow]]
"""Yields the traces of a row; raises RowFault for a row that cannot be used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFormat:
    """A file format: what a plug-in of the group `stepgold.formats` provides."""

    name: str
    """As on the command line."""
    required: frozenset[str]
    """Keys that every row has; formats with more of them are tried first on an unknown file."""
    parse: Parse | None = None
    """None for a format that is only written."""
    render: Callable[[ExportRow], Rendered] | None = None
    """Turns a labeled trace into a row or raises CannotCarry. None for a format that is only
    read."""
    name_row: Callable[[RawRow, FileContext], str | None] = position_id
    """The id of a row, even of an unusable one; None if it has none."""
    carries: frozenset[Part] = frozenset()
    """Parts that a written row has besides id, question, steps and label."""
    gather: Callable[[Iterable[dict[str, Any]]], Iterable[Mapping[str, Any]]] | None = None
    """Joins rendered rows into the file's own rows; None if they are the same."""
    write_table: Callable[[BinaryIO, Iterable[Mapping[str, Any]]], None] | None = None
    """Writes rows as a table, for a path that ends in .parquet; None for a format without one."""
    always_list: bool = False
    """Whether the file is one JSON list whatever its suffix."""
    maps_lists: bool = False
    """Whether the file may be one JSON object of lists."""
    needs_labeler: bool = False
    """Whether `--labeler` and `--kind` are required, since files do not name their labeler."""
    excludes: Callable[[Mapping[str, Any]], bool] | None = None
    """Whether a row with all required keys is in another format, by the types of its values."""
    takes: frozenset[str] = frozenset()
    """Further options of `import` that it understands: `neutral`, `alternatives`, `prm`,
    `split`."""

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has all keys of this format and is not excluded."""
        return self.required <= row.keys() and not (self.excludes and self.excludes(row))
