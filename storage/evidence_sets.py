"""Lists of evidence, addressed by content, over copies of passages (why: `tables/corpora.py`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, and_, delete, exists, select

from storage import checks
from storage.codecs.evidence import Columns, copied_passage_columns, passage_from, place_columns
from storage.connection import chunks, insert_keyed, insert_missing, insert_rows
from storage.tables import (
    EVIDENCE,
    EVIDENCE_PASSAGES,
    EVIDENCE_SETS,
    EVIDENCE_STEPS,
    PROBLEMS,
    TRACE_EVIDENCE,
    TRACES,
)
from traces import Evidence


@dataclass(frozen=True, slots=True)
class SetColumns:
    """A list of evidence that was checked, as columns without the keys."""

    digest: str
    """Address of the list."""
    places: tuple[Columns, ...]
    """Its places, with the digest of the copied passage under `passage`."""
    passages: tuple[Columns, ...]
    """The copied passages."""


def check_set(listed: Sequence[Evidence]) -> SetColumns:
    """The list as columns.

    Raises:
        InputError: a passage or a similarity cannot be stored.
    """
    passages = tuple(copied_passage_columns(evidence.passage) for evidence in listed)
    places = tuple(
        place_columns(evidence, position) | {"passage": passage["digest"]}
        for position, (evidence, passage) in enumerate(zip(listed, passages, strict=True))
    )
    return SetColumns(checks.digest(places), places, passages)


def store_sets(connection: Connection, sets: Iterable[SetColumns]) -> dict[str, int]:
    """Store checked lists of evidence and give their keys by digest; equal lists share one."""
    by_digest = {listed.digest: listed for listed in sets}
    keys = _keys(connection, EVIDENCE_SETS, by_digest)
    new = [listed for digest, listed in by_digest.items() if digest not in keys]
    if not new:
        return keys
    passages = {passage["digest"]: passage for listed in new for passage in listed.passages}
    insert_missing(connection, EVIDENCE_PASSAGES, list(passages.values()), "digest")
    passage_keys = _keys(connection, EVIDENCE_PASSAGES, passages)
    rows = [{"digest": listed.digest} for listed in new]
    keys |= insert_keyed(connection, EVIDENCE_SETS, rows, "digest")
    places = [
        {
            "evidence_set_pk": keys[listed.digest],
            "evidence_passage_pk": passage_keys[place["passage"]],
            "position": place["position"],
            "rank": place["rank"],
            "similarity": place["similarity"],
        }
        for listed in new
        for place in listed.places
    ]
    insert_rows(connection, EVIDENCE, places)
    steps = [
        {
            "evidence_set_pk": keys[listed.digest],
            "position": place["position"],
            "step_index": place["step"],
        }
        for listed in new
        for place in listed.places
        if "step" in place
    ]
    insert_rows(connection, EVIDENCE_STEPS, steps)
    return keys


def load_sets(connection: Connection, pks: Iterable[int]) -> dict[int, tuple[Evidence, ...]]:
    """The lists of evidence with these keys, best first."""
    found: dict[int, list[Evidence]] = defaultdict(list)
    columns = [column for column in EVIDENCE_PASSAGES.c if column.name not in ("pk", "digest")]
    for chunk in chunks(sorted(set(pks))):
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
            .where(EVIDENCE.c.evidence_set_pk.in_(chunk))
            .order_by(EVIDENCE.c.evidence_set_pk, EVIDENCE.c.position)
        )
        for row in connection.execute(query):
            evidence = Evidence(passage_from(row), row.similarity, row.rank, row.step_index)
            found[row.evidence_set_pk].append(evidence)
    return {pk: tuple(listed) for pk, listed in found.items()}


def delete_orphans(connection: Connection) -> None:
    """Delete lists that no problem and no trace points at, and copies that no list holds."""
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


def _keys(connection: Connection, table: Table, digests: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in chunks(digests):
        query = select(table.c.digest, table.c.pk).where(table.c.digest.in_(chunk))
        found.update((row.digest, row.pk) for row in connection.execute(query))
    return found
