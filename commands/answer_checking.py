"""How the answers of continuations are checked: by rule, and by a model where a user names one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from commands.backends import dispatcher, parse_spec, text_model

if TYPE_CHECKING:
    from commands.model_truth import ModelTruth
    from inference.budget import Purse
    from labeling.answers import AnswerChecker
    from storage import Store
    from traces.problem import Problem


def checker_factory(
    answer_judge: str | None,
    store: Store,
    closing: ExitStack,
    *,
    purse: Purse,
    truth: ModelTruth,
    allow_phi: bool,
) -> Callable[[Problem], AnswerChecker]:
    """What makes the answer checker of a problem.

    Args:
        answer_judge: the model that compares free-text answers; None for rules alone. Its server is
            the one that the environment names.
        store: where its replies are kept.
        closing: closes its connections.
        purse: the budget it shares with the policy.
        truth: sees every reply.
        allow_phi: whether protected questions may be sent.
    """
    from labeling.answers import AnswerChecker

    if answer_judge is None:
        return AnswerChecker.for_problem
    from labeling.answers import AnswerJudge

    model = text_model(parse_spec(answer_judge))
    runner = dispatcher(model, store, closing, budget_usd=purse, truth=truth)
    judge = AnswerJudge(runner, allow_phi=allow_phi)
    return partial(AnswerChecker.for_problem, means_same=judge.same)
