"""What stands behind a judge's labels: its votes, its quotes by verdict, its prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import case, func, select

from storage import checks
from storage.codecs.votes import vote_columns, vote_from
from storage.connection import Connections, insert_missing, insert_rows, now
from storage.datasets import IMPORT_ORDER, dataset_pk
from storage.labels import labeler_row
from storage.tables import PROMPTS, QUOTES, STEP_LABELS, TRACE_LABELS, TRACES, VOTES
from traces import AbstentionReason, InputError, Verdict, Vote


@dataclass(frozen=True, slots=True)
class VoteTotals:
    """How a labeler's voting went."""

    traces: int
    """Traces with votes behind their label."""
    cast: int
    """Votes, escalations included."""
    escalated: int
    """Traces whose split was put to another model."""


class Votes:
    """Votes, quotes and prompts behind judges' labels; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def put(self, dataset: str, labeler: str, votes: Iterable[Vote]) -> int:
        """Store the votes behind labels that are stored already; return how many.

        A label that is put again drops its votes, so that label and votes belong in one
        transaction: labels first.

        Raises:
            InputError: there is no label for a vote's trace, or the vote does not fit the trace.
        """
        ready = list(votes)
        with self._connections.write() as connection:
            owner = labeler_row(connection, dataset_pk(connection, dataset), labeler)
            query = (
                select(TRACES.c.id, TRACES.c.n_steps, TRACE_LABELS.c.pk)
                .join(TRACE_LABELS, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
                .where(
                    TRACE_LABELS.c.labeler_pk == owner.pk,
                    TRACES.c.id.in_({vote.trace_id for vote in ready}),
                )
            )
            labelled = {row.id: row for row in connection.execute(query)}
            rows = []
            for vote in ready:
                label = labelled.get(vote.trace_id)
                if label is None:
                    raise InputError(
                        f"There is a vote on trace {vote.trace_id!r}, but no label of {labeler!r}."
                    )
                rows.append(vote_columns(vote, label.n_steps) | {"trace_label_pk": label.pk})
            insert_rows(connection, VOTES, rows)
        return len(rows)

    def load(self, dataset: str, labeler: str) -> dict[str, tuple[Vote, ...]]:
        """All votes of a labeler by trace id, in the order of import; an escalation comes last."""
        found: dict[str, list[Vote]] = defaultdict(list)
        with self._connections.read() as connection:
            owner = labeler_row(connection, dataset_pk(connection, dataset), labeler)
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
            owner = labeler_row(connection, dataset_pk(connection, dataset), labeler)
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
        """Verified, unverified and absent quotes of a labeler's steps, by what it says of the step.

        Returns:
            For `correct`, `incorrect`, `neutral` and `no_evidence`, each there also if no step is
            called so, the counts under `verified`, `unverified` and `absent`. Steps without a word
            for another reason are left out.
        """
        words = (*Verdict, AbstentionReason.NO_EVIDENCE)
        counts = {word.value: {"verified": 0, "unverified": 0, "absent": 0} for word in words}
        word = func.coalesce(STEP_LABELS.c.verdict, STEP_LABELS.c.abstention)
        with self._connections.read() as connection:
            owner = labeler_row(connection, dataset_pk(connection, dataset), labeler)
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

    def put_prompt(self, sha256: str, text: str) -> None:
        """Keep a prompt under its hash; the same one again changes nothing.

        Raises:
            InputError: the text cannot be stored.
        """
        row = {
            "sha256": sha256,
            "text": checks.plain_text(text, "The prompt"),
            "created_at": now(),
        }
        with self._connections.write() as connection:
            insert_missing(connection, PROMPTS, [row], "sha256")

    def prompt(self, sha256: str) -> str | None:
        """The prompt that a labeler's `prompt_sha256` stands for; None if it was never kept."""
        with self._connections.read() as connection:
            text = connection.scalar(select(PROMPTS.c.text).where(PROMPTS.c.sha256 == sha256))
        return None if text is None else str(text)
