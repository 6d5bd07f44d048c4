"""Candidate traces that a policy wrote: a source of traces that grows problem by problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from storage import checks
from storage.columns import Columns
from storage.database import Connections
from storage.lookups import ensure_dataset
from storage.records import REJECTED_ROW, problem_columns, step_rows, trace_columns
from storage.rows import insert_keyed, insert_one, insert_rows, now
from storage.tables import DATASETS, PROBLEMS, REJECTED_ROWS, SOURCE_FILES, STEPS, TRACES
from traces import InputError, Problem, RejectedRow, Trace

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
    kept = select(PROBLEMS.c.id, func.count()).join(TRACES, TRACES.c.problem_pk == PROBLEMS.c.pk)
    kept = kept.where(TRACES.c.source_file_pk == source).group_by(PROBLEMS.c.id)
    problems = {str(row[0]): int(row[1]) for row in connection.execute(kept)}
    refused = connection.scalars(
        select(REJECTED_ROWS.c.id).where(REJECTED_ROWS.c.source_file_pk == source)
    )
    # Candidate ids are `<problem>:<name>:<number>`, and names have no colon.
    done = frozenset(problems) | {str(id_).rsplit(":", 2)[0] for id_ in refused}
    return SampledCounts(done, sum(problems.values()))


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
    pks = insert_keyed(connection, TRACES, rows, by=["id"])
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
