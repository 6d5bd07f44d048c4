"""Evidence for problems and traces, as lists addressed by content (see `storage/tables.py`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, and_, bindparam, delete, exists, select, update

from storage import checks
from storage.columns import Columns
from storage.database import Connections
from storage.lookups import IMPORT_ORDER, dataset_pk, trace_keys
from storage.records import (
    EVIDENCE_PLACE,
    PASSAGE,
    PROBLEM,
    copied_passage_columns,
    evidence_columns,
)
from storage.rows import chunks, delete_where, insert_keyed, insert_missing, insert_rows
from storage.tables import (
    DATASETS,
    EVIDENCE,
    EVIDENCE_PASSAGES,
    EVIDENCE_SETS,
    EVIDENCE_STEPS,
    FAILURES,
    PROBLEMS,
    TRACE_EVIDENCE,
    TRACES,
)
from traces import Evidence, InputError, Problem

RETRIEVE_STAGE = "retrieve"
"""The stage of retrieval's failures; evidence for the problem clears them."""
_BATCH = 64


class StoredEvidence:
    """The evidence of datasets and how it was retrieved; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def declare(self, dataset: str, config: Mapping[str, Any], *, replace: bool = False) -> None:
        """Record how the dataset's evidence is retrieved.

        Raises:
            InputError: it was retrieved with another configuration; with `replace` that evidence
                is dropped instead.
        """
        wanted = checks.plain_json(config, "The configuration of retrieval")
        with self._connections.write() as connection:
            pk = dataset_pk(connection, dataset)
            stored = _config(connection, pk)
            if stored is not None and checks.canonical(stored) != checks.canonical(wanted):
                if not replace:
                    raise _other_config(dataset, stored, wanted)
                _drop_retrieved(connection, pk)
            connection.execute(
                update(DATASETS).where(DATASETS.c.pk == pk).values(retrieval_config=wanted)
            )

    def config(self, dataset: str) -> Mapping[str, Any] | None:
        """How the dataset's evidence was retrieved; None before the first retrieval."""
        with self._connections.read() as connection:
            return _config(connection, dataset_pk(connection, dataset))

    def put(self, dataset: str, items: Iterable[tuple[str, Sequence[Evidence]]]) -> int:
        """Store (problem id, evidence best first), replacing what was retrieved before.

        `items` may be a generator that does the work: every 64 problems are committed, so that an
        interrupted run keeps what it has.

        Returns:
            How many problems were stored.

        Raises:
            InputError: the dataset has no such problem, or a passage cannot be stored.
        """
        done = 0
        for batch in chunks(items, _BATCH):
            with self._connections.write() as connection:
                _put_for_problems(connection, dataset, dict(batch))
            done += len(batch)
        return done

    def put_for_traces(self, dataset: str, items: Iterable[tuple[str, Sequence[Evidence]]]) -> int:
        """As `put`, but by trace id; for its trace it takes precedence over the problem's."""
        done = 0
        for batch in chunks(items, _BATCH):
            with self._connections.write() as connection:
                _put_for_traces(connection, dataset, dict(batch))
            done += len(batch)
        return done

    def missing_problems(self, dataset: str) -> list[Problem]:
        """Problems for which retrieval has not run; an empty result counts as run."""
        with self._connections.read() as connection:
            query = select(PROBLEMS).where(
                PROBLEMS.c.dataset_pk == dataset_pk(connection, dataset),
                PROBLEMS.c.evidence_set_pk.is_(None),
            )
            return [
                PROBLEM.record(row) for row in connection.execute(query.order_by(PROBLEMS.c.pk))
            ]

    def missing_traces(self, dataset: str) -> list[str]:
        """Ids of the traces for which retrieval has not run, in the order of import."""
        with self._connections.read() as connection:
            query = select(TRACES.c.id).where(
                TRACES.c.dataset_pk == dataset_pk(connection, dataset),
                ~exists().where(TRACE_EVIDENCE.c.trace_pk == TRACES.c.pk),
            )
            return list(connection.scalars(query.order_by(*IMPORT_ORDER)))


def _config(connection: Connection, dataset: int) -> Mapping[str, Any] | None:
    query = select(DATASETS.c.retrieval_config).where(DATASETS.c.pk == dataset)
    stored: Mapping[str, Any] | None = connection.scalar(query)
    return stored


def _other_config(dataset: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> InputError:
    # Before there were other modes, every configuration meant the vectors alone.
    is_old = stored.get("retriever") == "dense" and "duplicates" not in stored
    return InputError(
        f"The evidence of dataset {dataset!r} was retrieved with another configuration:"
        f" {checks.differences(stored, wanted)}.",
        remedy="retrieve it again with --replace, or repeat the options it was retrieved with"
        + ": --mode dense --keep-duplicates" * is_old,
    )


def _drop_retrieved(connection: Connection, dataset: int) -> None:
    connection.execute(
        update(PROBLEMS).where(PROBLEMS.c.dataset_pk == dataset).values(evidence_set_pk=None)
    )
    traces = select(TRACES.c.pk).where(TRACES.c.dataset_pk == dataset)
    connection.execute(delete(TRACE_EVIDENCE).where(TRACE_EVIDENCE.c.trace_pk.in_(traces)))
    delete_orphans(connection)


def _put_for_problems(
    connection: Connection, dataset: str, items: Mapping[str, Sequence[Evidence]]
) -> None:
    owner = dataset_pk(connection, dataset)
    query = select(PROBLEMS.c.id, PROBLEMS.c.pk, PROBLEMS.c.evidence_set_pk).where(
        PROBLEMS.c.dataset_pk == owner, PROBLEMS.c.id.in_(items)
    )
    stored = {row.id: row for row in connection.execute(query)}
    unknown = [problem_id for problem_id in items if problem_id not in stored]
    if unknown:
        raise InputError(f"Dataset {dataset!r} has no problem {unknown[0]!r}.")
    sets = _store_lists(connection, items)
    connection.execute(
        update(PROBLEMS)
        .where(PROBLEMS.c.pk == bindparam("target"))
        .values(evidence_set_pk=bindparam("chosen")),
        [{"target": stored[problem_id].pk, "chosen": pk} for problem_id, pk in sets.items()],
    )
    _clear_failures(connection, owner, items)
    if any(row.evidence_set_pk is not None for row in stored.values()):
        delete_orphans(connection)


def _put_for_traces(
    connection: Connection, dataset: str, items: Mapping[str, Sequence[Evidence]]
) -> None:
    owner = dataset_pk(connection, dataset)
    keys = trace_keys(connection, owner, list(items))
    rows = [
        {"trace_pk": keys[trace_id].pk, "evidence_set_pk": pk}
        for trace_id, pk in _store_lists(connection, items).items()
    ]
    replaced = delete_where(
        connection, TRACE_EVIDENCE.c.trace_pk, [row["trace_pk"] for row in rows]
    )
    insert_rows(connection, TRACE_EVIDENCE, rows)
    _clear_failures(connection, owner, items)
    if replaced:
        delete_orphans(connection)


def _clear_failures(connection: Connection, dataset: int, ids: Iterable[str]) -> None:
    here = and_(FAILURES.c.dataset_pk == dataset, FAILURES.c.stage == RETRIEVE_STAGE)
    delete_where(connection, FAILURES.c.id, ids, here)


@dataclass(frozen=True, slots=True)
class SetColumns:
    """A checked list of evidence as columns, without the keys."""

    digest: str
    """Address of the list."""
    places: tuple[Columns, ...]
    """Its entries, with the digest of the copied passage under `passage`."""
    passages: tuple[Columns, ...]
    """The copied passages."""


def check_set(listed: Sequence[Evidence]) -> SetColumns:
    """The list as columns.

    Raises:
        InputError: a passage or a similarity cannot be stored.
    """
    passages = tuple(copied_passage_columns(evidence.passage) for evidence in listed)
    places = tuple(
        evidence_columns(evidence, position) | {"passage": passage["digest"]}
        for position, (evidence, passage) in enumerate(zip(listed, passages, strict=True))
    )
    return SetColumns(checks.digest(places), places, passages)


def store_sets(connection: Connection, sets: Iterable[SetColumns]) -> dict[str, int]:
    """Store checked lists and return their keys by digest; equal lists share one."""
    by_digest = {listed.digest: listed for listed in sets}
    keys = _keys(connection, EVIDENCE_SETS, by_digest)
    new = [listed for digest, listed in by_digest.items() if digest not in keys]
    if not new:
        return keys
    passages = {passage["digest"]: passage for listed in new for passage in listed.passages}
    insert_missing(connection, EVIDENCE_PASSAGES, list(passages.values()), key=["digest"])
    passage_keys = _keys(connection, EVIDENCE_PASSAGES, passages)
    rows = [{"digest": listed.digest} for listed in new]
    keys |= insert_keyed(connection, EVIDENCE_SETS, rows, by="digest")
    places = [
        place | {"evidence_set_pk": keys[listed.digest]}
        for listed in new
        for place in listed.places
    ]
    names = ("evidence_set_pk", "position", "rank", "similarity")
    insert_rows(
        connection,
        EVIDENCE,
        [
            {name: place[name] for name in names}
            | {"evidence_passage_pk": passage_keys[place["passage"]]}
            for place in places
        ],
    )
    steps = [
        {name: place[name] for name in names[:2]} | {"step_index": place["step"]}
        for place in places
        if "step" in place
    ]
    insert_rows(connection, EVIDENCE_STEPS, steps)
    return keys


def load_sets(connection: Connection, pks: Iterable[int]) -> dict[int, tuple[Evidence, ...]]:
    """The lists of evidence with these keys, best first."""
    found: dict[int, list[Evidence]] = defaultdict(list)
    columns = [column for column in EVIDENCE_PASSAGES.c if column.name not in ("pk", "digest")]
    position = (EVIDENCE.c.evidence_set_pk, EVIDENCE.c.position)
    query = (
        select(
            EVIDENCE.c.evidence_set_pk,
            EVIDENCE.c.rank,
            EVIDENCE.c.similarity,
            EVIDENCE_STEPS.c.step_index,
            *columns,
        )
        .join(EVIDENCE_PASSAGES, EVIDENCE.c.evidence_passage_pk == EVIDENCE_PASSAGES.c.pk)
        .outerjoin(
            EVIDENCE_STEPS,
            and_(
                EVIDENCE_STEPS.c.evidence_set_pk == EVIDENCE.c.evidence_set_pk,
                EVIDENCE_STEPS.c.position == EVIDENCE.c.position,
            ),
        )
        .order_by(*position)
    )
    for chunk in chunks(sorted(set(pks))):
        for row in connection.execute(query.where(EVIDENCE.c.evidence_set_pk.in_(chunk))):
            evidence = EVIDENCE_PLACE.record(row, passage=PASSAGE.record(row), step=row.step_index)
            found[row.evidence_set_pk].append(evidence)
    return {pk: tuple(listed) for pk, listed in found.items()}


def delete_orphans(connection: Connection) -> None:
    """Delete lists that no problem and no trace points at, and copies that are in no list."""
    connection.execute(
        delete(EVIDENCE_SETS).where(
            ~exists().where(PROBLEMS.c.evidence_set_pk == EVIDENCE_SETS.c.pk),
            ~exists().where(TRACES.c.evidence_set_pk == EVIDENCE_SETS.c.pk),
            ~exists().where(TRACE_EVIDENCE.c.evidence_set_pk == EVIDENCE_SETS.c.pk),
        )
    )
    connection.execute(
        delete(EVIDENCE_PASSAGES).where(
            ~exists().where(EVIDENCE.c.evidence_passage_pk == EVIDENCE_PASSAGES.c.pk)
        )
    )


def _store_lists(connection: Connection, items: Mapping[str, Sequence[Evidence]]) -> dict[str, int]:
    """Store the lists and return their keys by the same ids."""
    checked = {item: check_set(listed) for item, listed in items.items()}
    sets = store_sets(connection, checked.values())
    return {item: sets[listed.digest] for item, listed in checked.items()}


def _keys(connection: Connection, table: Table, digests: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in chunks(digests):
        query = select(table.c.digest, table.c.pk).where(table.c.digest.in_(chunk))
        found.update((row.digest, row.pk) for row in connection.execute(query))
    return found
