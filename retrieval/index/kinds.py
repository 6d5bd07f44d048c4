"""The kinds of index: which one suits a corpus, and how wide an approximate one must search.

The search width (efSearch of HNSW, nprobe of an inverted index) is doubled until recall@10 on a
sample reaches the target. The sample consists of passage vectors moved in random directions,
because a query is near passages but is not one. The measured recall is stored with the index, even
if it is below the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces import InputError

KINDS = ("auto", "flat", "hnsw", "ivf")
"""Values of `--kind`."""
FLAT_LIMIT = 500_000
"""`auto` is exact up to this number of passages: exact search in batches is as fast as a matrix
product."""
LINKS = 32
"""Neighbors of a vector in an HNSW graph; twice as many on its lowest level."""


def require_kind(kind: str) -> None:
    """Check the kind of an index.

    Raises:
        InputError: it is unknown; names the known ones.
    """
    if kind not in KINDS:
        raise InputError(
            f"Unknown index kind '{kind}'.", remedy=f"choose --kind {', '.join(KINDS)}"
        )


def resolve_kind(kind: str, count: int, dimension: int = 384, memory: int | None = None) -> str:
    """Return the kind for `auto`: flat up to 500,000 passages, else hnsw if its graph fits.

    An HNSW search accesses vectors and graph at random, so that both must stay in memory: they may
    take half of the free memory. An inverted index reads a few lists per query, each contiguous in
    a memory-mapped file, and so works on a corpus larger than memory.

    Args:
        kind: one of `KINDS`; all but auto are returned as they are.
        count: passages.
        dimension: length of a vector.
        memory: free bytes; None if unknown.
    """
    if kind != "auto":
        return kind
    if count <= FLAT_LIMIT:
        return "flat"
    graph = count * (4 * dimension + 4 * 2 * LINKS + 16)
    return "hnsw" if memory is None or 2 * graph <= memory else "ivf"


def is_fitting(present: str, kind: str, count: int) -> bool:
    """Whether an index of kind `present` serves a request for `kind` with `count` passages.

    With `auto`, hnsw and ivf are both accepted: a change of free memory is no reason to rebuild.
    """
    if kind != "auto":
        return present == kind
    return (present == "flat") == (count <= FLAT_LIMIT)


RECALL_TARGET = 0.95
"""Mean recall@10 against exact search that an approximate index should reach on the sample."""
K = 10
"""Neighbors per query for measuring recall."""
SAMPLE = 500
"""Most queries of the sample: the standard error of recall is then below .005."""

_LIKENESS = 0.8
_FIRST = 16


@dataclass(frozen=True, slots=True)
class SearchQuality:
    """The measured search quality of an approximate index."""

    recall_at_10: float
    """Mean share of the ten exact neighbors that were found, in [0, 1]."""
    target: float
    """Target recall, in [0, 1]."""
    parameter: str
    """The search parameter: efSearch or nprobe."""
    value: int
    """Its value, used for every search."""
    queries: int
    """Size of the sample."""
    seed: int


def sample_queries(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return unit vectors with cosine 0.8 to the given ones, in random directions."""
    noise = np.random.default_rng(seed).standard_normal(vectors.shape).astype(np.float32)
    noise -= np.sum(noise * vectors, axis=1, keepdims=True) * vectors
    norms = np.linalg.norm(noise, axis=1, keepdims=True)
    aside = np.sqrt(1 - _LIKENESS**2) * noise / np.where(norms == 0, 1, norms)
    moved: NDArray[np.float32] = (_LIKENESS * vectors + aside).astype(np.float32)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), dtype=np.float32)


def recall(found: Sequence[NDArray[np.int64]], exact: Sequence[NDArray[np.int64]]) -> float:
    """Return the mean share of each query's exact neighbors that were found; 1 if there are
    none."""
    shares = [
        len(np.intersect1d(some, wanted)) / len(wanted)
        for some, wanted in zip(found, exact, strict=True)
        if len(wanted)
    ]
    return float(np.mean(shares)) if shares else 1.0


def tune(
    search: Callable[[int], Sequence[NDArray[np.int64]]],
    exact: Sequence[NDArray[np.int64]],
    *,
    parameter: str,
    largest: int,
    target: float,
    seed: int,
) -> SearchQuality:
    """Double the parameter until the sample's recall reaches `target`, or the parameter `largest`.

    Args:
        search: finds ids for every query of the sample with the parameter at a value.
        exact: the ids that exact search finds.
        parameter: name of the parameter.
        largest: its largest useful value, at least 1.
        target: recall to reach, in [0, 1].
        seed: seed of the sample, to be stored.
    """
    value = min(_FIRST, largest)
    while True:
        reached = recall(search(value), exact)
        if reached >= target or value >= largest:
            return SearchQuality(
                recall_at_10=reached,
                target=target,
                parameter=parameter,
                value=value,
                queries=len(exact),
                seed=seed,
            )
        value = min(2 * value, largest)
