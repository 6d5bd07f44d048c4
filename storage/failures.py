"""Failures: those that stages stored, and the abstentions of labelers that count as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, or_, select

from storage.columns import decode_optional
from storage.database import Connections
from storage.lookups import IMPORT_ORDER, dataset_pk
from storage.records import FAILURE
from storage.rows import delete_where, insert_rows, now
from storage.steps import MARKS, unpack_steps
from storage.tables import (
    DATASETS,
    FAILURES,
    LABELERS,
    STEP_LABELS,
    STEP_NOTES,
    TRACE_LABELS,
    TRACES,
)
from traces import Abstention, AbstentionReason, Failure, LabelerKind

_WORKING_KINDS = (LabelerKind.JUDGE.value, LabelerKind.MC.value, LabelerKind.PRM.value)
"""Kinds whose abstention is a failure; a consensus rule's is a finding."""
_CALL_FAULTS = (
    AbstentionReason.BLOCKED,
    AbstentionReason.TRUNCATED,
    AbstentionReason.UNREADABLE,
    AbstentionReason.OVER_LENGTH,
    AbstentionReason.MODEL_ERROR,
)
"""Reasons of a single step that mean that a judge's call for it went wrong."""


class Failures:
    """What could not be done; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def put(self, dataset: str, failures: Iterable[Failure]) -> int:
        """Store failures, each replacing what the same stage reported about the same item.

        Evidence or a label for the item clears its failure.

        Returns:
            How many failures were stored.
        """
        ready = {(failure.id, failure.stage): failure for failure in failures}
        with self._connections.write() as connection:
            common = {"dataset_pk": dataset_pk(connection, dataset), "created_at": now()}
            rows = [FAILURE.columns(each, "a failure") | common for each in ready.values()]
            for stage in {stage for _, stage in ready}:
                ids = [item for item, other in ready if other == stage]
                here = and_(
                    FAILURES.c.dataset_pk == common["dataset_pk"], FAILURES.c.stage == stage
                )
                delete_where(connection, FAILURES.c.id, ids, here)
            insert_rows(connection, FAILURES, rows)
        return len(rows)

    def load(self, dataset: str | None = None) -> list[tuple[str, Failure]]:
        """Failures of one dataset or of all with their datasets, each item once per stage.

        Covers stored failures; traces on which a judge, MC or PRM labeler abstained; traces where a
        judge's call for a single step went wrong; traces whose gold cannot be used.
        """
        stored: Select[Any] = (
            select(FAILURES, DATASETS.c.name.label("dataset"))
            .join(DATASETS, FAILURES.c.dataset_pk == DATASETS.c.pk)
            .order_by(DATASETS.c.pk, FAILURES.c.created_at, FAILURES.c.stage, FAILURES.c.id)
        )
        found: dict[tuple[str, str, str], Failure] = {}
        with self._connections.read() as connection:
            here: list[ColumnElement[bool]] = []
            if dataset is not None:
                here.append(DATASETS.c.pk == dataset_pk(connection, dataset))
            for row in connection.execute(_abstained_traces().where(*here)):
                reason = AbstentionReason(row.abstention)
                abstention = Abstention(reason, decode_optional(row.abstention_detail) or "")
                found[row.dataset, row.stage, row.id] = _failure(row, abstention)
            for row in connection.execute(_failed_steps().where(*here)):
                found.setdefault((row.dataset, row.stage, row.id), _failed_step(row))
            for row in connection.execute(stored.where(*here)):
                found.setdefault((row.dataset, row.stage, row.id), FAILURE.record(row))
        return [(name, failure) for (name, _, _), failure in found.items()]


def _abstained_traces() -> Select[Any]:
    """Traces on which a labeler that should have worked abstained, or whose gold is unusable."""
    gold = and_(
        LABELERS.c.kind == LabelerKind.GOLD.value,
        TRACE_LABELS.c.abstention == AbstentionReason.GOLD_UNUSABLE.value,
    )
    return (
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
            TRACE_LABELS.c.abstention.is_not(None), or_(LABELERS.c.kind.in_(_WORKING_KINDS), gold)
        )
        .order_by(DATASETS.c.pk, LABELERS.c.pk, *IMPORT_ORDER)
    )


def _failed_steps() -> Select[Any]:
    """Steps for which a judge's call went wrong, in traces that have a label."""
    return (
        select(
            DATASETS.c.name.label("dataset"),
            TRACES.c.id,
            LABELERS.c.name.label("stage"),
            STEP_LABELS.c.marks,
            STEP_LABELS.c.scores,
            STEP_NOTES.c.notes,
        )
        .join(TRACE_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
        .join(LABELERS, TRACE_LABELS.c.labeler_pk == LABELERS.c.pk)
        .join(DATASETS, LABELERS.c.dataset_pk == DATASETS.c.pk)
        .outerjoin(STEP_NOTES, STEP_NOTES.c.trace_label_pk == STEP_LABELS.c.trace_label_pk)
        .where(
            LABELERS.c.kind == LabelerKind.JUDGE.value,
            or_(*(STEP_LABELS.c.marks.contains(MARKS[reason]) for reason in _CALL_FAULTS)),
        )
        .order_by(DATASETS.c.pk, LABELERS.c.pk, *IMPORT_ORDER)
    )


def _failed_step(row: Row[Any]) -> Failure:
    """The first such step stands for the trace; the label has the others."""
    steps = unpack_steps(row.marks, row.scores, row.notes)
    return next(
        _failure(row, each.abstention, f"step {index}: ")
        for index, each in enumerate(steps, 1)
        if each.abstention is not None and each.abstention.reason in _CALL_FAULTS
    )


def _failure(row: Row[Any], abstention: Abstention, where: str = "") -> Failure:
    return Failure(
        id=row.id,
        stage=row.stage,
        reason=abstention.reason,
        retryable=abstention.retryable,
        detail=where + abstention.detail,
    )
