"""The kinds of index, and which one suits a corpus.

How far an approximate index must look to find nearly what exact search finds.

The knob (efSearch of HNSW, nprobe of an inverted index) is doubled until recall@10 on a sample
reaches the target. The sample is of passages' own vectors, moved away from where they lie, since a
query is near passages and is none. What was reached is kept beside the index, also where it falls
short of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces import InputError

KINDS = ("auto", "flat", "hnsw", "ivf")
"""What `--kind` takes."""
FLAT_LIMIT = 500_000
"""`auto` is exact up to so many passages: exact search in batches is as fast as a matrix product."""
LINKS = 32
"""Neighbours of a vector in an HNSW graph; twice as many on its lowest level."""


def require_kind(kind: str) -> None:
    """Refuse a kind of index that there is none of.

    Raises:
        InputError: naming the kinds there are.
    """
    if kind not in KINDS:
        raise InputError(f"There is no index kind '{kind}'.", remedy=f"choose {', '.join(KINDS)}")


def resolve_kind(kind: str, count: int, dimension: int = 384, memory: int | None = None) -> str:
    """What `auto` means: flat up to 500,000 passages; beyond, hnsw if its graph leaves room.

    An HNSW search jumps about in vectors and graph, so that both must stay in memory: they may take
    half of what is available. An inverted index reads a few lists a query, which are next to one
    another in a memory-mapped file, and so works on a corpus larger than memory.

    Args:
        kind: one of `KINDS`; all but auto are what they are.
        count: passages.
        dimension: length of a vector.
        memory: bytes available; None if unknown.
    """
    if kind != "auto":
        return kind
    if count <= FLAT_LIMIT:
        return "flat"
    graph = count * (4 * dimension + 4 * 2 * LINKS + 16)
    return "hnsw" if memory is None or 2 * graph <= memory else "ivf"


def is_fitting(present: str, kind: str, count: int) -> bool:
    """Whether an index of kind `present` over `count` passages is what `kind` asks for.

    With auto either of hnsw and ivf will do: memory that comes and goes is no reason to build anew.
    """
    if kind != "auto":
        return present == kind
    return (present == "flat") == (count <= FLAT_LIMIT)


# --- How far an approximate index must look to find nearly what exact search finds


RECALL_TARGET = 0.95
"""Mean recall@10 against exact search that an approximate index must reach on the sample."""
K = 10
"""Neighbours a query by which recall is measured."""
SAMPLE = 500
"""Most queries of the sample: the standard error of recall is then below .005."""

_LIKENESS = 0.8
_FIRST = 16


@dataclass(frozen=True, slots=True)
class SearchQuality:
    """How well an approximate index was measured to search."""

    recall_at_10: float
    """Mean share of the ten exact neighbours that were found, in [0, 1]."""
    target: float
    """What was aimed at, in [0, 1]."""
    parameter: str
    """The knob: efSearch or nprobe."""
    value: int
    """Its setting, used for every search."""
    queries: int
    """Size of the sample."""
    seed: int
    """Seed of the sample."""


def sample_queries(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Unit vectors whose cosine with the given ones is 0.8, in random directions from them."""
    noise = np.random.default_rng(seed).standard_normal(vectors.shape).astype(np.float32)
    noise -= np.sum(noise * vectors, axis=1, keepdims=True) * vectors
    norms = np.linalg.norm(noise, axis=1, keepdims=True)
    aside = np.sqrt(1 - _LIKENESS**2) * noise / np.where(norms == 0, 1, norms)
    moved: NDArray[np.float32] = (_LIKENESS * vectors + aside).astype(np.float32)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), dtype=np.float32)


def recall(found: Sequence[NDArray[np.int64]], exact: Sequence[NDArray[np.int64]]) -> float:
    """Mean share of each query's exact neighbours that were found; 1 if there are none."""
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
    """Double the knob until the sample's recall reaches `target`, or the knob its largest value.

    Args:
        search: finds ids for every query of the sample with the knob at a value.
        exact: the ids that exact search finds.
        parameter: name of the knob.
        largest: its largest useful value, at least 1.
        target: recall to reach, in [0, 1].
        seed: seed of the sample, to be kept.
    """
    value = min(_FIRST, largest)
    while True:
        reached = recall(search(value), exact)
        if reached >= target or value >= largest:
            return SearchQuality(reached, target, parameter, value, len(exact), seed)
        value = min(2 * value, largest)
