"""Takes typed fields out of a row, or says in one sentence why it cannot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from formats.container import RawRow
from formats.neutral_policy import NeutralPolicy
from traces.evidence import Evidence, Passage
from traces.labels import Labeler
from traces.records import RejectedRow

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
