"""Problems and traces."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from storage import checks
from traces import InputError, Problem, Trace

Columns = dict[str, Any]
"""Column values by name."""


def problem_columns(problem: Problem) -> Columns:
    """The columns of a problem, its digest included.

    Raises:
        InputError: a field cannot be stored.
    """
    where = f"problem {problem.id!r}"
    content: Columns = {
        "id": checks.name(problem.id, "The problem id"),
        "question": checks.plain_text(problem.question, f"The question of {where}"),
        "options": [checks.plain_text(text, f"An option of {where}") for text in problem.options],
        "answer": checks.optional_text(problem.answer, f"The answer of {where}"),
        "images": [checks.plain_text(path, f"An image path of {where}") for path in problem.images],
        "meta": checks.plain_json(problem.meta, f"The meta of {where}"),
    }
    return content | {"digest": checks.digest(content)}


def problem_from(row: Row[Any]) -> Problem:
    """The problem in a row of the table."""
    return Problem(
        row.id, row.question, tuple(row.options), row.answer, tuple(row.images), row.meta
    )


def trace_columns(trace: Trace, problem_digest: str) -> tuple[Columns, list[str]]:
    """The columns of a trace and its steps.

    The digest covers the problem too: a label is about both.

    Raises:
        InputError: a field cannot be stored, or there is no step.
    """
    where = f"trace {trace.id!r}"
    steps = [checks.plain_text(text, f"A step of {where}") for text in trace.steps]
    if not steps:
        raise InputError(f"The {where} has no steps.")
    content: Columns = {
        "id": checks.name(trace.id, "The trace id"),
        "subset": checks.name(trace.subset, f"The subset of {where}"),
        "generator": checks.optional_text(trace.generator, f"The generator of {where}"),
        "final_answer": checks.optional_text(trace.final_answer, f"The final answer of {where}"),
        "final_answer_correct": trace.final_answer_correct,
        "meta": checks.plain_json(trace.meta, f"The meta of {where}"),
    }
    digest = checks.digest(content, steps, problem_digest)
    return content | {"n_steps": len(steps), "digest": digest}, steps


def trace_from(row: Row[Any], problem_id: str, steps: tuple[str, ...]) -> Trace:
    """The trace in a row of the table."""
    return Trace(
        row.id,
        problem_id,
        steps,
        row.subset,
        row.generator,
        row.final_answer,
        row.final_answer_correct,
        row.meta,
    )
