"""What a file format is: how its rows are recognised, read and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from formats.container import RawRow
from formats.export_row import ExportRow
from formats.fields import Reading
from formats.parts import Part
from traces.records import ImportedTrace, RejectedRow


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
