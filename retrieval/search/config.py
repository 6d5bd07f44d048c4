"""Options of retrieval, stored with the dataset to keep runs consistent, and its queries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, Literal, get_args

from traces import Config, InputError, Problem, option

Mode = Literal["hybrid", "dense", "bm25"]
"""By vectors and words, by vectors alone, or by words alone."""
QueryKind = Literal["problem", "step", "rewrite", "image"]
"""One query per problem, one more per step, queries that a model writes, or the images."""


class SearchConfig(Config):
    """What decides which passages a query gets, besides corpora, encoder and index."""

    k: int = option(
        default=5,
        flags=("--k", "-k"),
        between=(1, None),
        metavar="N",
        help="Passages per query, or per problem.",
    )
    mode: Mode = option(
        default="hybrid",
        choices=get_args(Mode),
        help="Rank by vectors (dense), by words (bm25), or by both.",
    )
    depth: int = option(
        default=200, style="python", between=(1, None), help="Passages taken from each ranking."
    )
    """On PubMedQA 200 fused better than 100 (recall@100 .932 and .930)."""
    rrf_constant: int = option(
        default=60,
        between=(1, None),
        metavar="N",
        help="hybrid: constant c of reciprocal rank fusion, 1 / (c + rank).",
    )
    rerank: str | None = option(
        default=None,
        metavar="MODEL",
        help="Cross-encoder (path or hub ID) that reorders the best 50 [default: none].",
    )
    rerank_depth: int = option(
        default=50, style="python", between=(1, None), help="Candidates that it reads."
    )
    mmr: float | None = option(
        default=None,
        between=(0, 1),
        metavar="W",
        help="Diversify (MMR): weight of relevance against novelty, e.g. 0.7 [default: off].",
    )
    quota: Mapping[str, int] | Sequence[str] = option(
        default=(),
        metavar="CORPUS=N",
        help="Take at least N passages from this corpus; may be repeated.",
    )
    keep_duplicates: bool = option(
        default=False, help="Keep passages that nearly repeat a better one."
    )

    def check(self) -> None:
        """Read the quotas and refuse those that cannot be met.

        Raises:
            InputError: a quota is malformed, below 1, or they exceed `k`.
        """
        super().check()
        quotas = self.quota if isinstance(self.quota, Mapping) else _read_quotas(self.quota)
        object.__setattr__(self, "quota", dict(quotas))
        if any(places < 1 for places in quotas.values()):
            raise InputError("A quota is below 1.", remedy="leave the corpus out")
        if sum(quotas.values()) > self.k:
            raise InputError(
                f"Quotas of {sum(quotas.values())} passages do not fit into k of {self.k}.",
                remedy="raise --k or lower a --quota",
            )

    @property
    def quotas(self) -> Mapping[str, int]:
        """Fewest passages by corpus."""
        if not isinstance(self.quota, Mapping):
            raise TypeError("a checked config holds its quotas by corpus")
        return self.quota

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
        if not self.keep_duplicates:
            stored["duplicates"] = "removed"
        if self.mode == "hybrid":
            stored |= {"depth": self.depth, "constant": self.rrf_constant}
        if self.rerank is not None:
            stored["rerank_depth"] = self.rerank_depth
        if self.mmr is not None:
            stored["mmr"] = self.mmr
        if self.quotas:
            stored["quotas"] = dict(sorted(self.quotas.items()))
        return stored


class RetrievalConfig(SearchConfig):
    """What decides the evidence of problems or traces: the search, and what is searched for."""

    query: QueryKind = option(
        default="problem",
        choices=get_args(QueryKind),
        help="One query per problem, step (evidence per trace) or image, or queries of a model.",
    )

    def as_dict(self) -> dict[str, Any]:
        """The configuration as the dataset stores it, strict JSON."""
        query = "question+options" if self.query == "problem" else self.query
        return super().as_dict() | {"query": query}


def _read_quotas(given: Sequence[str]) -> dict[str, int]:
    quotas: dict[str, int] = {}
    for entry in given:
        corpus, _, places = entry.rpartition("=")
        if not corpus or not places.isdecimal() or corpus in quotas:
            raise InputError(
                f"'{entry}' is not a quota, or repeats a corpus.",
                remedy="write --quota CORPUS=N, once for each corpus",
            )
        quotas[corpus] = int(places)
    return quotas


# --- What is looked for: the problem, a problem with each step of a trace, or what a model


MAX_REWRITTEN = 3
"""Most queries that a model may write for one problem."""

REWRITE_INSTRUCTION = (
    "You prepare a search in medical guidelines, textbooks and reviews. Read the question and write"
    f" 1 to {MAX_REWRITTEN} short search queries that would find the passages needed to answer it:"
    " name the drug, disease, test or rule, keep exact names and numbers, do not answer the"
    ' question. Reply with JSON alone: {"queries": ["...", "..."]}.'
)
"""System turn for the rewriting model; its hash is part of the retrieval's configuration."""

REWRITE_WITH_IMAGES = (
    " The images belong to the question: name the findings that they show in your queries, and"
    " whatever in the patient's context decides what is searched for."
)
"""Continues the system turn where the model is shown images."""

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
    """A search text, or an image."""

    text: str
    step: int | None = None
    """0-based index of the step it is about; None for the problem."""
    image: bytes | None = field(default=None, repr=False)
    """An image (PNG or JPEG) that is searched for instead of the text."""


def query_of(problem: Problem) -> str:
    """Return the problem as a query: context and question, then the lettered options."""
    options = [
        f"({ascii_uppercase[index]}) {option}" if index < len(ascii_uppercase) else option
        for index, option in enumerate(problem.options)
    ]
    return "\n".join([problem.shown_question, *options])


def step_queries(problem: Problem, steps: Sequence[str]) -> tuple[Query, ...]:
    """Return the problem's own query, then one per step: the question and the step."""
    return (
        Query(query_of(problem)),
        *(
            Query(f"{problem.shown_question}\n{step}", index)
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
