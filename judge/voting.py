"""How votes become one label: when voting ends, what a majority is, and what a split is.

A vote *counts* if it names a first error ("no error" included). One that abstains, or that leaves a
step before its first error open, is stored but does not count. Voting ends once `agree` counting
votes are in and all counting votes name the same first error, or when all votes are cast.

A *majority* is a first error named by more than half of the counting votes, and by at least two.
Without one, the trace is *split* if at least two votes count; otherwise it abstains for too few.

The vote is on the first error. Step verdicts come from the votes that name it: each step gets the
verdict that most of them give, with the reasoning and quote of the first vote that gives it (one
with a verified quote, if there is one). On a tie, a step before the first error gets the verdict of
the first vote (`neutral` or `correct`: neither is an error), and a step after it is `uncertain`:
the votes did not decide it, and Med-PRM's first-zero rule is not applied here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from judge.config import JudgeConfig
from judge.reply import count_quotes
from traces import Abstention, AbstentionReason, StepLabel, TraceLabel, Verdict, Vote, abstained


@dataclass(frozen=True, slots=True)
class CastVote:
    """A vote and the label from which it was made."""

    vote: Vote
    """What is stored."""
    label: TraceLabel
    """The model's label of the trace, with reasoning and quotes."""


def verdict_or_reason(step: StepLabel) -> Verdict | AbstentionReason:
    """The verdict of a step, or why it has none."""
    if step.verdict is not None:
        return step.verdict
    return step.abstention.reason if step.abstention else AbstentionReason.NOT_MEASURED


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of the votes on a trace."""

    label: TraceLabel
    """The label; the abstention `uncertain` for a split."""
    is_split: bool = False
    """Whether enough votes count but there is no majority, so that it can be escalated."""


def votes_needed(votes: Sequence[Vote], config: JudgeConfig) -> int:
    """Number of further votes that are certainly needed; 0 when voting is over.

    >>> votes_needed([], JudgeConfig(votes=3, temperature=0.7))
    2
    """
    named = {vote.first_error for vote in votes if not vote.first_error.missing}
    left = config.votes - len(votes)
    if len(named) > 1:  # they can no longer all agree
        return left
    counting = sum(not vote.first_error.missing for vote in votes)
    return min(left, max(0, min(config.agree, config.votes) - counting))


def decide(trace_id: str, cast: Sequence[CastVote], config: JudgeConfig) -> Decision:
    """The outcome of the votes on a trace, after the last one.

    Args:
        trace_id: the trace.
        cast: its votes in order, at least one.
        config: how many votes were planned; a single one is the label itself.
    """
    if config.votes == 1:
        return Decision(cast[0].label)
    counting = [one for one in cast if not one.vote.first_error.missing]
    if len(counting) < 2:
        return Decision(_too_few(trace_id, cast, len(counting)))
    named = Counter(one.vote.first_error for one in counting)
    winner, agreeing = named.most_common(1)[0]
    meta: dict[str, Any] = {"votes": _tally(cast, len(counting), agreeing)}
    if agreeing < 2 or agreeing * 2 <= len(counting):
        why = Abstention(AbstentionReason.UNCERTAIN, f"the votes are split: {_describe(cast)}")
        return Decision(TraceLabel(trace_id, abstention=why, meta=meta), is_split=True)
    winning = [one.label for one in counting if one.vote.first_error == winner]
    n_steps = len(winning[0].step_labels)
    first = winner.index if winner.index is not None else n_steps
    steps = tuple(
        _majority_step([label.step_labels[t] for label in winning], is_open=t > first)
        for t in range(n_steps)
    )
    meta |= {"grounded": winning[0].meta["grounded"], "quotes": count_quotes(steps)}
    return Decision(_naming(trace_id, steps, winner.index, meta))


def decide_escalated(
    trace_id: str, cast: Sequence[CastVote], escalated: CastVote, config: JudgeConfig
) -> TraceLabel:
    """The label of a split after another model was asked: its label, or still `uncertain`.

    The vote share is that among all counting votes, including the escalated one.
    """
    votes = [*cast, escalated]
    counting = [one.vote.first_error for one in votes if not one.vote.first_error.missing]
    named = escalated.vote.first_error
    tally = _tally(votes, len(counting), 0 if named.missing else counting.count(named))
    meta = {"votes": tally | {"escalated": config.escalate}}
    if named.missing:
        second = f"{config.escalate}: {_describe_vote(escalated.vote)}"
        detail = f"the votes are split: {_describe(cast)}; {second}"
        label = abstained(trace_id, AbstentionReason.UNCERTAIN, detail)
        return replace(label, meta=meta)
    kept = {name: escalated.label.meta[name] for name in ("grounded", "quotes")}
    return _naming(trace_id, escalated.label.step_labels, named.index, meta | kept)


def _naming(
    trace_id: str, steps: tuple[StepLabel, ...], index: int | None, meta: dict[str, Any]
) -> TraceLabel:
    return TraceLabel(trace_id, steps, first_error_given=True, first_error_index=index, meta=meta)


def _tally(cast: Sequence[CastVote], counting: int, agreeing: int) -> dict[str, Any]:
    """The counts that are stored with the label; `share` is null if no vote counts."""
    return {
        "cast": len(cast),
        "counting": counting,
        "agreeing": agreeing,
        "share": agreeing / counting if counting else None,
    }


def _too_few(trace_id: str, cast: Sequence[CastVote], counting: int) -> TraceLabel:
    """The abstention if fewer than two votes count, with the reason of the first that does not."""
    silent = next(one for one in cast if one.vote.first_error.missing)
    reason = silent.vote.abstention or next(
        step.abstention for step in silent.label.step_labels if step.abstention is not None
    )
    detail = f"{counting} of {len(cast)} votes name a first error; {reason.reason}: {reason.detail}"
    meta = {"votes": _tally(cast, counting, counting)}
    return TraceLabel(trace_id, abstention=Abstention(reason.reason, detail), meta=meta)


def _majority_step(steps: Sequence[StepLabel], *, is_open: bool) -> StepLabel:
    """The majority of the agreeing votes on one step; ties as described above."""
    given = [verdict_or_reason(step) for step in steps]
    (winner, count), *others = Counter(given).most_common(2)
    if others and others[0][1] == count and is_open:
        detail = f"after the first error the votes say: {', '.join(given)}"
        return StepLabel(abstention=Abstention(AbstentionReason.UNCERTAIN, detail))
    winning = [step for step, one in zip(steps, given, strict=True) if one == winner]
    return next((step for step in winning if step.quote and step.quote.verified), winning[0])


def _describe(cast: Sequence[CastVote]) -> str:
    return ", ".join(_describe_vote(one.vote) for one in cast)


def _describe_vote(vote: Vote) -> str:
    if vote.abstention is not None:
        return vote.abstention.reason.value
    if vote.first_error.missing:
        return "first error left open"
    index = vote.first_error.index
    return "no error" if index is None else f"step {index + 1}"
