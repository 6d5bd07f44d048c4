"""How evidence is looked for; stored with the dataset, so that a second run cannot mix two ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from retrieval.search.fusion import DEFAULT_CONSTANT
from traces import InputError, Problem

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


# --- What is looked for: the problem, a problem with each step of a trace, or what a model


MAX_REWRITTEN = 3
"""Queries a model may write for one problem."""

REWRITE_INSTRUCTION = (
    "You prepare a search in medical guidelines, textbooks and reviews. Read the question and write"
    f" 1 to {MAX_REWRITTEN} short search queries that would find the passages needed to answer it:"
    " name the drug, disease, test or rule, keep exact names and numbers, do not answer the"
    ' question. Reply with JSON alone: {"queries": ["...", "..."]}.'
)
"""System turn for the rewriting model; part of the retrieval's configuration by its hash."""

REWRITE_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "queries": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": MAX_REWRITTEN,
        }
    },
    "required": ["queries"],
    "additionalProperties": False,
}
"""The rewriting model's reply."""


@dataclass(frozen=True, slots=True)
class Query:
    """One text to look for."""

    text: str
    """The text."""
    step: int | None = None
    """0-based index of the step it asks about; None if it asks about the problem."""


def query_of(problem: Problem) -> str:
    """The problem as a query: the question, with its lettered options below."""
    options = [
        f"({ascii_uppercase[index]}) {option}" if index < len(ascii_uppercase) else option
        for index, option in enumerate(problem.options)
    ]
    return "\n".join([problem.question, *options])


def step_queries(problem: Problem, steps: Sequence[str]) -> tuple[Query, ...]:
    """The problem's own query, then one a step: the question with the step below."""
    return (
        Query(query_of(problem)),
        *(
            Query(f"{problem.question}\n{step}", index)
            for index, step in enumerate(steps)
            if step.strip()
        ),
    )


def rewritten_queries(problem: Problem, rewritten: Sequence[str]) -> tuple[Query, ...]:
    """The problem's own query, then those that a model wrote for it."""
    return (Query(query_of(problem)), *(Query(text) for text in rewritten))


def parse_rewritten(text: str | None) -> tuple[str, ...] | None:
    """The queries in a model's reply; None if it holds none that can be read.

    Code fences around the JSON are taken off; blank and repeated queries are passed over, and those
    beyond the third are left out.
    """
    body = (text or "").strip()
    if body.startswith("```"):
        body = body.strip("`").removeprefix("json").strip()
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    queries = document.get("queries") if isinstance(document, dict) else None
    if not isinstance(queries, list) or not all(isinstance(each, str) for each in queries):
        return None
    found = dict.fromkeys(each.strip() for each in queries if each.strip())
    return tuple(found)[:MAX_REWRITTEN] or None
