"""What is written of a labelled trace, and what a format cannot carry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

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
    """Why a format cannot carry a label that is there."""

    NOT_CARRIED = "not_carried"
    """The format has no place for it (a score where verdicts are needed, its marker inside a step)."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """A trace to be written, with one labeler's word on it."""

    problem: Problem
    """The problem."""
    trace: Trace
    """The trace."""
    label: TraceLabel
    """The label to write."""
    labeler: Labeler
    """Who put it."""
    evidence: tuple[Evidence, ...] = ()
    """Evidence of the problem, best first."""
    support: tuple[tuple[Labeler, TraceLabel], ...] = ()
    """Labels that this one rests on (a consensus rests on a judge's and an MC labeler's)."""


@dataclass(frozen=True, slots=True)
class SkippedTrace:
    """A trace that was not written."""

    trace_id: str
    """The trace."""
    reason: AbstentionReason | FormatLimit
    """Why: the labeler's own reason, or that the format cannot carry the label."""
    detail: str = ""
    """One sentence."""


class CannotCarry(ValueError):
    """Raised by a format for a label it cannot write honestly."""

    def __init__(self, reason: AbstentionReason | FormatLimit, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        """Why, typed."""
        self.detail = detail
        """Why, in a sentence."""


def require_word(row: ExportRow) -> None:
    """Refuse a trace on which the labeler abstained as a whole, or said nothing."""
    if row.label.abstention is not None:
        raise CannotCarry(row.label.abstention.reason, row.label.abstention.detail)
    if not row.label.first_error_given and not row.label.step_labels:
        raise CannotCarry(AbstentionReason.NOT_MEASURED, "the labeler says nothing about the trace")


def stated_first_error(row: ExportRow) -> int | None:
    """The first error a labeler states by itself, 0-based, None for no error.

    Formats apply no threshold, so a labeler that gives scores only is refused.
    """
    require_word(row)
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
    """One true (correct) or false per step, as far as the label goes.

    Neutral is no error. Steps behind the first error on which the labeler is silent are left
    out, so the list may be shorter than the trace: nothing is made up for them.
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
    """One true (correct) or false for every step, for formats in which no step is left open.

    A first error alone says nothing about the steps behind it, so such a label is refused.
    """
    verdicts = binary_verdicts(row)
    if len(verdicts) < len(row.trace.steps):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED,
            f"step {len(verdicts) + 1} has no verdict; this format needs one for every step",
        )
    return verdicts


def values_of(row: ExportRow) -> tuple[list[bool] | list[float], bool]:
    """What a training set says about the steps: verdicts, or scores where there are no verdicts.

    Returns:
        One value per step, as far as the label goes (see `binary_verdicts`), and whether they are
        scores in [0, 1].
    """
    require_word(row)
    steps = row.label.step_labels
    scores = [step.score for step in steps if step.score is not None]
    # A verdict wins over a score, so where there is one, scores alone would say something else.
    silent = not row.label.first_error_given and all(step.verdict is None for step in steps)
    if silent and scores and len(scores) == len(steps):
        return scores, True
    return binary_verdicts(row), False


# --- The choices of `--neutral`


class NeutralPolicy(StrEnum):
    """How a neutral step is read (`--neutral`).

    The field disagrees: OpenAI and Qwen count PRM800K's neutral as positive, TRL as negative
    (`rating == 1`), VisualProcessBench leaves it out.
    """

    KEEP = "keep"
    """As the verdict neutral."""
    POSITIVE = "positive"
    """As correct."""
    NEGATIVE = "negative"
    """As incorrect."""
    IGNORE = "ignore"
    """As a step without a verdict; the first error is still the annotator's first -1."""


# --- Takes typed fields out of a row, or says in one sentence why it cannot


IMPORTED_CORPUS = "imported"
"""Corpus name of evidence that came with a dataset and stands in no corpus of ours."""


REASON_LIMIT = 300
"""Longest reason of a rejected row in characters: a value of a corrupted row may be a page of digits."""


class RowFault(ValueError):
    """Why a row cannot be used, as one sentence without its full stop."""


class Misfit(RowFault):
    """A label that does not fit the trace's steps (wrong length, index outside); the steps are fine."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read."""

    file: str
    """The file as the user named it."""
    stem: str
    """Its base name without .json, .jsonl, .parquet and .gz."""
    subset: str | None = None
    """The subset the user asked for; None leaves it to the format."""
    labeler: Labeler | None = None
    """The labeler the user named, for formats that do not say who labelled."""
    neutral: NeutralPolicy = NeutralPolicy.KEEP
    """How a step is read that its annotator called neutral."""

    def rejected(
        self, row: RawRow, id: str | None, reason: str, *, imported: bool = False
    ) -> RejectedRow:
        """The row as an entry of the list of rejected rows; its reason is one short line."""
        words = " ".join(reason.split())
        short = words if len(words) <= REASON_LIMIT else f"{words[: REASON_LIMIT - 1]}…"
        return RejectedRow(self.file, row.line, id, short, imported)

    def row_id(self, row: RawRow) -> str:
        """The id of a row whose format has none: `<file stem>:i`, i 0-based."""
        return f"{self.stem}:{row.index}"


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


def rest_of(row: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """What a row says beyond the known keys, to be kept as meta."""
    return {key: value for key, value in row.items() if key not in known}


def question_id(question: str, options: tuple[str, ...] = (), *more: str | None) -> str:
    """The problem id of formats that list traces only: a hash, so that equal questions meet."""
    content = json.dumps([question, options, more], ensure_ascii=False)
    return f"q-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def imported_evidence(source: str, title: str, text: str, rank: int) -> Evidence:
    """Evidence that came with a row; `rank` is 0-based."""
    passage = Passage(IMPORTED_CORPUS, source, 0, 0, len(text), text, title)
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


# --- The parts of a labelled trace beside its question and steps, so that a format can say which


class Part(StrEnum):
    """What an export may lose; each is counted where a format has no place for it."""

    OPTIONS = "options"
    """The answer options."""
    ANSWER = "answer"
    """The gold answer."""
    IMAGES = "images"
    """Paths of the question's images."""
    PROBLEM_META = "problem_meta"
    """What the source said about the problem beyond our fields."""
    SUBSET = "subset"
    """The subset, where it is not `default`."""
    GENERATOR = "generator"
    """The model that wrote the trace."""
    FINAL_ANSWER = "final_answer"
    """The answer the trace ends with."""
    OUTCOME = "final_answer_correct"
    """Whether that answer is right."""
    TRACE_META = "trace_meta"
    """What the source said about the trace beyond our fields."""
    EVIDENCE = "evidence"
    """Evidence for the problem."""
    TEXT = "text"
    """Question and steps to the letter: the format trims or numbers them, or joins their lines."""
    NEUTRAL = "neutral"
    """Neutral verdicts: where the format has two words, neutral is no error."""
    SCORES = "scores"
    """Step scores."""
    LATER_VERDICTS = "later_verdicts"
    """Verdicts or scores behind the first error."""
    ABSTENTIONS = "abstentions"
    """Why single steps have no verdict (`not_measured` needs no place)."""
    REMARKS = "remarks"
    """Reasoning, quotes and Monte-Carlo counts of steps."""
    LABEL_META = "label_meta"
    """What else the labeler said about the trace."""


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


# --- What a file format is: how its rows are recognised, read and written


@dataclass(frozen=True, slots=True)
class Rendered:
    """A labelled trace as a format writes it."""

    row: dict[str, Any]
    """The row to write."""
    steps_left_out: int = 0
    """Steps behind the first error on which the labeler is silent and which the row therefore lacks."""
    lost: frozenset[Part] = frozenset()
    """Parts that the format carries in general, but not of this trace."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """One format of the field."""

    name: str
    """Its name on the command line."""
    required: frozenset[str]
    """Keys that every row has."""
    parse: Callable[[RawRow, Reading], Iterator[ImportedTrace | RejectedRow]] | None
    """Yields the traces of a row; raises RowFault for a row that cannot be used. None if only written."""
    name_row: Callable[[RawRow, Reading], str | None]
    """The id of a row, whatever else is wrong with it; None if it has none."""
    render: Callable[[ExportRow], Rendered] | None = None
    """Turns a labelled trace into a row; raises CannotCarry. None if the format is only read."""
    carries: frozenset[Part] = frozenset()
    """Parts a written row has beside id, question, steps and the labeler's word."""
    gather: Callable[[Iterable[dict[str, Any]]], Iterable[Mapping[str, Any]]] | None = None
    """Joins rendered rows into the file's own rows; None if they are the same."""
    always_list: bool = False
    """Whether the file is one JSON list whatever its suffix."""
    wants_labeler: bool = False
    """Whether the user must say who labelled (`--labeler`, `--kind`)."""
    has_neutral: bool = False
    """Whether its annotators may call a step neutral (`--neutral`)."""
    maps_lists: bool = False
    """Whether the file may be one JSON object of lists."""

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has all keys of this format."""
        return self.required <= row.keys()
