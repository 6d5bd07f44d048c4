"""Candidate traces that a policy wrote: a source of a dataset beside its files, grown problem by problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from storage import checks
from storage.codecs.problems import problem_columns, trace_columns
from storage.connection import Connections, insert_keyed, insert_rows, now
from storage.tables import DATASETS, PROBLEMS, REJECTED_ROWS, SOURCE_FILES, STEPS, TRACES
from traces import InputError, Problem, Trace

FORMAT = "sample"
"""What the source of sampled traces is called among the formats."""


@dataclass(frozen=True, slots=True)
class SampledCounts:
    """What is stored of one set of candidates."""

    problems: frozenset[str]
    """Problems that were sampled to the end."""
    traces: int
    """Candidates kept."""


class Sampled:
    """Candidates of datasets; part of `storage.Store`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def refuse_changed(self, dataset: str, problems: Iterable[Problem]) -> None:
        """Refuse problems that a dataset knows otherwise, before anything is paid for their candidates.

        Raises:
            InputError: a problem has other content than the stored one of its id.
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
        """Make a set of candidates known, its dataset too; say what is stored of it.

        Raises:
            InputError: the name is taken by a file, or by candidates of another configuration and
                `replace` is False (with it those are dropped, with all labels on them).
        """
        options = checks.plain_json(config, "The configuration of the sampling")
        with self._connections.write() as connection:
            owner = _dataset(connection, dataset)
            source = self._source(connection, owner, name)
            if source is None:
                row = {
                    "dataset_pk": owner,
                    "name": checks.name(name, "The name of the candidates"),
                    "sha256": checks.digest(options),
                    "format": FORMAT,
                    "options": options,
                    "imported_at": now(),
                }
                connection.execute(SOURCE_FILES.insert().values(row))
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
        kept: Sequence[Trace],
        refused: Sequence[tuple[str, str]],
    ) -> None:
        """Store all candidates of one problem and what was turned away, all or nothing.

        Raises:
            InputError: an id is taken, or the problem has other content than the stored one.
        """
        with self._connections.write() as connection:
            owner = _dataset(connection, dataset)
            source = self._source(connection, owner, name)
            if source is None:
                raise InputError(f"There are no candidates {name!r} in dataset {dataset!r}.")
            columns = problem_columns(problem)
            if kept:
                key = _problem(connection, owner, columns)
                _insert(connection, owner, source.pk, key, columns["digest"], kept)
            _refuse(connection, source.pk, name, refused)

    def _source(self, connection: Connection, owner: int, name: str) -> Any:
        query = select(SOURCE_FILES).where(
            SOURCE_FILES.c.dataset_pk == owner, SOURCE_FILES.c.name == name
        )
        return connection.execute(query).one_or_none()


def _dataset(connection: Connection, name: str) -> int:
    pk = connection.scalar(select(DATASETS.c.pk).where(DATASETS.c.name == name))
    if pk is None:
        row = {"name": checks.name(name, "The dataset name"), "created_at": now()}
        pk = connection.scalar(DATASETS.insert().values(row).returning(DATASETS.c.pk))
    return int(pk or 0)


def _counts(connection: Connection, source: int) -> SampledCounts:
    """A problem is done if anything of it is stored: its candidates are stored together."""
    kept = select(PROBLEMS.c.id, func.count()).join(TRACES, TRACES.c.problem_pk == PROBLEMS.c.pk)
    kept = kept.where(TRACES.c.source_file_pk == source).group_by(PROBLEMS.c.id)
    problems = {str(row[0]): int(row[1]) for row in connection.execute(kept)}
    refused = connection.scalars(
        select(REJECTED_ROWS.c.id).where(REJECTED_ROWS.c.source_file_pk == source)
    )
    # candidate ids are `<problem>:<name>:<number>`, and names hold no colon
    done = frozenset(problems) | {str(id_).rsplit(":", 2)[0] for id_ in refused}
    return SampledCounts(done, sum(problems.values()))


def _drop(connection: Connection, source: int, options: Any) -> None:
    connection.execute(delete(TRACES).where(TRACES.c.source_file_pk == source))
    connection.execute(delete(REJECTED_ROWS).where(REJECTED_ROWS.c.source_file_pk == source))
    values = {"options": options, "sha256": checks.digest(options), "imported_at": now()}
    connection.execute(update(SOURCE_FILES).where(SOURCE_FILES.c.pk == source).values(values))


def _problem(connection: Connection, owner: int, columns: dict[str, Any]) -> int:
    stored = connection.execute(
        select(PROBLEMS.c.pk, PROBLEMS.c.digest).where(
            PROBLEMS.c.dataset_pk == owner, PROBLEMS.c.id == columns["id"]
        )
    ).one_or_none()
    if stored is None:
        keys = insert_keyed(connection, PROBLEMS, [columns | {"dataset_pk": owner}], "id")
        return keys[columns["id"]]
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
    connection: Connection,
    owner: int,
    source: int,
    problem: int,
    digest: str,
    kept: Sequence[Trace],
) -> None:
    prepared = [trace_columns(trace, digest) for trace in kept]
    ids = [columns["id"] for columns, _ in prepared]
    query = select(TRACES.c.id).where(TRACES.c.dataset_pk == owner, TRACES.c.id.in_(ids))
    taken = connection.scalars(query).first()
    if taken is not None:
        raise InputError(f"The dataset has a trace {taken!r} already.", remedy="use another --name")
    last = select(func.max(TRACES.c.position)).where(TRACES.c.source_file_pk == source)
    first = int(connection.scalar(last) if connection.scalar(last) is not None else -1) + 1
    keys = {"dataset_pk": owner, "source_file_pk": source, "problem_pk": problem}
    rows = [
        columns | keys | {"position": first + number, "evidence_set_pk": None}
        for number, (columns, _) in enumerate(prepared)
    ]
    pks = insert_keyed(connection, TRACES, rows, "id")
    steps = [
        {"trace_pk": pks[columns["id"]], "step_index": index, "text": text}
        for columns, texts in prepared
        for index, text in enumerate(texts)
    ]
    insert_rows(connection, STEPS, steps)


def _refuse(
    connection: Connection, source: int, name: str, refused: Sequence[tuple[str, str]]
) -> None:
    query = select(func.count()).where(REJECTED_ROWS.c.source_file_pk == source)
    first = int(connection.scalar(query) or 0)
    rows = [
        {
            "source_file_pk": source,
            "position": first + number,
            "file": name,
            "line": None,
            "id": id_,
            "reason": reason,
            "imported": False,
        }
        for number, (id_, reason) in enumerate(refused)
    ]
    insert_rows(connection, REJECTED_ROWS, rows)
