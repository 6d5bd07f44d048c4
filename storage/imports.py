"""Import of one file into a dataset: what is new, what is the same, what changed, what is gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, exists, func, select, update

from storage import checks
from storage.codecs.problems import problem_columns, trace_columns
from storage.connection import chunks, delete_where_in, insert_keyed, insert_rows, now
from storage.datasets import dataset_pk
from storage.evidence_sets import SetColumns, check_set, delete_orphans, store_sets
from storage.labels import LabelColumns, check_label, declare, drop_imported, insert_labels, load
from storage.outcomes import ImportOutcome, ImportSummary
from storage.tables import (
    DATASETS,
    LABELERS,
    PROBLEMS,
    REJECTED_ROWS,
    SOURCE_FILES,
    STEPS,
    TRACE_LABELS,
    TRACES,
)
from traces import (
    MISSING_FIRST_ERROR,
    ImportedTrace,
    InputError,
    Labeler,
    LabelerKind,
    RejectedRow,
    SourceFile,
    first_error,
)

Columns = dict[str, Any]
"""Column values by name."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A trace or problem that is in the dataset."""

    pk: int
    digest: str
    source_file_pk: int = 0


@dataclass(frozen=True, slots=True)
class _Checked:
    """A row that can be stored."""

    problem: Columns
    trace: Columns
    steps: list[str]
    labels: dict[str, LabelColumns]
    evidence: SetColumns | None


class ImportRun:
    """Takes the rows of one file chunk by chunk; `finish` says what became of them.

    A row that cannot be stored is rejected with its reason, and the others go on.
    """

    def __init__(self, connection: Connection, dataset: int, source_file: int, file: str) -> None:
        self._connection = connection
        self._dataset = dataset
        self._source_file = source_file
        self._file = file
        mine = TRACES.c.dataset_pk == dataset
        query = select(
            TRACES.c.id, TRACES.c.pk, TRACES.c.digest, TRACES.c.source_file_pk, TRACES.c.problem_pk
        ).where(mine)
        rows = list(connection.execute(query))
        self._traces = {row.id: _Stored(row.pk, row.digest, row.source_file_pk) for row in rows}
        problems = select(PROBLEMS.c.id, PROBLEMS.c.pk, PROBLEMS.c.digest)
        self._problems = {
            row.id: _Stored(row.pk, row.digest)
            for row in connection.execute(problems.where(PROBLEMS.c.dataset_pk == dataset))
        }
        self._shared = {row.problem_pk for row in rows if row.source_file_pk != source_file}
        self._labelers: dict[str, tuple[Labeler, int]] = {}
        self._stated: dict[str, str] = {}
        self._seen: set[str] = set()
        self._rejected: list[RejectedRow] = []
        self._done = 0
        self._unchanged = 0

    def add(self, rows: Iterable[ImportedTrace | RejectedRow]) -> None:
        """Store a chunk of rows.

        Raises:
            InputError: a labeler is known with another configuration; the file as a whole is at fault.
        """
        usable: list[_Checked] = []
        for row in rows:
            if isinstance(row, RejectedRow):
                self._rejected.append(row)
                continue
            try:
                checked = self._check(row)
            except InputError as fault:
                rejected = RejectedRow(self._file, row.line, row.trace.id, fault.what)
                self._rejected.append(rejected)
                continue
            for labeler, _ in row.labels:
                self._declare(labeler)
            usable.append(checked)
        if usable:
            self._store(usable)

    def finish(self) -> ImportOutcome:
        """Remove what the file no longer has, and sum up."""
        gone = [
            stored.pk
            for trace_id, stored in self._traces.items()
            if stored.source_file_pk == self._source_file and trace_id not in self._seen
        ]
        delete_where_in(self._connection, TRACES, TRACES.c.pk, gone)
        unused = ~exists().where(TRACES.c.problem_pk == PROBLEMS.c.pk)
        self._connection.execute(
            delete(PROBLEMS).where(PROBLEMS.c.dataset_pk == self._dataset, unused)
        )
        delete_orphans(self._connection)
        return ImportOutcome(self._done, self._unchanged, tuple(self._rejected), len(gone))

    def _declare(self, labeler: Labeler) -> None:
        known = self._labelers.get(labeler.name)
        if known is None or known[0] != labeler:
            remedy = "remove it with `stepgold remove labeler`, or import into another --dataset"
            pk = declare(self._connection, self._dataset, labeler, remedy=remedy)
            self._labelers[labeler.name] = (labeler, pk)

    def _check(self, row: ImportedTrace) -> _Checked:
        trace, problem = row.trace, row.problem
        self._check_id(trace.id)
        if trace.problem_id != problem.id:
            raise InputError(f"The trace names problem {trace.problem_id!r}, not {problem.id!r}.")
        problem_row = problem_columns(problem)
        self._check_problem(problem.id, problem_row["digest"])
        trace_row, steps = trace_columns(trace, problem_row["digest"])
        labels: dict[str, LabelColumns] = {}
        for labeler, label in row.labels:
            checks.name(labeler.name, "The labeler name")
            if label.trace_id != trace.id or labeler.name in labels:
                raise InputError(
                    f"The labels of {labeler.name!r} do not belong to this trace alone."
                )
            labels[labeler.name] = check_label(label, len(steps))
        evidence = check_set(row.evidence) if row.evidence else None
        self._stated[problem.id] = problem_row["digest"]
        self._seen.add(trace.id)
        return _Checked(problem_row, trace_row, steps, labels, evidence)

    def _check_id(self, trace_id: str) -> None:
        if trace_id in self._seen:
            raise InputError(f"The id {trace_id!r} stands in the file twice.")
        stored = self._traces.get(trace_id)
        if stored is not None and stored.source_file_pk != self._source_file:
            query = select(SOURCE_FILES.c.name).where(SOURCE_FILES.c.pk == stored.source_file_pk)
            other = self._connection.scalar(query)
            raise InputError(f"The id {trace_id!r} came with file {other!r} already.")

    def _check_problem(self, problem_id: str, digest: str) -> None:
        stored = self._problems.get(problem_id)
        fixed = self._stated.get(problem_id)
        if fixed is None and stored is not None and stored.pk in self._shared:
            fixed = stored.digest
        if fixed is not None and fixed != digest:
            raise InputError(
                f"The problem {problem_id!r} has other content than in a row before"
                " (question, options, answer, images or meta)."
            )

    def _store(self, rows: Sequence[_Checked]) -> None:
        self._store_problems({row.problem["id"]: row.problem for row in rows})
        sets = store_sets(self._connection, [row.evidence for row in rows if row.evidence])
        new: list[Columns] = []
        kept: list[Columns] = []
        changed: list[int] = []
        pks: dict[str, int] = {}
        for row in rows:
            places = {
                "position": self._done + self._unchanged,
                "evidence_set_pk": sets[row.evidence.digest] if row.evidence else None,
            }
            stored = self._traces.get(row.trace["id"])
            if stored is not None and stored.digest == row.trace["digest"]:
                self._unchanged += 1
                pks[row.trace["id"]] = stored.pk
                kept.append({"target": stored.pk, **{f"new_{k}": v for k, v in places.items()}})
                continue
            self._done += 1
            if stored is not None:
                changed.append(stored.pk)
            keys = {
                "dataset_pk": self._dataset,
                "source_file_pk": self._source_file,
                "problem_pk": self._problems[row.problem["id"]].pk,
            }
            new.append(row.trace | places | keys)
        delete_where_in(self._connection, TRACES, TRACES.c.pk, changed)
        pks |= insert_keyed(self._connection, TRACES, new, "id")
        inserted = {columns["id"] for columns in new}
        steps = [
            {"trace_pk": pks[row.trace["id"]], "step_index": index, "text": text}
            for row in rows
            if row.trace["id"] in inserted
            for index, text in enumerate(row.steps)
        ]
        insert_rows(self._connection, STEPS, steps)
        self._keep(kept)
        self._store_labels(rows, pks)

    def _store_problems(self, problems: dict[str, Columns]) -> None:
        new = [
            columns | {"dataset_pk": self._dataset}
            for problem_id, columns in problems.items()
            if problem_id not in self._problems
        ]
        keys = insert_keyed(self._connection, PROBLEMS, new, "id")
        for problem_id, columns in problems.items():
            stored = self._problems.get(problem_id)
            pk = keys[problem_id] if stored is None else stored.pk
            if stored is not None and stored.digest != columns["digest"]:
                # Another question: what was retrieved for the old one is not evidence for it.
                self._connection.execute(
                    update(PROBLEMS)
                    .where(PROBLEMS.c.pk == pk)
                    .values(columns | {"evidence_set_pk": None})
                )
            self._problems[problem_id] = _Stored(pk, columns["digest"])

    def _keep(self, kept: Sequence[Columns]) -> None:
        if not kept:
            return
        self._connection.execute(
            update(TRACES)
            .where(TRACES.c.pk == bindparam("target"))
            .values(
                position=bindparam("new_position"), evidence_set_pk=bindparam("new_evidence_set_pk")
            ),
            list(kept),
        )
        drop_imported(self._connection, [row["target"] for row in kept])

    def _store_labels(self, rows: Sequence[_Checked], pks: dict[str, int]) -> None:
        labels = {
            (self._labelers[name][1], pks[row.trace["id"]]): label
            for row in rows
            for name, label in row.labels.items()
        }
        for labeler in {labeler for labeler, _ in labels}:
            delete_where_in(
                self._connection,
                TRACE_LABELS,
                TRACE_LABELS.c.trace_pk,
                [trace for other, trace in labels if other == labeler],
                TRACE_LABELS.c.labeler_pk == labeler,
            )
        insert_labels(self._connection, labels, imported=True)


# --- Import of one file into a dataset: what is new, what is the same, what changed, what is gone


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
    found = [word for word in map(first_error, labels) if word != MISSING_FIRST_ERROR]
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
