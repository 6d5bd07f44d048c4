"""Answer checking: what a solution ends with, and whether that is the gold answer.

`AnswerChecker.for_problem` chooses the rules by the gold answer; `check_golds` says beforehand
which gold answers cannot be compared at all.
"""

from labeling.answers.checker import (
    AnswerChecker,
    UnusableGold,
    check_golds,
    normal_answer,
    unusable_gold,
)
from labeling.answers.judge import AnswerJudge
from labeling.answers.mathematics import MathProcess, shared_math_process
from labeling.answers.mentions import find_mentions
from labeling.answers.scalars import TOLERANCE

__all__ = [
    "TOLERANCE",
    "AnswerChecker",
    "AnswerJudge",
    "MathProcess",
    "UnusableGold",
    "check_golds",
    "find_mentions",
    "normal_answer",
    "shared_math_process",
    "unusable_gold",
]
