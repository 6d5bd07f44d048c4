"""What the benchmark formats share: who labelled, where the first error stands, what else a row says."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from formats.container import RawRow
from formats.export_row import ExportRow
from formats.fields import Reading, RowFault, optional_text_of
from formats.file_format import Rendered
from formats.parts import Part
from traces.abstention import AbstentionReason
from traces.labels import Labeler, LabelerKind, TraceLabel, abstained
from traces.problem import Problem, Trace
from traces.records import ImportedTrace, RejectedRow

OURS = ("trace_id", "labeler")
"""Keys that our exports add where the format has no place for the trace's id or for who labelled."""


def human_gold(format: str, **config: str) -> Labeler:
    """The labeler of a format's human annotation."""
    return Labeler("gold", LabelerKind.GOLD, {"imported_from": format, **config})


def stated_labeler(row: Mapping[str, Any], otherwise: Labeler) -> Labeler:
    """Who labelled the row: the one that our export wrote into it, else the format's own.

    Without this a judge's labels would come back from an export as human gold.
    """
    stated = row.get("labeler")
    if not isinstance(stated, dict):
        return otherwise
    name, kind = stated.get("name"), stated.get("kind")
    if not isinstance(name, str) or not name.strip() or kind not in set(LabelerKind):
        raise RowFault("'labeler' has no name, or a kind that is none")
    return Labeler(name, LabelerKind(kind), otherwise.config)


def stated_id(row: Mapping[str, Any], otherwise: str) -> str:
    """The trace's id: the one that our export wrote into the row, else the format's own."""
    stated = row.get("trace_id")
    return stated if isinstance(stated, str) and stated.strip() else otherwise


def same_reading_id(row: RawRow, reading: Reading) -> str | None:
    """`FileFormat.name_row` of formats whose rows have no id of their own."""
    return stated_id(row.value, reading.row_id(row))


def outside(labeler: Labeler, trace_id: str, detail: str) -> TraceLabel:
    """The abstention of a label that points outside its steps."""
    gold = labeler.kind is LabelerKind.GOLD
    reason = AbstentionReason.GOLD_UNUSABLE if gold else AbstentionReason.UNREADABLE
    return abstained(trace_id, reason, detail)


def placed(labeler: Labeler, trace: Trace, index: int | None, said: str) -> TraceLabel:
    """The label of a first error (0-based; None is no error), if it lies inside the trace.

    Args:
        labeler: who says so.
        trace: the trace.
        index: the first error.
        said: the error as the file words it, for the list of unusable labels.
    """
    if index is not None and not 0 <= index < len(trace.steps):
        detail = f"gold names {said} as the first error, the trace has {len(trace.steps)} steps"
        return outside(labeler, trace.id, detail)
    return TraceLabel(trace.id, first_error_given=True, first_error_index=index)


def imported(
    raw: RawRow,
    reading: Reading,
    problem: Problem,
    trace: Trace,
    labeler: Labeler,
    label: TraceLabel,
) -> Iterator[ImportedTrace | RejectedRow]:
    """The trace, and an entry of the list if its label cannot be used."""
    yield ImportedTrace(problem, trace, ((labeler, label),), line=raw.line)
    if label.abstention is not None:
        yield reading.rejected(raw, trace.id, label.abstention.detail, imported=True)


def who_labelled(row: ExportRow) -> dict[str, Any]:
    """The key that says who labelled, where it was not the format's human annotators."""
    if row.labeler.kind is LabelerKind.GOLD and row.labeler.name == "gold":
        return {}
    return {"labeler": {"name": row.labeler.name, "kind": row.labeler.kind.value}}


def with_meta(
    row: ExportRow, given: Mapping[str, Any], own_keys: Collection[str], lost: frozenset[Part]
) -> Rendered:
    """The row with the trace's meta as further keys, which is how it was read.

    A key of the meta that is a key of the format is counted as lost, never written over it.
    """
    clashes = row.trace.meta.keys() & {*own_keys, *OURS}
    kept = {key: value for key, value in given.items() if value is not None}
    written = kept | {key: value for key, value in row.trace.meta.items() if key not in clashes}
    return Rendered(written, lost=lost | ({Part.TRACE_META} if clashes else frozenset()))


def text_or_number(row: Mapping[str, Any], key: str) -> str | None:
    """An answer, which some files give as a number."""
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return optional_text_of(row, key)
