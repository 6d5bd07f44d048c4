"""Traces that a labeler saw with fewer documents than they have, because not all of them fit."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from storage.connection import Connections
from storage.datasets import IMPORT_ORDER, dataset_pk
from storage.tables import DATASETS, LABELERS, TRACE_LABELS, TRACES

_DROPPED, _KEPT, _TOKENS = "documents_dropped", "documents", "tokens"
"""Keys of a label's meta."""


@dataclass(frozen=True, slots=True)
class ShortenedTrace:
    """A trace that was labelled, but not with all its documents."""

    dataset: str
    """Its dataset."""
    labeler: str
    """Who labelled it."""
    id: str
    """The trace."""
    dropped: int
    """Documents that were left out, at least 1."""
    kept: int
    """Documents that were not."""
    tokens: int | None
    """Tokens of the whole with those kept; None if the labeler did not say."""


class Shortened:
    """What was shortened, from the labels themselves."""

    def __init__(self, connections: Connections) -> None:
        """Read through these connections."""
        self._connections = connections

    def load(self, dataset: str | None = None, labeler: str | None = None) -> list[ShortenedTrace]:
        """Every such trace, by dataset, labeler and order of import.

        Args:
            dataset: of one dataset; None for all.
            labeler: of one labeler; None for all.

        Raises:
            InputError: there is no such dataset.
        """
        meta = TRACE_LABELS.c.meta
        query = (
            select(
                DATASETS.c.name.label("dataset"),
                LABELERS.c.name.label("labeler"),
                TRACES.c.id,
                meta[_DROPPED].as_integer().label("dropped"),
                meta[_KEPT].as_integer().label("kept"),
                meta[_TOKENS].as_integer().label("tokens"),
            )
            .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
            .join(LABELERS, TRACE_LABELS.c.labeler_pk == LABELERS.c.pk)
            .join(DATASETS, LABELERS.c.dataset_pk == DATASETS.c.pk)
            .where(meta[_DROPPED].as_integer() > 0)
            .order_by(DATASETS.c.pk, LABELERS.c.pk, *IMPORT_ORDER)
        )
        with self._connections.read() as connection:
            if dataset is not None:
                query = query.where(DATASETS.c.pk == dataset_pk(connection, dataset))
            if labeler is not None:
                query = query.where(LABELERS.c.name == labeler)
            return [
                ShortenedTrace(
                    row.dataset, row.labeler, row.id, row.dropped, row.kept or 0, row.tokens
                )
                for row in connection.execute(query)
            ]
