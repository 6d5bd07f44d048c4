"""What an index refuses: rows and queries that do not fit it, ids that are there twice, strangers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.embedding import Vectors
from retrieval.index_files import IndexManifest
from traces.errors import IndexMismatch, InputError

_UNIT_TOLERANCE = 1e-3


def check_rows(ids: NDArray[np.int64], rows: Vectors, dimension: int) -> None:
    """Refuse rows that are not finite unit vectors, one for each id.

    Raises:
        InputError: other numbers of ids and rows, an id below 0, or a row of another length.
    """
    if rows.shape != (len(ids), dimension):
        raise InputError(
            f"{len(ids)} ids and vectors of shape {rows.shape} do not belong together."
        )
    if len(ids) and ids.min() < 0:
        raise InputError(f"A passage id is below 0: {ids.min()}.")
    norms = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= _UNIT_TOLERANCE))
    if wrong.size:
        raise InputError(
            f"The vector of passage {ids[wrong[0]]} has length {norms[wrong[0]]:.4g}, not 1.",
            remedy="use an encoder that gives finite vectors",
        )


def check_new(ids: NDArray[np.int64], present: NDArray[np.int64]) -> None:
    """Refuse ids that come twice or are there already.

    Raises:
        InputError: naming one of them.
    """
    once, times = np.unique(ids, return_counts=True)
    repeated = np.concatenate([once[times > 1], ids[np.isin(ids, present)]])
    if repeated.size:
        raise InputError(
            f"A passage id is there twice (for example {repeated.min()}).", remedy="stepgold index"
        )


def check_queries(queries: Vectors, k: int, dimension: int) -> None:
    """Refuse queries that cannot be asked.

    Raises:
        InputError: k below 1, vectors of another dimension, or numbers that are not finite.
    """
    if k < 1:
        raise InputError(f"Cannot look for {k} passages.", remedy="choose k of at least 1")
    if queries.ndim != 2 or queries.shape[1] != dimension:
        raise InputError(
            f"Query vectors of shape {queries.shape} do not fit an index of dimension {dimension}."
        )
    if not np.isfinite(queries).all():
        raise InputError(
            "A query vector is not finite.", remedy="use an encoder that gives finite vectors"
        )


def require_match(
    manifest: IndexManifest, folder: Path, encoder: str, fingerprint: str | None
) -> None:
    """Refuse an index of another encoder or, if a fingerprint is given, another corpus state.

    Raises:
        IndexMismatch: saying which, and the way out.
    """
    if manifest.encoder != encoder:
        raise IndexMismatch(
            f"The index was built with encoder '{manifest.encoder}', but '{encoder}' is in use.",
            where=str(folder),
            remedy="build it anew with `stepgold index`, or name the same encoder",
        )
    if fingerprint is not None and manifest.corpus_fingerprint != fingerprint:
        raise IndexMismatch(
            "The corpora have changed since the index was built.",
            where=str(folder),
            remedy="bring it up to date with `stepgold index`",
        )
