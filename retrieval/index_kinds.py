"""The kinds of index, and which one suits a corpus."""

from __future__ import annotations

from traces.errors import InputError

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
