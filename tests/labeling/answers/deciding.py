"""Decides pairs of gold answer and solution without a process of its own."""

from __future__ import annotations

from typing import Any

from labeling.answers import AnswerChecker, MathProcess
from labeling.answers.mathematics import confirm
from traces.problem import Problem


class InThisProcess(MathProcess):
    """The symbolic back end, in this process: fine for answers that cannot hang."""

    def _ask(self, question: tuple[Any, Any]) -> Any:
        return confirm(*question)


HERE = InThisProcess()


def checker(gold: str, options: tuple[str, ...] = ()) -> AnswerChecker:
    """The checker of a problem with that gold answer."""
    return AnswerChecker.for_problem(Problem("p", "q", options, gold), HERE)


def decide(gold: str, solution: str, options: tuple[str, ...] = ()) -> bool | None:
    """Whether a solution ends with the gold answer; None where it is unread or undecided."""
    one = checker(gold, options)
    answer = one.extract(solution)
    return None if answer is None else one.is_correct(answer)
