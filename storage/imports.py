"""What comes into a dataset: rows of imported files, and traces that a policy sampled."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, exists, func, select, update

from storage import checks
from storage.columns import Columns
from storage.database import Connections
from storage.evidence import SetColumns, check_set, delete_orphans, store_sets
from storage.labels import declare_labeler
from storage.lookups import ensure_dataset
from storage.records import (
    REJECTED_ROW,
    LabelColumns,
    label_columns,
    problem_columns,
    step_rows,
    trace_columns,
)
from storage.rows import CHUNK, delete_where, insert_keyed, insert_one, insert_rows, now
from storage.tables import (
    DATASETS,
    FAILURES,
    LABELERS,
    PROBLEMS,
    REJECTED_ROWS,
    SOURCE_FILES,
    STEPS,
    TRACE_LABELS,
    TRACES,
)
from storage.trace_labels import delete_labels, insert_labels
from traces import ImportedTrace, InputError, Labeler, Problem, RejectedRow, Trace


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """The outcome of importing one file."""

    done: int
    """Traces that are new or were replaced."""
    unchanged: int
    """Traces that the dataset had with the same content; they keep all their labels."""
    rejected: tuple[RejectedRow, ...] = ()
    """Rejected rows in order; for an unchanged file those of its first import."""
    removed: int = 0
    """Traces that the file no longer has."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A trace or problem of the dataset."""

    pk: int
    digest: str
    source_file_pk: int = 0
    shared: bool = False
    """Whether another file has traces of the problem."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """A row that can be stored."""

    problem: Columns
    trace: Columns
    steps: list[str]
    labels: dict[str, LabelColumns]
    evidence: SetColumns | None


class ImportRun:
    """Takes the rows of one file chunk by chunk; `finish` returns the outcome.

    A row that cannot be stored is rejected with its reason; the others are stored.
    """

    _connection: Connection
    """That of the running transaction."""

    def __init__(self, dataset: int, source_file: int, file: str) -> None:
        self._dataset = dataset
        self._source_file = source_file
        self._file = file
        self._traces: dict[str, _Stored] = {}
        self._problems: dict[str, _Stored] = {}
        self._labelers: dict[str, tuple[Labeler, int]] = {}
        self._stated: dict[str, bytes] = {}
        self._seen: set[str] = set()
        self._rejected: list[RejectedRow] = []
        self._done = 0
        self._unchanged = 0
        self._replaced = False

    def add(self, connection: Connection, rows: Sequence[ImportedTrace | RejectedRow]) -> None:
        """Store a chunk of rows in one transaction.

        Raises:
            InputError: a labeler exists with another configuration, which concerns the whole file.
        """
        self._connection = connection
        usable: list[_Checked] = []
        self._look_up([row for row in rows if isinstance(row, ImportedTrace)])
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

    def _look_up(self, rows: Sequence[ImportedTrace]) -> None:
        """Find what the dataset already has of these rows."""
        trace, problem = TRACES.c, PROBLEMS.c
        ids = {row.trace.id for row in rows if checks.is_plain(row.trace.id)}
        query = select(trace.id, trace.pk, trace.digest, trace.source_file_pk)
        query = query.where(trace.dataset_pk == self._dataset, trace.id.in_(ids))
        found = self._connection.execute(query).all()
        self._traces = {row.id: _Stored(row.pk, row.digest, row.source_file_pk) for row in found}
        ids = {row.problem.id for row in rows if checks.is_plain(row.problem.id)}
        other = exists().where(
            trace.problem_pk == problem.pk, trace.source_file_pk != self._source_file
        )
        query = select(problem.id, problem.pk, problem.digest, other.label("shared"))
        query = query.where(problem.dataset_pk == self._dataset, problem.id.in_(ids))
        found = self._connection.execute(query).all()
        self._problems = {
            row.id: _Stored(row.pk, row.digest, shared=bool(row.shared)) for row in found
        }

    def finish(self, connection: Connection) -> ImportOutcome:
        """Remove the traces that the file no longer has, and return the outcome."""
        self._connection = connection
        mine = TRACES.c.source_file_pk == self._source_file
        stored = self._connection.execute(select(TRACES.c.pk, TRACES.c.id).where(mine))
        gone = [row.pk for row in stored if row.id not in self._seen]
        delete_where(self._connection, TRACES.c.pk, gone)
        if gone or self._replaced:
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
            pk = declare_labeler(self._connection, self._dataset, labeler, remedy=remedy)
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
                    f"The row has two labels of {labeler.name!r}, or one of another trace."
                )
            labels[labeler.name] = label_columns(label, len(steps))
        evidence = check_set(row.evidence) if row.evidence else None
        self._stated[problem.id] = bytes.fromhex(problem_row["digest"])
        self._seen.add(trace.id)
        return _Checked(
            problem=problem_row, trace=trace_row, steps=steps, labels=labels, evidence=evidence
        )

    def _check_id(self, trace_id: str) -> None:
        if trace_id in self._seen:
            raise InputError(f"The id {trace_id!r} occurs twice in the file.")
        stored = self._traces.get(trace_id)
        if stored is not None and stored.source_file_pk != self._source_file:
            query = select(SOURCE_FILES.c.name).where(SOURCE_FILES.c.pk == stored.source_file_pk)
            other = self._connection.scalar(query)
            raise InputError(f"The id {trace_id!r} was already imported from file {other!r}.")

    def _check_problem(self, problem_id: str, digest: str) -> None:
        stored = self._problems.get(problem_id)
        stated = self._stated.get(problem_id)
        fixed = None if stated is None else stated.hex()
        if fixed is None and stored is not None and stored.shared:
            fixed = stored.digest
        if fixed is not None and fixed != digest:
            raise InputError(
                f"The problem {problem_id!r} has other content than in an earlier row"
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
                self._replaced = True
                kept.append({"target": stored.pk, **{f"new_{k}": v for k, v in places.items()}})
                continue
            self._done += 1
            if stored is not None:
                self._replaced = True
                changed.append(stored.pk)
            keys = {
                "dataset_pk": self._dataset,
                "source_file_pk": self._source_file,
                "problem_pk": self._problems[row.problem["id"]].pk,
            }
            new.append(row.trace | places | keys)
        delete_where(self._connection, TRACES.c.pk, changed)
        pks |= insert_keyed(self._connection, TRACES, new, by="id")
        inserted = {columns["id"] for columns in new}
        steps = {pks[row.trace["id"]]: row.steps for row in rows if row.trace["id"] in inserted}
        insert_rows(self._connection, STEPS, step_rows(steps))
        self._keep(kept)
        self._store_labels(rows, pks)

    def _store_problems(self, problems: dict[str, Columns]) -> None:
        new = [
            columns | {"dataset_pk": self._dataset}
            for problem_id, columns in problems.items()
            if problem_id not in self._problems
        ]
        keys = insert_keyed(self._connection, PROBLEMS, new, by="id")
        for problem_id, columns in problems.items():
            stored = self._problems.get(problem_id)
            pk = keys[problem_id] if stored is None else stored.pk
            if stored is not None and stored.digest != columns["digest"]:
                # The question changed: evidence retrieved for the old one does not apply.
                self._replaced = True
                self._connection.execute(
                    update(PROBLEMS)
                    .where(PROBLEMS.c.pk == pk)
                    .values(columns | {"evidence_set_pk": None})
                )
            shared = stored is not None and stored.shared
            self._problems[problem_id] = _Stored(pk, columns["digest"], shared=shared)

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
        came_with_rows = TRACE_LABELS.c.imported.is_(True)
        kept_pks = [row["target"] for row in kept]
        delete_where(self._connection, TRACE_LABELS.c.trace_pk, kept_pks, came_with_rows)

    def _store_labels(self, rows: Sequence[_Checked], pks: dict[str, int]) -> None:
        labels = {
            (self._labelers[name][1], pks[row.trace["id"]]): label
            for row in rows
            for name, label in row.labels.items()
        }
        for labeler in {labeler for labeler, _ in labels}:
            traces = [trace for other, trace in labels if other == labeler]
            delete_labels(self._connection, labeler, traces)
        insert_labels(self._connection, labels, imported=True)


UNFINISHED = ""
"""The hash of a file whose import has not ended."""


def finished_source(connection: Connection, dataset: str, name: str) -> bool:
    """Whether a dataset has a file of this name whose import ended."""
    query = (
        select(SOURCE_FILES.c.sha256)
        .join(DATASETS, SOURCE_FILES.c.dataset_pk == DATASETS.c.pk)
        .where(DATASETS.c.name == dataset, SOURCE_FILES.c.name == name)
    )
    return connection.scalar(query) not in (None, UNFINISHED)


def undo_import(
    connections: Connections,
    dataset: str,
    files: Collection[str],
    *,
    labelers: Collection[str],
    is_new: bool,
) -> None:
    """Remove files with their traces, some at a time, and what only they brought.

    Args:
        connections: the database.
        dataset: its name.
        files: names of files.
        labelers: those the dataset had before; others go if no label of theirs is left.
        is_new: whether the dataset was made for these files; it goes if nothing is left.
    """
    owner = select(DATASETS.c.pk).where(DATASETS.c.name == dataset).scalar_subquery()
    mine = (SOURCE_FILES.c.dataset_pk == owner, SOURCE_FILES.c.name.in_(list(files)))
    gone = select(SOURCE_FILES.c.pk).where(*mine)
    with connections.write() as connection:
        # A kill between two parts must not leave a file that counts as whole.
        connection.execute(update(SOURCE_FILES).where(*mine).values(sha256=UNFINISHED))
    while True:
        with connections.write() as connection:
            some = select(TRACES.c.pk).where(TRACES.c.source_file_pk.in_(gone)).limit(CHUNK)
            if not delete_where(connection, TRACES.c.pk, list(connection.scalars(some))):
                break
    with connections.write() as connection:
        connection.execute(delete(SOURCE_FILES).where(*mine))
        unused = ~exists().where(TRACES.c.problem_pk == PROBLEMS.c.pk)
        connection.execute(delete(PROBLEMS).where(PROBLEMS.c.dataset_pk == owner, unused))
        delete_orphans(connection)
        silent = ~exists().where(TRACE_LABELS.c.labeler_pk == LABELERS.c.pk)
        fresh = LABELERS.c.name.not_in(list(labelers))
        connection.execute(delete(LABELERS).where(LABELERS.c.dataset_pk == owner, fresh, silent))
        if is_new:
            empty = ~exists().where(SOURCE_FILES.c.dataset_pk == DATASETS.c.pk)
            connection.execute(delete(DATASETS).where(DATASETS.c.name == dataset, empty))


FORMAT = "sample"
"""The format recorded for a set of candidates, which has no file."""


@dataclass(frozen=True, slots=True)
class SampledCounts:
    """What is stored of one set of candidates."""

    problems: frozenset[str]
    """Problems for which sampling is complete."""
    traces: int
    """Candidates that were kept."""


class SampledTraces:
    """Candidates in datasets; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def refuse_changed(self, dataset: str, problems: Iterable[Problem]) -> None:
        """Refuse problems that changed, before anything is paid for their candidates.

        Raises:
            InputError: the dataset has a problem of the same id with other content.
        """
        query = (
            select(PROBLEMS.c.id, PROBLEMS.c.digest)
            .join(DATASETS)
            .where(DATASETS.c.name == dataset)
        )
        with self._connections.read() as connection:
            stored = {str(row.id): str(row.digest) for row in connection.execute(query)}
        for problem in problems:
            if problem.id in stored:
                _refuse_other_content(problem_columns(problem), stored[problem.id])

    def declare(
        self, dataset: str, name: str, config: Mapping[str, Any], *, replace: bool = False
    ) -> SampledCounts:
        """Register a set of candidates, and its dataset, and return what is stored of it.

        Raises:
            InputError: the name is taken by a file, or by candidates of another configuration;
                with `replace` those are dropped with their labels instead.
        """
        options = checks.plain_json(config, "The configuration of the sampling")
        with self._connections.write() as connection:
            owner = ensure_dataset(connection, dataset)
            source = _source(connection, owner, name)
            if source is None:
                row = {
                    "dataset_pk": owner,
                    "name": checks.name(name, "The name of the candidates"),
                    "sha256": checks.digest(options),
                    "format": FORMAT,
                    "options": options,
                    "imported_at": now(),
                }
                insert_one(connection, SOURCE_FILES, row)
                return SampledCounts(frozenset(), 0)
            if source.format != FORMAT:
                raise InputError(
                    f"{name!r} is an imported file of dataset {dataset!r}.",
                    remedy="give the candidates another --name",
                )
            if checks.canonical(source.options) != checks.canonical(options):
                if not replace:
                    different = checks.differences(source.options, options)
                    raise InputError(
                        f"The candidates {name!r} of dataset {dataset!r} were sampled with another"
                        f" configuration ({different}).",
                        remedy="use another --name, or --replace to drop them with their labels",
                    )
                _drop(connection, source.pk, options)
            return _counts(connection, source.pk)

    def add(
        self,
        dataset: str,
        name: str,
        problem: Problem,
        *,
        kept: Sequence[Trace],
        refused: Sequence[tuple[str, str]],
    ) -> None:
        """Store all candidates of one problem, and (id, reason) of the refused ones, all or none.

        Raises:
            InputError: an id is taken, or the stored problem has other content.
        """
        with self._connections.write() as connection:
            owner = ensure_dataset(connection, dataset)
            source = _source(connection, owner, name)
            if source is None:
                raise InputError(f"There are no candidates {name!r} in dataset {dataset!r}.")
            columns = problem_columns(problem)
            # An earlier call may have found no candidate.
            here = and_(FAILURES.c.dataset_pk == owner, FAILURES.c.stage == name)
            delete_where(connection, FAILURES.c.id, [problem.id], here)
            if kept:
                key = _problem_pk(connection, owner, columns)
                keys = {"dataset_pk": owner, "source_file_pk": source.pk, "problem_pk": key}
                _insert(connection, keys, [trace_columns(each, columns["digest"]) for each in kept])
            _refuse(connection, source.pk, name, refused)


def _source(connection: Connection, dataset: int, name: str) -> Row[Any] | None:
    query = select(SOURCE_FILES).where(
        SOURCE_FILES.c.dataset_pk == dataset, SOURCE_FILES.c.name == name
    )
    return connection.execute(query).one_or_none()


def _counts(connection: Connection, source: int) -> SampledCounts:
    """A problem is complete if anything of it is stored: its candidates are stored together."""
    problems = kept_by_problem(connection, source)
    refused = connection.scalars(
        select(REJECTED_ROWS.c.id).where(REJECTED_ROWS.c.source_file_pk == source)
    )
    # Candidate ids are `<problem>:<name>:<number>`, and names have no colon.
    done = frozenset(problems) | {str(id_).rsplit(":", 2)[0] for id_ in refused}
    return SampledCounts(done, sum(problems.values()))


def kept_by_problem(connection: Connection, source: int) -> dict[str, int]:
    """How many traces of a source every problem has, by problem id."""
    kept = select(PROBLEMS.c.id, func.count()).join(TRACES, TRACES.c.problem_pk == PROBLEMS.c.pk)
    kept = kept.where(TRACES.c.source_file_pk == source).group_by(PROBLEMS.c.id)
    return {str(row[0]): int(row[1]) for row in connection.execute(kept)}


def _drop(connection: Connection, source: int, options: Any) -> None:
    connection.execute(delete(TRACES).where(TRACES.c.source_file_pk == source))
    connection.execute(delete(REJECTED_ROWS).where(REJECTED_ROWS.c.source_file_pk == source))
    values = {"options": options, "sha256": checks.digest(options), "imported_at": now()}
    connection.execute(update(SOURCE_FILES).where(SOURCE_FILES.c.pk == source).values(values))


def _problem_pk(connection: Connection, owner: int, columns: Columns) -> int:
    stored = connection.execute(
        select(PROBLEMS.c.pk, PROBLEMS.c.digest).where(
            PROBLEMS.c.dataset_pk == owner, PROBLEMS.c.id == columns["id"]
        )
    ).one_or_none()
    if stored is None:
        return insert_one(connection, PROBLEMS, columns | {"dataset_pk": owner})
    _refuse_other_content(columns, stored.digest)
    return int(stored.pk)


def _refuse_other_content(columns: Mapping[str, Any], digest: str) -> None:
    if digest != columns["digest"]:
        raise InputError(
            f"The problem {columns['id']!r} has other content in the dataset"
            " (question, options, answer, images or meta).",
            remedy="sample into another --dataset",
        )


def _insert(
    connection: Connection, keys: Columns, prepared: Sequence[tuple[Columns, list[str]]]
) -> None:
    ids = [columns["id"] for columns, _ in prepared]
    mine = TRACES.c.dataset_pk == keys["dataset_pk"]
    taken = connection.scalars(select(TRACES.c.id).where(mine, TRACES.c.id.in_(ids))).first()
    if taken is not None:
        raise InputError(f"The dataset already has a trace {taken!r}.", remedy="use another --name")
    last = connection.scalar(
        select(func.max(TRACES.c.position)).where(TRACES.c.source_file_pk == keys["source_file_pk"])
    )
    first = 0 if last is None else int(last) + 1
    rows = [
        columns | keys | {"position": first + number}
        for number, (columns, _) in enumerate(prepared)
    ]
    pks = insert_keyed(connection, TRACES, rows, by="id")
    insert_rows(
        connection, STEPS, step_rows({pks[columns["id"]]: steps for columns, steps in prepared})
    )


def _refuse(
    connection: Connection, source: int, name: str, refused: Sequence[tuple[str, str]]
) -> None:
    query = select(func.count()).where(REJECTED_ROWS.c.source_file_pk == source)
    first = int(connection.scalar(query) or 0)
    rows = [
        REJECTED_ROW.columns(RejectedRow(name, None, id_, reason), "a refused candidate")
        | {"source_file_pk": source, "position": first + number}
        for number, (id_, reason) in enumerate(refused)
    ]
    insert_rows(connection, REJECTED_ROWS, rows)
