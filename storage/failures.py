"""What could not be done: failures that were put, and traces on which a labeler abstained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, or_, select

from storage.codecs.ledger import failure_columns, failure_from
from storage.codecs.model_text import decode_optional
from storage.connection import delete_where_in, insert_rows, now
from storage.datasets import IMPORT_ORDER, dataset_pk
from storage.tables import DATASETS, FAILURES, LABELERS, STEP_LABELS, TRACE_LABELS, TRACES
from traces import Abstention, AbstentionReason, Failure, LabelerKind

_WORKING_KINDS = (LabelerKind.JUDGE.value, LabelerKind.MC.value, LabelerKind.PRM.value)
"""Kinds that were asked for a word: their abstention is a failure, a consensus rule's is a finding."""
_CALL_FAULTS = tuple(
    reason.value
    for reason in (
        AbstentionReason.BLOCKED,
        AbstentionReason.TRUNCATED,
        AbstentionReason.UNREADABLE,
        AbstentionReason.OVER_LENGTH,
        AbstentionReason.MODEL_ERROR,
    )
)
"""Reasons of a single step that say that a judge's call for it went wrong."""


def put(connection: Connection, dataset: str, failures: Iterable[Failure]) -> int:
    """Store failures, each in place of what the same stage said about the same item before."""
    owner = dataset_pk(connection, dataset)
    moment = now()
    rows = {
        (failure.id, failure.stage): failure_columns(failure)
        | {"dataset_pk": owner, "created_at": moment}
        for failure in failures
    }
    for stage in {stage for _, stage in rows}:
        ids = [item for item, other in rows if other == stage]
        here = (FAILURES.c.dataset_pk == owner, FAILURES.c.stage == stage)
        delete_where_in(connection, FAILURES, FAILURES.c.id, ids, *here)
    insert_rows(connection, FAILURES, list(rows.values()))
    return len(rows)


def load(connection: Connection, dataset: str | None) -> list[tuple[str, Failure]]:
    """Failures with their datasets, each item once per stage.

    Those that were put; traces on which a judge, MC or PRM labeler abstained; traces of which a
    judge's call for a single step went wrong; traces whose gold cannot be used.
    """
    gold = and_(
        LABELERS.c.kind == LabelerKind.GOLD.value,
        TRACE_LABELS.c.abstention == AbstentionReason.GOLD_UNUSABLE.value,
    )
    abstained = (
        select(
            DATASETS.c.name.label("dataset"),
            TRACES.c.id,
            LABELERS.c.name.label("stage"),
            TRACE_LABELS.c.abstention,
            TRACE_LABELS.c.abstention_detail,
        )
        .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
        .join(LABELERS, TRACE_LABELS.c.labeler_pk == LABELERS.c.pk)
        .join(DATASETS, LABELERS.c.dataset_pk == DATASETS.c.pk)
        .where(
            TRACE_LABELS.c.abstention.is_not(None),
            or_(LABELERS.c.kind.in_(_WORKING_KINDS), gold),
        )
        .order_by(DATASETS.c.pk, LABELERS.c.pk, *IMPORT_ORDER)
    )
    torn = _torn_traces()
    explicit: Select[Any] = (
        select(FAILURES, DATASETS.c.name.label("dataset"))
        .join(DATASETS, FAILURES.c.dataset_pk == DATASETS.c.pk)
        .order_by(DATASETS.c.pk, FAILURES.c.created_at, FAILURES.c.stage, FAILURES.c.id)
    )
    if dataset is not None:
        owner = dataset_pk(connection, dataset)
        abstained = abstained.where(DATASETS.c.pk == owner)
        torn = torn.where(DATASETS.c.pk == owner)
        explicit = explicit.where(DATASETS.c.pk == owner)
    found: dict[tuple[str, str, str], Failure] = {}
    for row in connection.execute(abstained):
        found[row.dataset, row.stage, row.id] = _failure(row)
    for row in connection.execute(torn):  # its first step; the label itself tells the others
        failure = _failure(row, f"step {row.step_index + 1}: ")
        found.setdefault((row.dataset, row.stage, row.id), failure)
    for put_row in connection.execute(explicit):
        found.setdefault((put_row.dataset, put_row.stage, put_row.id), failure_from(put_row))
    return [(name, failure) for (name, _, _), failure in found.items()]


def _torn_traces() -> Select[Any]:
    """Steps for which a judge's call went wrong, in traces that have a word."""
    return (
        select(
            DATASETS.c.name.label("dataset"),
            TRACES.c.id,
            LABELERS.c.name.label("stage"),
            STEP_LABELS.c.step_index,
            STEP_LABELS.c.abstention,
            STEP_LABELS.c.abstention_detail,
        )
        .join(TRACE_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
        .join(LABELERS, TRACE_LABELS.c.labeler_pk == LABELERS.c.pk)
        .join(DATASETS, LABELERS.c.dataset_pk == DATASETS.c.pk)
        .where(
            LABELERS.c.kind == LabelerKind.JUDGE.value, STEP_LABELS.c.abstention.in_(_CALL_FAULTS)
        )
        .order_by(DATASETS.c.pk, LABELERS.c.pk, *IMPORT_ORDER, STEP_LABELS.c.step_index)
    )


def _failure(row: Row[*tuple[Any, ...]], where: str = "") -> Failure:
    word = Abstention(
        AbstentionReason(row.abstention), where + (decode_optional(row.abstention_detail) or "")
    )
    return Failure(row.id, row.stage, word.reason, word.retryable, word.detail)
