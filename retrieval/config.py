"""How evidence is looked for; stored with the dataset, so that a second run cannot mix two ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from retrieval.fusion import DEFAULT_CONSTANT
from traces.errors import InputError

MODES = ("hybrid", "dense", "bm25")
"""What `--mode` takes."""
QUERIES = ("problem", "step", "rewrite")
"""What `--query` takes."""


@dataclass(frozen=True, slots=True)
class RetrievalConfig:
    """What decides which passages a query gets, besides corpora, encoder and index."""

    k: int = 5
    """Passages a query, at least 1."""
    mode: str = "hybrid"
    """hybrid fuses dense and lexical rankings; dense and bm25 are one of them alone."""
    depth: int = 200
    """Passages taken from each ranking; on PubMedQA 200 fused better than 100 (recall@100 .932, .930)."""
    constant: int = DEFAULT_CONSTANT
    """The c of reciprocal rank fusion."""
    rerank: str | None = None
    """Cross-encoder that orders the best candidates anew; None for none."""
    rerank_depth: int = 50
    """How many candidates it reads."""
    mmr: float | None = None
    """Weight of relevance against novelty in [0, 1]; None chooses by relevance alone."""
    quotas: Mapping[str, int] = field(default_factory=dict)
    """Fewest passages by corpus."""
    unique: bool = True
    """Whether near-duplicates of a better passage are left out."""
    query: str = "problem"
    """problem, step (one query a step, for each trace) or rewrite (queries that a model writes)."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            InputError: naming the value and what may be given.
        """
        _require(self.k >= 1, f"Cannot look for {self.k} passages.", "choose k of at least 1")
        _require(
            self.mode in MODES,
            f"There is no search mode '{self.mode}'.",
            f"choose {', '.join(MODES)}",
        )
        _require(
            self.query in QUERIES, f"No query is '{self.query}'.", f"choose {', '.join(QUERIES)}"
        )
        _require(
            self.mmr is None or 0 <= self.mmr <= 1,
            f"The MMR weight {self.mmr} is not in [0, 1].",
            "0.7 is a usual choice",
        )
        _require(self.constant >= 1, f"A constant of {self.constant} is below 1.", "60 is usual")
        _require(
            all(places >= 1 for places in self.quotas.values()),
            "A quota is below 1.",
            "leave the corpus out",
        )
        _require(
            sum(self.quotas.values()) <= self.k,
            f"Quotas of {sum(self.quotas.values())} passages do not fit into k of {self.k}.",
            "raise --k or lower a --quota",
        )

    @property
    def pool(self) -> int:
        """Candidates that the last choice is made from: duplicates may cost some."""
        return max(self.depth, 2 * self.k)

    def as_dict(self) -> dict[str, Any]:
        """The configuration as the dataset stores it, strict JSON.

        Dense search without any of the later steps reads as it did before there was another way, so
        that evidence retrieved then can be completed.
        """
        stored: dict[str, Any] = {"retriever": self.mode, "k": self.k}
        stored["query"] = "question+options" if self.query == "problem" else self.query
        if self.unique:
            stored["duplicates"] = "removed"
        if self.mode == "hybrid":
            stored |= {"depth": self.depth, "constant": self.constant}
        if self.rerank is not None:
            stored["rerank_depth"] = self.rerank_depth
        if self.mmr is not None:
            stored["mmr"] = self.mmr
        if self.quotas:
            stored["quotas"] = dict(sorted(self.quotas.items()))
        return stored


def _require(holds: bool, what: str, remedy: str) -> None:
    if not holds:
        raise InputError(what, remedy=remedy)
