"""Labelers: declared once with their configuration, summed up, removed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, func, or_, select, update

from storage import checks
from storage.bulk import now
from storage.codecs.labels import labeler_columns, labeler_from
from storage.datasets import dataset_pk
from storage.outcomes import LabelerSummary
from storage.tables import DATASETS, LABELERS, STEP_LABELS, TRACE_LABELS
from traces.errors import InputError
from traces.labels import Labeler, LabelerKind


def labeler_row(connection: Connection, dataset: int, name: str) -> Row[Any]:
    """The row of a labeler.

    Raises:
        InputError: the dataset has none of that name.
    """
    found = _find(connection, dataset, name)
    if found is None:
        names = connection.scalars(select(LABELERS.c.name).where(LABELERS.c.dataset_pk == dataset))
        raise checks.known("labeler", name, names, make="run a labelling command first")
    return found


_HUMAN = (LabelerKind.GOLD, LabelerKind.EXPERT)
DECLARE_REMEDY = "give this one another name, or drop the old labels with --replace"


def declare(
    connection: Connection,
    dataset: int,
    labeler: Labeler,
    *,
    replace: bool = False,
    remedy: str = DECLARE_REMEDY,
) -> int:
    """Make a labeler known and give its key; the same one again changes nothing.

    With `replace`, another configuration under the same name drops the old one with its labels.

    Raises:
        InputError: the name is taken by another kind, model or configuration and `replace` is False,
            or it is the name of human annotation and this is none.
    """
    if labeler.name == "gold" and labeler.kind not in _HUMAN:
        raise InputError(
            f'Only human annotation is called "gold"; this is a labeler of kind {labeler.kind.value}.',
            remedy="give it another name",
        )
    columns = labeler_columns(labeler)
    found = _find(connection, dataset, labeler.name)
    if found is not None:
        stored = _identity(found.kind, found.model, found.config)
        wanted = _identity(columns["kind"], columns["model"], columns["config"])
        if checks.canonical(stored) == checks.canonical(wanted):
            add_resolved_model(connection, int(found.pk), labeler.resolved_model)
            return int(found.pk)
        if not replace:
            raise InputError(
                f"The labeler {labeler.name!r} was made with another configuration:"
                f" {checks.differences(stored, wanted)}.",
                remedy=remedy,
            )
        connection.execute(delete(LABELERS).where(LABELERS.c.pk == found.pk))
    row = columns | {"dataset_pk": dataset, "created_at": now()}
    pk = connection.scalar(LABELERS.insert().values(row).returning(LABELERS.c.pk))
    return int(pk or 0)


def load(connection: Connection, dataset: str, name: str) -> Labeler:
    """The labeler of that name."""
    return labeler_from(labeler_row(connection, dataset_pk(connection, dataset), name))


def add_resolved_model(connection: Connection, labeler: int, resolved_model: str | None) -> None:
    """Note the model version that answered; if several did, all of them stay visible."""
    if not resolved_model:
        return
    stored = connection.scalar(select(LABELERS.c.resolved_model).where(LABELERS.c.pk == labeler))
    versions = {*(stored or "").split(", "), *resolved_model.split(", ")} - {""}
    joined = ", ".join(sorted(versions))
    if joined != stored:
        connection.execute(
            update(LABELERS).where(LABELERS.c.pk == labeler).values(resolved_model=joined)
        )


def summaries(connection: Connection, dataset: str | None) -> list[LabelerSummary]:
    """How much each labeler has said, in the order in which they were declared."""
    labels = (
        select(
            TRACE_LABELS.c.labeler_pk,
            func.count().label("traces"),
            func.count(TRACE_LABELS.c.abstention).label("abstained"),
        )
        .group_by(TRACE_LABELS.c.labeler_pk)
        .subquery()
    )
    steps = (
        select(TRACE_LABELS.c.labeler_pk, func.count().label("steps"))
        .join(STEP_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .where(or_(STEP_LABELS.c.verdict.is_not(None), STEP_LABELS.c.score.is_not(None)))
        .group_by(TRACE_LABELS.c.labeler_pk)
        .subquery()
    )
    query = (
        select(
            DATASETS.c.name.label("dataset"),
            LABELERS,
            func.coalesce(labels.c.traces, 0).label("traces"),
            func.coalesce(labels.c.abstained, 0).label("abstained"),
            func.coalesce(steps.c.steps, 0).label("steps"),
        )
        .join(DATASETS, LABELERS.c.dataset_pk == DATASETS.c.pk)
        .outerjoin(labels, labels.c.labeler_pk == LABELERS.c.pk)
        .outerjoin(steps, steps.c.labeler_pk == LABELERS.c.pk)
        .order_by(DATASETS.c.pk, LABELERS.c.pk)
    )
    if dataset is not None:
        query = query.where(DATASETS.c.pk == dataset_pk(connection, dataset))
    return [
        LabelerSummary(row.dataset, labeler_from(row), row.traces, row.steps, row.abstained)
        for row in connection.execute(query)
    ]


def remove(connection: Connection, dataset: str, name: str) -> None:
    """Remove a labeler with all its labels."""
    found = labeler_row(connection, dataset_pk(connection, dataset), name)
    connection.execute(delete(LABELERS).where(LABELERS.c.pk == found.pk))


def _identity(kind: str, model: str | None, config: dict[str, Any]) -> dict[str, Any]:
    """What makes a labeler the same one; an option that is called like a field keeps apart from it."""
    fields = {"kind": kind, "model": model}
    return fields | {f"{key} " if key in fields else key: config[key] for key in config}


def _find(connection: Connection, dataset: int, name: str) -> Row[Any] | None:
    query = select(LABELERS).where(LABELERS.c.dataset_pk == dataset, LABELERS.c.name == name)
    return connection.execute(query).one_or_none()
