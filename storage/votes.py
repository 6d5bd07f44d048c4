"""The votes and quotes from which a judge's labels were made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import case, func, select

from storage.database import Connections
from storage.lookups import IMPORT_ORDER, find_labeler
from storage.records import vote_columns, vote_from
from storage.rows import insert_rows
from storage.tables import QUOTES, STEP_LABELS, TRACE_LABELS, TRACES, VOTES
from traces.errors import InputError
from traces.labels import AbstentionReason, Verdict, Vote


@dataclass(frozen=True, slots=True)
class VoteTotals:
    """How a labeler's voting went."""

    traces: int
    """Traces whose label was made from votes."""
    cast: int
    """Votes, including escalations."""
    escalated: int
    """Traces whose split vote was put to another model."""


class Votes:
    """Votes and quotes of judges' labels; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def put(self, dataset: str, labeler: str, votes: Iterable[Vote]) -> int:
        """Store the votes from which stored labels were made, and return how many.

        A label that is put again drops its votes: put both in one transaction, labels first.

        Raises:
            InputError: there is no label for a vote's trace, or the vote does not fit the trace.
        """
        ready = list(votes)
        with self._connections.write() as connection:
            owner = find_labeler(connection, dataset, labeler)
            query = (
                select(TRACES.c.id, TRACES.c.n_steps, TRACE_LABELS.c.pk)
                .join(TRACE_LABELS, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
                .where(
                    TRACE_LABELS.c.labeler_pk == owner.pk,
                    TRACES.c.id.in_({vote.trace_id for vote in ready}),
                )
            )
            labeled = {row.id: row for row in connection.execute(query)}
            rows = []
            for vote in ready:
                label = labeled.get(vote.trace_id)
                if label is None:
                    raise InputError(
                        f"There is a vote on trace {vote.trace_id!r}, but no label of {labeler!r}."
                    )
                rows.append(vote_columns(vote, label.n_steps) | {"trace_label_pk": label.pk})
            insert_rows(connection, VOTES, rows)
        return len(rows)

    def load(self, dataset: str, labeler: str) -> dict[str, tuple[Vote, ...]]:
        """All votes of a labeler by trace id, in import order; an escalation comes last."""
        found: dict[str, list[Vote]] = defaultdict(list)
        with self._connections.read() as connection:
            owner = find_labeler(connection, dataset, labeler)
            query = (
                select(VOTES, TRACES.c.id.label("trace_id"))
                .join(TRACE_LABELS, VOTES.c.trace_label_pk == TRACE_LABELS.c.pk)
                .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
                .where(TRACE_LABELS.c.labeler_pk == owner.pk)
                .order_by(*IMPORT_ORDER, VOTES.c.escalated, VOTES.c.vote_index)
            )
            for row in connection.execute(query):
                found[row.trace_id].append(vote_from(row))
        return {trace_id: tuple(votes) for trace_id, votes in found.items()}

    def totals(self, dataset: str, labeler: str) -> VoteTotals:
        """How a labeler's voting went."""
        escalated = case((VOTES.c.escalated, 1), else_=0)
        with self._connections.read() as connection:
            owner = find_labeler(connection, dataset, labeler)
            query = (
                select(
                    func.count(VOTES.c.trace_label_pk.distinct()).label("traces"),
                    func.count().label("cast"),
                    func.coalesce(func.sum(escalated), 0).label("escalated"),
                )
                .select_from(VOTES)
                .join(TRACE_LABELS, VOTES.c.trace_label_pk == TRACE_LABELS.c.pk)
                .where(TRACE_LABELS.c.labeler_pk == owner.pk)
            )
            row = connection.execute(query).one()
        return VoteTotals(row.traces, row.cast, row.escalated)

    def quotes(self, dataset: str, labeler: str) -> Mapping[str, dict[str, int]]:
        """Verified, unverified and absent quotes of a labeler's steps, by verdict.

        Returns:
            For each of `correct`, `incorrect`, `neutral` and `no_evidence` the counts under
            `verified`, `unverified` and `absent`. Steps that have no verdict for another reason
            are left out.
        """
        words = (*Verdict, AbstentionReason.NO_EVIDENCE)
        counts = {word.value: {"verified": 0, "unverified": 0, "absent": 0} for word in words}
        word = func.coalesce(STEP_LABELS.c.verdict, STEP_LABELS.c.abstention)
        with self._connections.read() as connection:
            owner = find_labeler(connection, dataset, labeler)
            query = (
                select(word.label("word"), QUOTES.c.verified, func.count().label("steps"))
                .select_from(STEP_LABELS)
                .join(TRACE_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
                .outerjoin(
                    QUOTES,
                    (QUOTES.c.trace_label_pk == STEP_LABELS.c.trace_label_pk)
                    & (QUOTES.c.step_index == STEP_LABELS.c.step_index),
                )
                .where(TRACE_LABELS.c.labeler_pk == owner.pk, word.in_(counts))
                .group_by(word, QUOTES.c.verified)
            )
            for row in connection.execute(query):
                kinds = {True: "verified", False: "unverified", None: "absent"}
                counts[row.word][kinds[row.verified]] = row.steps
        return counts
