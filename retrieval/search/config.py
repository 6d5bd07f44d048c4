"""Options of retrieval, stored with the dataset to keep runs consistent, and its queries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from retrieval.search.fusion import DEFAULT_CONSTANT
from traces import InputError, Problem

MODES = ("hybrid", "dense", "bm25")
"""Values of `--mode`."""
QUERIES = ("problem", "step", "rewrite")
"""Values of `--query`."""


@dataclass(frozen=True, slots=True)
class RetrievalConfig:
    """What determines the passages of a query, besides corpora, encoder and index."""

    k: int = 5
    """Passages per query, at least 1."""
    mode: str = "hybrid"
    """hybrid fuses dense and lexical rankings; dense and bm25 use one of them."""
    depth: int = 200
    """Passages taken from each ranking; on PubMedQA 200 fused better than 100 (recall@100 .932,
    .930)."""
    constant: int = DEFAULT_CONSTANT
    """The c of reciprocal rank fusion."""
    rerank: str | None = None
    """Cross-encoder that reorders the best candidates; None for none."""
    rerank_depth: int = 50
    """Candidates that it scores."""
    mmr: float | None = None
    """Weight of relevance against novelty in [0, 1]; None chooses by relevance alone."""
    quotas: Mapping[str, int] = field(default_factory=dict)
    """Minimum of passages by corpus."""
    unique: bool = True
    """Whether near-duplicates of a better passage are left out."""
    query: str = "problem"
    """problem, step (one query per step of each trace) or rewrite (queries written by a model)."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: names the invalid value and the valid ones.
        """
        places = sum(self.quotas.values())
        checks = (
            (self.k >= 1, f"Cannot search for {self.k} passages.", "use -k 1 or more"),
            (
                self.mode in MODES,
                f"Unknown search mode '{self.mode}'.",
                f"choose --mode {', '.join(MODES)}",
            ),
            (
                self.query in QUERIES,
                f"Unknown query kind '{self.query}'.",
                f"choose --query {', '.join(QUERIES)}",
            ),
            (
                self.mmr is None or 0 <= self.mmr <= 1,
                f"The MMR weight {self.mmr} is not in [0, 1].",
                "use for example --mmr 0.7",
            ),
            (
                self.constant >= 1,
                f"A fusion constant of {self.constant} is below 1.",
                "use for example 60",
            ),
            (min(self.quotas.values(), default=1) >= 1, "A quota is below 1.", "drop that --quota"),
            (
                places <= self.k,
                f"Quotas of {places} passages exceed k = {self.k}.",
                "raise -k or lower a --quota",
            ),
        )
        for valid, what, remedy in checks:
            if not valid:
                raise InputError(what, remedy=remedy)

    @property
    def pool(self) -> int:
        """Candidates of the final choice: more than k, as duplicates are dropped."""
        return max(self.depth, 2 * self.k)

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as the dataset stores it, strict JSON.

        Options that are not in use are left out, so that datasets of earlier versions can be
        completed.
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


MAX_REWRITTEN = 3
"""Most queries that a model may write for one problem."""

REWRITE_INSTRUCTION = (
    "You prepare a search in medical guidelines, textbooks and reviews. Read the question and write"
    f" 1 to {MAX_REWRITTEN} short search queries that would find the passages needed to answer it:"
    " name the drug, disease, test or rule, keep exact names and numbers, do not answer the"
    ' question. Reply with JSON alone: {"queries": ["...", "..."]}.'
)
"""System turn for the rewriting model; its hash is part of the retrieval's configuration."""

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
"""Schema of the rewriting model's reply."""


@dataclass(frozen=True, slots=True)
class Query:
    """A search text."""

    text: str
    step: int | None = None
    """0-based index of the step it is about; None for the problem."""


def query_of(problem: Problem) -> str:
    """Return the problem as a query: the question, then its lettered options."""
    options = [
        f"({ascii_uppercase[index]}) {option}" if index < len(ascii_uppercase) else option
        for index, option in enumerate(problem.options)
    ]
    return "\n".join([problem.question, *options])


def step_queries(problem: Problem, steps: Sequence[str]) -> tuple[Query, ...]:
    """Return the problem's own query, then one per step: the question and the step."""
    return (
        Query(query_of(problem)),
        *(
            Query(f"{problem.question}\n{step}", index)
            for index, step in enumerate(steps)
            if step.strip()
        ),
    )


def rewritten_queries(problem: Problem, rewritten: Sequence[str]) -> tuple[Query, ...]:
    """Return the problem's own query, then those that a model wrote for it."""
    return (Query(query_of(problem)), *(Query(text) for text in rewritten))


def parse_rewritten(text: str | None) -> tuple[str, ...] | None:
    """Return the queries in a model's reply; None if it has no readable ones.

    Code fences around the JSON are removed, blank and repeated queries dropped, and at most three
    kept.
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
