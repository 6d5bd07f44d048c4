"""Datasets with their problems and traces: importing files, and reading page by page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, select, update

from storage import checks
from storage.columns import Columns
from storage.database import Connections
from storage.evidence import delete_orphans, load_sets
from storage.imports import (
    UNFINISHED,
    ImportOutcome,
    ImportRun,
    SampledTraces,
    finished_source,
    kept_by_problem,
    undo_import,
)
from storage.lookups import IMPORT_ORDER, dataset_pk, ensure_dataset, trace_keys, trace_pages
from storage.records import PROBLEM, REJECTED_ROW, SOURCE_FILE, TRACE
from storage.rows import CHUNK, chunks, insert_one, insert_rows, now
from storage.steps import TraceColumns
from storage.tables import (
    DATASETS,
    LABELERS,
    PROBLEMS,
    REJECTED_ROWS,
    SOURCE_FILES,
    STEPS,
    TRACE_EVIDENCE,
    TRACES,
)
from storage.trace_labels import label_arrays
from traces import (
    ImportedTrace,
    InputError,
    LabelerKind,
    Problem,
    RejectedRow,
    SourceFile,
    TraceInContext,
    may_hold_phi,
)

_PAGE = 500


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """A dataset by its gold labels; the three groups add up to `traces`."""

    traces: int
    with_error: int
    """Traces in which gold names a first error."""
    without_error: int
    """Traces that are free of errors according to gold."""
    unlabelled: int
    """Traces without gold, or whose gold is an abstention or leaves the first error open."""


@dataclass(frozen=True, slots=True)
class DatasetCounts:
    """How large a dataset is."""

    problems: int
    traces: int
    steps: int


class Traces:
    """Datasets with their problems and traces; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.sampled = SampledTraces(connections)

    def import_file(
        self,
        dataset: str,
        source: SourceFile,
        rows: Iterable[ImportedTrace | RejectedRow],
        *,
        replace: bool = False,
    ) -> ImportOutcome:
        """Import a file into a dataset, which is created if it is new; `rows` is read lazily.

        A row that cannot be stored (a duplicate id, a NUL byte, a label that does not fit) is
        rejected and listed. The same file again is not read, and the outcome has the rejected rows
        of its first import. With `replace`, a changed file keeps the traces whose content (and
        whose problem's) is unchanged, with all their labels; labels that came with rows follow the
        file.

        A new file is committed some rows at a time, so that others can write meanwhile; after a
        kill, importing it again goes on. A file that replaces another is one transaction.

        Raises:
            InputError: the file changed and `replace` is False; no row can be used; a labeler of
                the rows exists with another configuration. Nothing of the call is kept.
        """
        columns = SOURCE_FILE.columns(source, "the file")
        with self._connections.read() as connection:
            replaces = finished_source(connection, dataset, source.name)
        # What a replacement drops cannot be put back, except by the database.
        whole = self._connections.write() if replaces else self.importing(dataset, [source.name])
        with whole:
            owner, source_pk, known = self._begin(dataset, columns, replace=replace)
            if known is not None:
                return known
            run = ImportRun(owner, source_pk, source.path or source.name)
            for chunk in chunks(rows, _PAGE):
                with self._connections.write() as connection:
                    run.add(connection, chunk)
            with self._connections.write() as connection:
                outcome = run.finish(connection)
                if not outcome.done + outcome.unchanged:
                    raise _nothing_usable(source, outcome.rejected)
                _put_rejected(connection, source_pk, outcome.rejected)
                mine = SOURCE_FILES.c.pk == source_pk
                finished = {"sha256": columns["sha256"], "imported_at": now()}
                connection.execute(update(SOURCE_FILES).where(mine).values(finished))
            return outcome

    def _begin(
        self, dataset: str, columns: Columns, *, replace: bool
    ) -> tuple[int, int, ImportOutcome | None]:
        """The keys of the dataset and of the file, marked unfinished; the outcome if it is known.

        Raises:
            InputError: the file changed and `replace` is False.
        """
        name = columns["name"]
        with self._connections.write() as connection:
            owner = ensure_dataset(connection, dataset)
            query = select(SOURCE_FILES).where(
                SOURCE_FILES.c.dataset_pk == owner, SOURCE_FILES.c.name == name
            )
            stored = connection.execute(query).one_or_none()
            if stored is not None and stored.sha256 != UNFINISHED:
                changed = _changes(stored, columns)
                if not changed:
                    return owner, stored.pk, _unchanged(connection, stored.pk)
                if not replace:
                    raise InputError(
                        f"The file {name!r} of dataset {dataset!r} was imported with {changed}.",
                        where=name,
                        remedy="import it with --replace, or under another --dataset",
                    )
            row = columns | {"dataset_pk": owner, "imported_at": now(), "sha256": UNFINISHED}
            return owner, _put_source(connection, stored, row), None

    @contextmanager
    def importing(self, dataset: str, files: Sequence[str]) -> Iterator[None]:
        """Remove what the block imported from these files if an error leaves it.

        Files that were imported before, whole, stay. An interrupt keeps what was imported.
        """
        with self._connections.read() as connection:
            known = set(connection.scalars(select(DATASETS.c.name)))
            mine = LABELERS.c.dataset_pk == DATASETS.c.pk
            names = select(LABELERS.c.name).join(DATASETS, mine).where(DATASETS.c.name == dataset)
            labelers = set(connection.scalars(names))
            kept = {name for name in files if finished_source(connection, dataset, name)}
        try:
            yield
        except Exception:
            undo_import(
                self._connections,
                dataset,
                [name for name in files if name not in kept],
                labelers=labelers,
                is_new=dataset not in known,
            )
            raise

    def unfinished(self) -> list[tuple[str, str]]:
        """Files whose import was cut off, as pairs of dataset and name."""
        query = (
            select(DATASETS.c.name, SOURCE_FILES.c.name)
            .join(SOURCE_FILES, SOURCE_FILES.c.dataset_pk == DATASETS.c.pk)
            .where(SOURCE_FILES.c.sha256 == UNFINISHED)
            .order_by(DATASETS.c.pk, SOURCE_FILES.c.pk)
        )
        with self._connections.read() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def import_summary(self, dataset: str) -> ImportSummary:
        """The dataset by the labels of labeler `gold`, else of the first labeler of that kind."""
        with self._connections.read() as connection:
            owner = dataset_pk(connection, dataset)
            total = connection.scalar(
                select(func.count()).select_from(TRACES).where(TRACES.c.dataset_pk == owner)
            )
            gold = connection.scalar(
                select(LABELERS.c.pk)
                .where(LABELERS.c.dataset_pk == owner, LABELERS.c.kind == LabelerKind.GOLD.value)
                .order_by(LABELERS.c.name != "gold", LABELERS.c.pk)
                .limit(1)
            )
        traces = int(total or 0)
        if gold is None:
            return ImportSummary(traces, 0, 0, traces)
        with_error = without_error = 0
        for page in trace_pages(self._connections, owner, select(TRACES.c.pk, TRACES.c.id)):
            with self._connections.read() as connection:
                labels = label_arrays(connection, gold, {row.pk: row.id for row in page})
            missing, has_error, _ = labels.first_errors()
            with_error += int(has_error.sum())
            without_error += int((~missing & ~has_error).sum())
        return ImportSummary(traces, with_error, without_error, traces - with_error - without_error)

    def rejected_rows(self) -> list[tuple[str, RejectedRow]]:
        """Rows of files that were not imported, with their datasets, by file.

        A candidate that was refused is none if its problem has all candidates: it was drawn again.
        """
        query = (
            select(
                REJECTED_ROWS,
                DATASETS.c.name.label("dataset"),
                SOURCE_FILES.c.options,
            )
            .join(SOURCE_FILES, REJECTED_ROWS.c.source_file_pk == SOURCE_FILES.c.pk)
            .join(DATASETS, SOURCE_FILES.c.dataset_pk == DATASETS.c.pk)
            .where(REJECTED_ROWS.c.imported.is_(False))
            .order_by(DATASETS.c.pk, SOURCE_FILES.c.pk, REJECTED_ROWS.c.position)
        )
        with self._connections.read() as connection:
            rows = connection.execute(query).all()
            wanted = {row.source_file_pk: int((row.options or {}).get("n", 0)) for row in rows}
            kept = {
                source: kept_by_problem(connection, source) for source, n in wanted.items() if n
            }
        # Candidate ids are `<problem>:<name>:<number>`, and names have no colon.
        return [
            (row.dataset, REJECTED_ROW.record(row))
            for row in rows
            if (source := row.source_file_pk) not in kept
            or kept[source].get(str(row.id).rsplit(":", 2)[0], 0) < wanted[source]
        ]

    def datasets(self) -> dict[str, DatasetCounts]:
        """The size of every dataset by name, in the order of import."""
        problems = select(func.count()).where(PROBLEMS.c.dataset_pk == DATASETS.c.pk)
        mine = TRACES.c.dataset_pk == DATASETS.c.pk
        traces = select(func.count()).where(mine)
        steps = select(func.coalesce(func.sum(TRACES.c.n_steps), 0)).where(mine)
        query = select(
            DATASETS.c.name,
            problems.scalar_subquery().label("problems"),
            traces.scalar_subquery().label("traces"),
            steps.scalar_subquery().label("steps"),
        ).order_by(DATASETS.c.pk)
        with self._connections.read() as connection:
            return {
                row.name: DatasetCounts(row.problems, row.traces, row.steps)
                for row in connection.execute(query)
            }

    def require_dataset(self, dataset: str) -> None:
        """Raise InputError, listing the known ones, if there is no such dataset."""
        with self._connections.read() as connection:
            dataset_pk(connection, dataset)

    def remove_dataset(self, dataset: str) -> None:
        """Remove a dataset with its traces, labels, evidence and failures; paid replies stay."""
        with self._connections.write() as connection:
            pk = dataset_pk(connection, dataset)
            connection.execute(delete(DATASETS).where(DATASETS.c.pk == pk))
            delete_orphans(connection)

    def contexts(
        self,
        dataset: str,
        *,
        trace_ids: Collection[str] | None = None,
        with_evidence: bool = True,
        limit: int | None = None,
    ) -> Iterator[TraceInContext]:
        """Traces (all, or those with these ids; the first `limit`) in the order of import.

        Evidence is what was retrieved for the trace, else for its problem, else what came with the
        row. Names are checked at once; texts are read page by page, so that a long run neither
        holds them all nor keeps a read transaction open while labels are written. A trace that is
        removed meanwhile is skipped.
        """
        if limit is not None and limit < 0:
            raise InputError(f"The limit {limit} is negative.")
        pages: Iterable[Sequence[int]]
        with self._connections.read() as connection:
            owner = dataset_pk(connection, dataset)
            if trace_ids is not None:
                keys = trace_keys(connection, owner, trace_ids)
                pages = chunks((key.pk for key in keys.values()), _PAGE)
        if trace_ids is None:
            query = select(TRACES.c.pk)
            size = _PAGE if limit is None else max(1, min(limit, _PAGE))
            rows = trace_pages(self._connections, owner, query, size=size)
            pages = ([row.pk for row in page] for page in rows)
        found = self._context_pages(pages, with_evidence=with_evidence)
        return found if limit is None else islice(found, limit)

    def _context_pages(
        self, pages: Iterable[Sequence[int]], *, with_evidence: bool
    ) -> Iterator[TraceInContext]:
        for page in pages:
            with self._connections.read() as connection:
                found = _context_page(connection, page, with_evidence=with_evidence)
            yield from found

    def columns(
        self, dataset: str, *, subset: str | None = None, size: int = 10 * CHUNK
    ) -> Iterator[TraceColumns]:
        """Ids and sizes of the traces (of one subset) in the order of import, `size` at a time.

        Texts are not read. `Labels.columns_of` has what a labeler says about such a part.
        """
        with self._connections.read() as connection:
            owner = dataset_pk(connection, dataset)
        trace = TRACES.c
        query = select(trace.pk, trace.id, PROBLEMS.c.id, trace.subset, trace.n_steps)
        query = query.add_columns(trace.final_answer, trace.final_answer_correct)
        query = query.join(PROBLEMS, trace.problem_pk == PROBLEMS.c.pk)
        if subset is not None:
            query = query.where(trace.subset == subset)
        for page in trace_pages(self._connections, owner, query, size=size):
            yield TraceColumns.of([row[:7] for row in page])

    def ids(self, dataset: str, *, subset: str | None = None) -> Iterator[str]:
        """Ids of the traces (of one subset) in the order of import, read a part at a time."""
        for page in self.columns(dataset, subset=subset):
            yield from page.ids

    def source_files(self, dataset: str) -> list[SourceFile]:
        """The files that the dataset was imported from, by name."""
        query = select(SOURCE_FILES).join(DATASETS, DATASETS.c.pk == SOURCE_FILES.c.dataset_pk)
        query = query.where(DATASETS.c.name == dataset).order_by(SOURCE_FILES.c.name)
        with self._connections.read() as connection:
            rows = connection.execute(query).all()
        return [
            SourceFile(row.name, row.sha256, row.format, dict(row.options or {})) for row in rows
        ]

    def problems(self, dataset: str, *, files: Collection[str] | None = None) -> Iterator[Problem]:
        """Problems in the order of import, read page by page as in `contexts`.

        Args:
            dataset: name of the dataset.
            files: only problems of traces of these files; None for all.
        """
        return map(PROBLEM.record, self._pages(select(PROBLEMS), self._problems(dataset, files)))

    def golds(self, dataset: str, *, files: Collection[str] | None = None) -> Iterator[Problem]:
        """As `problems`, with ids, options and gold answers only."""
        columns = PROBLEMS.c.pk, PROBLEMS.c.id, PROBLEMS.c.options, PROBLEMS.c.answer
        rows = self._pages(select(*columns), self._problems(dataset, files))
        return (Problem(row.id, "", tuple(row.options or ()), row.answer) for row in rows)

    def _problems(self, dataset: str, files: Collection[str] | None) -> list[int]:
        """Keys of the problems of a dataset (of these files), ascending."""
        with self._connections.read() as connection:
            owner = dataset_pk(connection, dataset)
            query = select(PROBLEMS.c.pk).where(PROBLEMS.c.dataset_pk == owner)
            if files is not None:
                here = select(SOURCE_FILES.c.pk, SOURCE_FILES.c.name)
                rows = connection.execute(here.where(SOURCE_FILES.c.dataset_pk == owner))
                mine = TRACES.c.source_file_pk.in_([row.pk for row in rows if row.name in files])
                query = select(TRACES.c.problem_pk).where(mine).distinct()
            return sorted(connection.scalars(query))

    def _pages(self, query: Select[Any], pks: Sequence[int]) -> Iterator[Row[Any]]:
        """The rows of a query over problems, by key, a page at a time."""
        for page in chunks(pks, _PAGE):
            here = query.where(PROBLEMS.c.pk.in_(page)).order_by(PROBLEMS.c.pk)
            with self._connections.read() as connection:
                rows = list(connection.execute(here))
            yield from rows

    def shared_problems(
        self, dataset: str, files: Collection[str], *, inside: bool
    ) -> Iterator[Problem]:
        """Problems with own ids that have a trace inside (or outside) these files, by base name.

        Ids that readers derive from the content are left out. Nothing for a new dataset.
        """
        named = SOURCE_FILES.c.name.in_(files)
        query = (
            select(PROBLEMS.c.pk)
            .join(DATASETS, PROBLEMS.c.dataset_pk == DATASETS.c.pk)
            .join(TRACES, TRACES.c.problem_pk == PROBLEMS.c.pk)
            .join(SOURCE_FILES, TRACES.c.source_file_pk == SOURCE_FILES.c.pk)
            .where(DATASETS.c.name == dataset, named if inside else ~named)
            .where(PROBLEMS.c.id.not_like(f"q-{'_' * 16}"))
        )
        with self._connections.read() as connection:
            pks = sorted(connection.scalars(query.distinct()))
        return map(PROBLEM.record, self._pages(select(PROBLEMS), pks))

    def has_images(self, dataset: str) -> bool:
        """Whether any problem of the dataset has an image."""
        with self._connections.read() as connection:
            query = select(PROBLEMS.c.images).where(
                PROBLEMS.c.dataset_pk == dataset_pk(connection, dataset)
            )
            return any(connection.scalars(query))

    def marked_problems(self, dataset: str) -> frozenset[str]:
        """Ids of problems that are marked `phi_removed: false`, or have a trace that is."""
        with self._connections.read() as connection:
            query = (
                select(PROBLEMS.c.id, PROBLEMS.c.meta, TRACES.c.meta)
                .join(TRACES, TRACES.c.problem_pk == PROBLEMS.c.pk)
                .where(PROBLEMS.c.dataset_pk == dataset_pk(connection, dataset))
            )
            rows = connection.execute(query)
            return frozenset(each for each, *metas in rows if any(map(may_hold_phi, metas)))


def _context_page(
    connection: Connection, pks: Sequence[int], *, with_evidence: bool
) -> list[TraceInContext]:
    query = select(TRACES).where(TRACES.c.pk.in_(pks)).order_by(*IMPORT_ORDER)
    rows = list(connection.execute(query))
    query = select(PROBLEMS).where(PROBLEMS.c.pk.in_({row.problem_pk for row in rows}))
    problem_rows = {row.pk: row for row in connection.execute(query)}
    problems = {pk: PROBLEM.record(row) for pk, row in problem_rows.items()}
    steps: dict[int, list[str]] = defaultdict(list)
    query = select(STEPS.c.trace_pk, STEPS.c.text).where(STEPS.c.trace_pk.in_(pks))
    for row in connection.execute(query.order_by(STEPS.c.trace_pk, STEPS.c.step_index)):
        steps[row.trace_pk].append(row.text)
    chosen = _chosen_sets(connection, rows, problem_rows) if with_evidence else {}
    sets = load_sets(connection, filter(None, chosen.values()))
    return [
        TraceInContext(
            problem := problems[row.problem_pk],
            TRACE.record(row, problem_id=problem.id, steps=tuple(steps[row.pk])),
            sets.get(chosen.get(row.pk) or 0, ()),
        )
        for row in rows
    ]


def _chosen_sets(
    connection: Connection, rows: Sequence[Row[Any]], problem_rows: dict[int, Row[Any]]
) -> dict[int, int | None]:
    """By trace, the key of the evidence that `Traces.contexts` documents."""
    query = select(TRACE_EVIDENCE.c.trace_pk, TRACE_EVIDENCE.c.evidence_set_pk)
    found = connection.execute(query.where(TRACE_EVIDENCE.c.trace_pk.in_([row.pk for row in rows])))
    by_trace = {row.trace_pk: row.evidence_set_pk for row in found}
    chosen: dict[int, int | None] = {}
    for row in rows:
        candidates = (
            by_trace.get(row.pk),
            problem_rows[row.problem_pk].evidence_set_pk,
            row.evidence_set_pk,
        )
        chosen[row.pk] = next((pk for pk in candidates if pk is not None), None)
    return chosen


def _changes(stored: Row[Any], columns: Columns) -> str:
    """How a file differs from its last import, for the user; empty if it does not."""
    changes = []
    if stored.sha256 != columns["sha256"]:
        changes.append("other content")
    if stored.format != columns["format"]:
        changes.append(f"the format {stored.format!r}")
    before, given = checks.without_origin(stored.options), checks.without_origin(columns["options"])
    if checks.canonical(before) != checks.canonical(given):
        changes.append(f"other options ({checks.differences(before, given)})")
    return ", ".join(changes)


def _put_source(connection: Connection, stored: Row[Any] | None, row: Columns) -> int:
    if stored is None:
        return insert_one(connection, SOURCE_FILES, row)
    connection.execute(update(SOURCE_FILES).where(SOURCE_FILES.c.pk == stored.pk).values(row))
    return int(stored.pk)


def _unchanged(connection: Connection, source_pk: int) -> ImportOutcome:
    query = select(func.count()).where(TRACES.c.source_file_pk == source_pk)
    rows = connection.execute(
        select(REJECTED_ROWS)
        .where(REJECTED_ROWS.c.source_file_pk == source_pk)
        .order_by(REJECTED_ROWS.c.position)
    )
    rejected = tuple(REJECTED_ROW.record(row) for row in rows)
    return ImportOutcome(0, int(connection.scalar(query) or 0), rejected)


def _put_rejected(
    connection: Connection, source_pk: int, rejected: tuple[RejectedRow, ...]
) -> None:
    connection.execute(delete(REJECTED_ROWS).where(REJECTED_ROWS.c.source_file_pk == source_pk))
    rows = [
        REJECTED_ROW.columns(row, "a rejected row")
        | {"source_file_pk": source_pk, "position": position}
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
        f"None of the {len(rejected)} rows of the file can be used. The first one: {first.reason}",
        where=f"{source.name}{line}",
        remedy="check the file and its format",
    )
