"""What a table of all traces needs: labels as they arrive, and the rows of one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, or_, select

from storage.database import Connections
from storage.records import FAILURE, LABELER, REJECTED_ROW
from storage.steps import LabelArrays
from storage.tables import (
    DATASETS,
    FAILURES,
    LABELERS,
    PROBLEMS,
    REJECTED_ROWS,
    SOURCE_FILES,
    STEP_LABELS,
    STEPS,
    TRACE_LABELS,
    TRACES,
)
from storage.trace_labels import among
from traces import Failure, Labeler, RejectedRow, may_hold_phi

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SNIPPET = 240
"""Characters of a question that a row has."""


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """Some labels in the order in which they were stored."""

    last: int
    """Key of the last one."""
    labelers: NDArray[np.int64]
    """Key of the labeler of each, shape (n,)."""
    labels: LabelArrays
    """The labels, without ids of traces."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A trace as a row of a table."""

    key: int
    """Key of the trace in this database."""
    id: str
    problem_id: str
    subset: str
    generator: str | None
    n_steps: int
    question: str | None
    """The first characters of the question; None if it may name a patient."""


@dataclass(frozen=True, slots=True)
class StoredTraces:
    """Which traces a dataset has: other ones have another size, key or stamp."""

    dataset: str
    rows: int
    last: int
    """The largest key; 0 without traces."""
    stamp: str
    """When it was made and a file last imported: keys of removed traces are used again."""


@dataclass(frozen=True, slots=True)
class StoredLabeler:
    """A labeler and how many labels it has."""

    dataset: str
    labeler: Labeler
    rows: int
    last: int
    """The largest key of a label; 0 without labels."""


class Browsing:
    """Reads for pages that show all traces; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._watch: Connection | None = None

    def version(self) -> int | None:
        """A number that changes with every commit of another connection; None if unknown.

        Used by one thread.
        """
        if self._connections.engine.dialect.name != "sqlite":
            return None
        # SQLite counts for each connection, so that this one has to be kept.
        if self._watch is None:
            self._watch = self._connections.engine.connect()
        raw = self._watch.connection.driver_connection
        return None if raw is None else int(raw.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Let go of the connection of `version`."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def traces(self) -> list[StoredTraces]:
        """The size of every dataset, in the order of import."""
        count, last = func.count(TRACES.c.pk), func.coalesce(func.max(TRACES.c.pk), 0)
        file = SOURCE_FILES.c
        imported = select(func.max(file.imported_at)).where(file.dataset_pk == DATASETS.c.pk)
        stamp = DATASETS.c.created_at + func.coalesce(imported.scalar_subquery(), "")
        query = (
            select(DATASETS.c.name, count, last, stamp)
            .outerjoin(TRACES, TRACES.c.dataset_pk == DATASETS.c.pk)
            .group_by(DATASETS.c.pk, DATASETS.c.name, DATASETS.c.created_at)
            .order_by(DATASETS.c.pk)
        )
        with self._connections.read() as connection:
            return [StoredTraces(*row) for row in connection.execute(query)]

    def labelers(self) -> dict[int, StoredLabeler]:
        """Every labeler by its key, in the order of declaration."""
        label = TRACE_LABELS.c
        counted = (
            select(label.labeler_pk, func.count().label("rows"), func.max(label.pk).label("last"))
            .group_by(label.labeler_pk)
            .subquery()
        )
        rows, last = func.coalesce(counted.c.rows, 0), func.coalesce(counted.c.last, 0)
        query = (
            select(LABELERS, DATASETS.c.name.label("dataset"))
            .add_columns(rows.label("n_rows"), last.label("last_row"))
            .join(DATASETS, LABELERS.c.dataset_pk == DATASETS.c.pk)
            .outerjoin(counted, counted.c.labeler_pk == LABELERS.c.pk)
            .order_by(LABELERS.c.pk)
        )
        with self._connections.read() as connection:
            return {
                row.pk: StoredLabeler(row.dataset, LABELER.record(row), row.n_rows, row.last_row)
                for row in connection.execute(query)
            }

    def made_at(self, key: int) -> str | None:
        """When the label with this key was stored; None if there is none."""
        query = select(TRACE_LABELS.c.created_at).where(TRACE_LABELS.c.pk == key)
        with self._connections.read() as connection:
            return connection.scalar(query)

    def labels_after(
        self, key: int, *, until: int, labeler: int | None = None, limit: int = 20_000
    ) -> StoredLabels | None:
        """Labels (of one labeler) with a larger key, in the order of their keys.

        Args:
            key: the key.
            until: the largest key that is read.
            labeler: key of the labeler; None for all.
            limit: labels at a time.

        Returns:
            The first of them; None if there are none.
        """
        label, steps = TRACE_LABELS.c, STEP_LABELS.c
        query = (
            select(label.pk, label.labeler_pk, label.trace_pk, label.abstention)
            .add_columns(label.first_error_given, label.first_error_index)
            .add_columns(steps.marks, steps.scores)
            .outerjoin_from(TRACE_LABELS, STEP_LABELS, steps.trace_label_pk == label.pk)
            .where(label.pk > key, label.pk <= until)
            .order_by(label.pk)
            .limit(limit)
        )
        if labeler is not None:
            query = query.where(label.labeler_pk == labeler)
        with self._connections.read() as connection:
            rows = connection.execute(query).all()
        if not rows:
            return None
        import numpy as np

        arrays = LabelArrays.of([(row[2], "", *row[3:]) for row in rows])
        return StoredLabels(rows[-1][0], np.array([row[1] for row in rows], np.int64), arrays)

    def rows(self, keys: Sequence[int]) -> list[TraceRow]:
        """The traces with these keys, in their order; one that was removed is left out."""
        trace, problem = TRACES.c, PROBLEMS.c
        query = (
            select(trace.pk.label("key"), trace.id, problem.id.label("problem_id"), trace.subset)
            .add_columns(trace.generator, trace.n_steps, problem.meta, trace.meta.label("own"))
            .add_columns(func.substr(problem.question, 1, SNIPPET + 1).label("question"))
            .join(PROBLEMS, trace.problem_pk == problem.pk)
            .where(trace.pk.in_(keys))
        )
        with self._connections.read() as connection:
            rows = connection.execute(query).all()
        found = {
            row.key: TraceRow(
                key=row.key,
                id=row.id,
                problem_id=row.problem_id,
                subset=row.subset,
                generator=row.generator,
                n_steps=row.n_steps,
                question=None if _protected(row.meta, row.own) else row.question,
            )
            for row in rows
        }
        return [found[key] for key in keys if key in found]

    def containing(self, keys: Sequence[int], text: str) -> set[int]:
        """Those of these traces whose id, question, answer or steps contain a text.

        Upper and lower case of ASCII letters are the same.
        """
        if not keys:
            return set()
        trace, problem = TRACES.c, PROBLEMS.c

        def holds(*columns: Any) -> Any:
            return or_(*(column.icontains(text, autoescape=True) for column in columns))

        whole = (
            select(trace.pk)
            .join(PROBLEMS, trace.problem_pk == problem.pk)
            .where(among(trace.pk, keys), holds(trace.id, problem.question, trace.final_answer))
        )
        steps = select(STEPS.c.trace_pk).where(among(STEPS.c.trace_pk, keys), holds(STEPS.c.text))
        with self._connections.read() as connection:
            found = {*connection.scalars(whole), *connection.scalars(steps)}
        return found & set(keys)

    def rejected(self, limit: int) -> list[tuple[str, RejectedRow]]:
        """The first rejected rows of files, with their datasets."""
        query = (
            select(REJECTED_ROWS, DATASETS.c.name.label("dataset"))
            .join(SOURCE_FILES, REJECTED_ROWS.c.source_file_pk == SOURCE_FILES.c.pk)
            .join(DATASETS, SOURCE_FILES.c.dataset_pk == DATASETS.c.pk)
            .where(REJECTED_ROWS.c.imported.is_(False))
            .order_by(DATASETS.c.pk, SOURCE_FILES.c.pk, REJECTED_ROWS.c.position)
            .limit(limit)
        )
        with self._connections.read() as connection:
            rows = connection.execute(query).all()
        return [(row.dataset, REJECTED_ROW.record(row)) for row in rows]

    def failures(self, limit: int) -> list[tuple[str, Failure]]:
        """The last failures that are no abstentions among the labels, with their datasets."""
        query = (
            select(FAILURES, DATASETS.c.name.label("dataset"))
            .join(DATASETS, FAILURES.c.dataset_pk == DATASETS.c.pk)
            .order_by(FAILURES.c.created_at.desc(), FAILURES.c.id)
            .limit(limit)
        )
        with self._connections.read() as connection:
            rows = connection.execute(query).all()
        return [(row.dataset, FAILURE.record(row)) for row in rows]

    def problem(self, dataset: str, problem: str) -> tuple[Sequence[str], bool] | None:
        """The image paths of a problem, and whether it may name a patient; None if unknown."""
        query = (
            select(PROBLEMS.c.images, PROBLEMS.c.meta, TRACES.c.meta)
            .join(DATASETS, PROBLEMS.c.dataset_pk == DATASETS.c.pk)
            .outerjoin(TRACES, TRACES.c.problem_pk == PROBLEMS.c.pk)
            .where(DATASETS.c.name == dataset, PROBLEMS.c.id == problem)
        )
        with self._connections.read() as connection:
            rows = connection.execute(query).all()
        if not rows:
            return None
        return tuple(rows[0][0] or ()), any(_protected(*metas) for _, *metas in rows)


def _protected(*metas: Any) -> bool:
    """Whether any of these says that a text may name a patient."""
    return any(may_hold_phi(meta or {}) for meta in metas)
