"""How families write questions and steps where a published layout wants them on one line."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from traces.errors import InputError
from traces.problem import Problem


def question_inline(problem: Problem) -> str:
    """The question with its options inline, if it has any: ` (A) first (B) second`.

    Raises:
        InputError: more options than letters.
    """
    if len(problem.options) > len(ascii_uppercase):
        raise InputError(
            f"The problem has {len(problem.options)} options, at most 26 can be lettered.",
            where=problem.id,
        )
    letters = zip(ascii_uppercase, problem.options, strict=False)
    return problem.question.strip() + "".join(f" ({letter}) {text}" for letter, text in letters)


def one_line(step: str) -> str:
    """A step on one line: line breaks made blanks, nothing else changed within it."""
    return " ".join(step.splitlines()).strip()


def numbered(steps: Sequence[str]) -> list[str]:
    """Steps as `Step i: ..` (1-based); what is numbered already stays as it is."""
    return [
        step if step.lower().startswith(f"step {number}:") else f"Step {number}: {step}"
        for number, step in enumerate(steps, 1)
    ]
