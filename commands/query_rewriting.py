"""Queries that a model writes for problems, through the dispatcher: each is paid for once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from traces.abstention import AbstentionReason
from traces.errors import ModelError
from traces.privacy import withheld
from traces.records import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.dispatch import Dispatcher
    from inference.protocol import GenerationRequest
    from retrieval.queries import Query
    from traces.problem import Problem
    from traces.records import ModelReply

STAGE = "retrieve"
_MAX_TOKENS = 2048
"""Limit of a reply, thinking included."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of one problem's queries."""

    problem_id: str
    """The problem."""
    queries: Sequence[Query]
    """Its own query and those written for it; empty where there are none to be had."""
    failure: Failure | None = None
    """Why there are none."""


def rewrite_queries(
    problems: Iterable[Problem],
    runner: Dispatcher,
    *,
    allow_phi: bool,
    marked: Collection[str] = (),
) -> Iterator[Rewritten]:
    """Yield the queries for each problem as replies come in, in any order.

    `marked` are ids of problems whose traces say `phi_removed: false`: as if they said so.

    Raises:
        ModelRefused, QuotaExhausted, BudgetExhausted: what was yielded before stays valid.
    """
    waiting: dict[str, Problem] = {}
    refused: list[Rewritten] = []

    def requests() -> Iterator[GenerationRequest]:
        for problem in problems:
            said = {"phi_removed": problem.id not in marked}
            why = withheld(problem.meta, said, hosted=runner.model.hosted, allow_phi=allow_phi)
            if why is not None:
                refused.append(_failed(problem, why.reason, why.detail, again=False))
                continue
            waiting[problem.id] = problem
            yield _request(problem)

    for request, outcome in runner.run(requests()):
        while refused:
            yield refused.pop()
        yield _read(waiting.pop(request.meta["problem_id"]), outcome)
    yield from refused


def rewriting_config(model: str) -> dict[str, Any]:
    """What decides the queries, for the configuration of the retrieval."""
    from retrieval.queries import REWRITE_INSTRUCTION

    digest = hashlib.sha256(REWRITE_INSTRUCTION.encode()).hexdigest()[:12]
    return {"rewriter": model, "rewrite_prompt": digest}


def _request(problem: Problem) -> GenerationRequest:
    from inference.protocol import GenerationRequest, Message
    from retrieval.queries import REWRITE_INSTRUCTION, REWRITE_SCHEMA, query_of

    return GenerationRequest(
        messages=(Message("system", REWRITE_INSTRUCTION), Message("user", query_of(problem))),
        max_tokens=_MAX_TOKENS,
        temperature=0.0,
        response_json_schema=REWRITE_SCHEMA,
        meta={"purpose": "rewrite", "problem_id": problem.id},
    )


def _read(problem: Problem, outcome: ModelReply | ModelError) -> Rewritten:
    from retrieval.queries import parse_rewritten, rewritten_queries

    if isinstance(outcome, ModelError):
        return _failed(problem, AbstentionReason.MODEL_ERROR, outcome.what, again=True)
    queries = parse_rewritten(outcome.text)
    if queries is None:
        detail = (
            f"the rewriting model's reply holds no queries (finished by {outcome.finish_reason})"
        )
        return _failed(problem, AbstentionReason.UNREADABLE, detail, again=True)
    return Rewritten(problem.id, rewritten_queries(problem, queries))


def _failed(problem: Problem, reason: AbstentionReason, detail: str, *, again: bool) -> Rewritten:
    return Rewritten(problem.id, (), Failure(problem.id, STAGE, reason, again, detail))
