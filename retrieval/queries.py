"""What is looked for: the problem, a problem with each step of a trace, or what a model rewrote it to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from traces.problem import Problem

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
