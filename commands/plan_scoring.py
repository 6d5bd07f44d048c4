"""The part of `stepgold plan` that looks at a PRM: what does not fit, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from commands.backends import parse_spec
from commands.score_run import ProblemByProblem, ScorerOptions, open_scorer
from traces.errors import InputError

if TYPE_CHECKING:
    from storage import Store


def plan_prm(
    store: Store,
    dataset: str,
    chosen: ScorerOptions,
    asked: tuple[int, Sequence[str]],
) -> dict[str, Any]:
    """What scoring would do, as JSON; some traces are scored to measure the speed, none is stored.

    Args:
        store: where the traces are; nothing is written.
        dataset: theirs.
        chosen: the PRM, and how traces are laid out for it.
        asked: how many traces were asked for, and those without a word of the labeler.

    Raises:
        InputError: an option that does not fit.
        PrmError: the checkpoint cannot be used.
    """
    from scoring.planning import plan_scoring

    if parse_spec(chosen.prm).kind == "openai":
        raise InputError(
            f'The plan for "{chosen.prm}" is that of its checkpoint: a server tells nothing beforehand.',
            remedy="plan with --prm hf:PATH: the same traces fit; the time is that of this machine",
        )
    traces, missing = asked
    shown = chosen.images.for_prm(exist=store.has_images(dataset))
    scorer = open_scorer(replace(chosen, images=shown))
    contexts = ProblemByProblem(store, dataset, scorer.expected_work).contexts(missing)
    planned = plan_scoring(scorer, contexts, traces=len(missing)).as_json()
    return {
        "stage": "score",
        "model": chosen.prm,
        "family": scorer.family.name,
        "max_tokens": scorer.rules.max_tokens,
        **planned,
        "traces": traces,
        "missing": len(missing),
    }


def scoring_words(planned: dict[str, Any]) -> list[str]:
    """The same for a person."""
    lines = [
        f"score with {planned['model']} ({planned['family']}): {planned['missing']} of"
        f" {planned['traces']} traces missing, the longest has {planned['longest']} tokens"
    ]
    if planned["looked_at"] < planned["missing"]:
        lines.append(f"  told from {planned['looked_at']} of them, every so-manieth problem")
    for at in planned["limits"]:
        mark = " (this run)" if at["max_tokens"] == planned["max_tokens"] else ""
        lines.append(
            f"  --max-tokens {at['max_tokens']}{mark}: {at['whole']} fit with all documents,"
            f" {at['shortened']} with fewer, {at['abstained']} not at all"
        )
    if planned["unreadable"]:
        lines.append(f"  {planned['unreadable']} have an image that cannot be read")
    if planned["seconds"] is not None:
        low, high = (_clock(seconds) for seconds in planned["seconds_range"])
        lines.append(
            f"  about {_clock(planned['seconds'])} ({low} to {high}), measured on"
            f" {planned['sampled']} traces"
        )
    return lines


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
