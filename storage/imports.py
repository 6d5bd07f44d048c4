"""Import of one file into a dataset: what is new, what is the same, what changed, what is gone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from storage import checks
from storage.bulk import chunks, insert_rows, now
from storage.datasets import dataset_pk
from storage.import_run import ImportRun
from storage.labels import load
from storage.outcomes import ImportOutcome, ImportSummary
from storage.tables import DATASETS, LABELERS, REJECTED_ROWS, SOURCE_FILES, TRACES
from traces.errors import InputError
from traces.first_error import MISSING, first_error
from traces.labels import LabelerKind
from traces.records import ImportedTrace, RejectedRow, SourceFile

_CHUNK = 500


def import_file(
    connection: Connection,
    dataset: str,
    source: SourceFile,
    rows: Iterable[ImportedTrace | RejectedRow],
    *,
    replace: bool,
) -> ImportOutcome:
    """Import the rows of a file, streaming; the transaction is the caller's.

    The same file again is not read. With `replace`, a changed one keeps the traces whose content (and
    whose problem's) is unchanged, with all their labels; labels that came with rows follow the file.

    Raises:
        InputError: the file changed and `replace` is False, not one row can be used, or a labeler of
            the rows is known with another configuration.
    """
    columns = _source_columns(source)
    owner = _ensure_dataset(connection, checks.name(dataset, "The dataset name"))
    stored = _find(connection, owner, source.name)
    if stored is not None:
        changed = _changes(stored, columns)
        if not changed:
            return _unchanged(connection, stored.pk)
        if not replace:
            raise InputError(
                f"The file {source.name!r} of dataset {dataset!r} was imported with {changed}.",
                where=source.name,
                remedy="import it with --replace, or under another --dataset",
            )
    source_pk = _put_source(connection, owner, stored, columns)
    run = ImportRun(connection, owner, source_pk, source.path or source.name)
    for chunk in chunks(rows, _CHUNK):
        run.add(chunk)
    outcome = run.finish()
    if not outcome.done + outcome.unchanged:
        raise _nothing_usable(source, outcome.rejected)
    _put_rejected(connection, source_pk, outcome.rejected)
    return outcome


def summary(connection: Connection, dataset: str) -> ImportSummary:
    """The dataset as its gold labels see it: labeler `gold`, else the first of that kind."""
    owner = dataset_pk(connection, dataset)
    total = connection.scalar(
        select(func.count()).select_from(TRACES).where(TRACES.c.dataset_pk == owner)
    )
    names = list(
        connection.scalars(
            select(LABELERS.c.name)
            .where(LABELERS.c.dataset_pk == owner, LABELERS.c.kind == LabelerKind.GOLD.value)
            .order_by(LABELERS.c.name != "gold", LABELERS.c.pk)
        )
    )
    labels = load(connection, dataset, names[0]).values() if names else ()
    found = [word for word in map(first_error, labels) if word != MISSING]
    with_error = sum(word.index is not None for word in found)
    traces = int(total or 0)
    return ImportSummary(traces, with_error, len(found) - with_error, traces - len(found))


def _source_columns(source: SourceFile) -> dict[str, Any]:
    return {
        "name": checks.name(source.name, "The file name"),
        "sha256": source.sha256,
        "format": source.format,
        "options": checks.plain_json(source.options, "The options of the import"),
    }


def _ensure_dataset(connection: Connection, name: str) -> int:
    pk = connection.scalar(select(DATASETS.c.pk).where(DATASETS.c.name == name))
    if pk is None:
        row = {"name": name, "created_at": now()}
        pk = connection.scalar(DATASETS.insert().values(row).returning(DATASETS.c.pk))
    return int(pk or 0)


def _find(connection: Connection, dataset: int, name: str) -> Row[Any] | None:
    query = select(SOURCE_FILES).where(
        SOURCE_FILES.c.dataset_pk == dataset, SOURCE_FILES.c.name == name
    )
    return connection.execute(query).one_or_none()


def _changes(stored: Row[Any], columns: dict[str, Any]) -> str:
    """What is different about a file that was imported before, for a person; empty if nothing is."""
    changes = []
    if stored.sha256 != columns["sha256"]:
        changes.append("other content")
    if stored.format != columns["format"]:
        changes.append(f"the format {stored.format!r}")
    if checks.canonical(stored.options) != checks.canonical(columns["options"]):
        changes.append(f"other options ({checks.differences(stored.options, columns['options'])})")
    return ", ".join(changes)


def _put_source(
    connection: Connection, owner: int, stored: Row[Any] | None, columns: dict[str, Any]
) -> int:
    row = columns | {"dataset_pk": owner, "imported_at": now()}
    if stored is not None:
        connection.execute(update(SOURCE_FILES).where(SOURCE_FILES.c.pk == stored.pk).values(row))
        return int(stored.pk)
    pk = connection.scalar(SOURCE_FILES.insert().values(row).returning(SOURCE_FILES.c.pk))
    return int(pk or 0)


def _unchanged(connection: Connection, source_pk: int) -> ImportOutcome:
    query = select(func.count()).where(TRACES.c.source_file_pk == source_pk)
    rows = connection.execute(
        select(REJECTED_ROWS)
        .where(REJECTED_ROWS.c.source_file_pk == source_pk)
        .order_by(REJECTED_ROWS.c.position)
    )
    rejected = tuple(
        RejectedRow(row.file, row.line, row.id, row.reason, row.imported) for row in rows
    )
    return ImportOutcome(0, int(connection.scalar(query) or 0), rejected)


def rejected_rows(connection: Connection) -> list[tuple[str, RejectedRow]]:
    """Rows that were not imported, with their datasets, by file."""
    rows = connection.execute(
        select(REJECTED_ROWS, DATASETS.c.name.label("dataset"))
        .join(SOURCE_FILES, REJECTED_ROWS.c.source_file_pk == SOURCE_FILES.c.pk)
        .join(DATASETS, SOURCE_FILES.c.dataset_pk == DATASETS.c.pk)
        .where(REJECTED_ROWS.c.imported.is_(False))
        .order_by(DATASETS.c.pk, SOURCE_FILES.c.pk, REJECTED_ROWS.c.position)
    )
    return [
        (row.dataset, RejectedRow(row.file, row.line, row.id, row.reason, row.imported))
        for row in rows
    ]


def _put_rejected(
    connection: Connection, source_pk: int, rejected: tuple[RejectedRow, ...]
) -> None:
    connection.execute(delete(REJECTED_ROWS).where(REJECTED_ROWS.c.source_file_pk == source_pk))
    rows = [
        {
            "source_file_pk": source_pk,
            "position": position,
            "file": row.file,
            "line": row.line,
            "id": row.id,
            "reason": row.reason,
            "imported": row.imported,
        }
        for position, row in enumerate(rejected)
    ]
    insert_rows(connection, REJECTED_ROWS, rows)


def _nothing_usable(source: SourceFile, rejected: tuple[RejectedRow, ...]) -> InputError:
    if not rejected:
        return InputError(
            "The file has no rows.", where=source.name, remedy="check the file and its format"
        )
    first = rejected[0]
    line = "" if first.line is None else f", line {first.line}"
    return InputError(
        f"Not one of the {len(rejected)} rows of the file can be used; the first: {first.reason}",
        where=f"{source.name}{line}",
        remedy="check the file and its format",
    )
