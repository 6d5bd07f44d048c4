"""What the Monte-Carlo labeler would send: its strategy run for real, over replies made up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from commands.plan_stages import Planned, Terms, is_hosted, planned_stage
from inference.dry_run import DryCounts, DryRun, UnaskedModel
from inference.rendering import ContinuationPrompt
from inference.server_policy import ServerPolicy
from inference.specs import ModelSpec
from judge.tokens import estimate_tokens
from labeling.answers import AnswerChecker
from labeling.mc_config import MonteCarloConfig
from labeling.rounds import continue_by_strategy

if TYPE_CHECKING:
    from commands.backends import PolicyOptions
    from storage import Store
    from traces.context import TraceInContext

TOKENS_A_CONTINUATION = 200
"""Output tokens of a continuation, assumed."""


def plan_policy(
    store: Store,
    spec: ModelSpec,
    options: PolicyOptions,
    contexts: Callable[[], Iterable[TraceInContext]],
    *,
    config: MonteCarloConfig,
    traces: int,
    missing: int,
    terms: Terms,
) -> Planned:
    """The Monte-Carlo labeler: what its strategy draws if every prefix reaches the answer.

    At most it draws every prefix k times, as `all` always does.

    Args:
        store: where replies are looked up; nothing is written.
        spec: the policy's model.
        options: how it is prompted.
        contexts: the traces to be labelled, anew at every call.
        config: strategy, k and seed.
        traces: how many were asked for.
        missing: how many of them are to be labelled.
        terms: service and day.
    """
    few = _policy_counts(store, spec, options, contexts(), config)
    many = few
    if config.strategy != "all":
        many = _policy_counts(store, spec, options, contexts(), replace(config, strategy="all"))
    sizes = {"traces": traces, "missing": missing}
    a_call = min(TOKENS_A_CONTINUATION, options.max_tokens)
    return planned_stage("continue", spec, few, many, a_call, terms, **sizes)


def _policy_counts(
    store: Store,
    spec: ModelSpec,
    options: PolicyOptions,
    contexts: Iterable[TraceInContext],
    config: MonteCarloConfig,
) -> DryCounts:
    """What the labeler would send if every continuation reached the answer."""
    dry = DryRun(
        UnaskedModel(str(spec), hosted=is_hosted(spec)),
        store.responses,
        count_tokens=estimate_tokens,
        answer=lambda _: "The answer is: yes",
    )
    reached = AnswerChecker("word", "yes", lambda _: "yes", lambda _: True)
    policy = ServerPolicy(
        dry,
        ContinuationPrompt(system=options.system, separator=options.separator),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        stop=options.stop,
        with_evidence=options.with_evidence,
        images=options.images.loader(),
    )
    with_answer = (context for context in contexts if (context.problem.answer or "").strip())
    for _ in continue_by_strategy(with_answer, policy, lambda _: reached, config):
        pass
    return dry.counts
