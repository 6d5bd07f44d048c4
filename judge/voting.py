"""How votes become one verdict: when voting ends, what a majority is, what becomes of a split.

A vote *counts* if it names a first error ("no error" included): one that abstains, or that leaves a
step open before its first error, is stored and counts for nothing. Voting ends as soon as `agree`
counting votes are in and all counting votes name the same first error, or when all votes are cast.

A *majority* is a first error named by more than half of the counting votes, and by at least two.
Without one the trace is *split* if two votes or more count; else too few votes have a word at all.

The first error is what is voted on. Step verdicts follow from the votes that name it, step by step:
each step gets what most of them say, with the reasoning and the quote of the first that says it
(one with a verified quote, if there is one). Where they are split, a step before the first error is
`neutral` or `correct` as the first of them says (neither is an error), and a step behind it
is `uncertain`: nobody voted on it, and nothing is rewritten by Med-PRM's first-zero rule here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inference.protocol import GenerationRequest, request_key
from judge.config import JudgeConfig
from judge.prompt import estimate_tokens, render_vote
from judge.reply import Reading, count_quotes, read_reply
from retrieval.tokens import TokenCounter
from traces.errors import ModelError
from traces.labels import (
    Abstention,
    AbstentionReason,
    StepLabel,
    TraceLabel,
    Verdict,
    Vote,
    abstained,
    first_error,
)
from traces.problem import TraceInContext
from traces.records import ModelReply

if TYPE_CHECKING:
    from inference.images import EncodedImage


@dataclass(frozen=True, slots=True)
class CastVote:
    """A vote with the label that it is worth."""

    vote: Vote
    """What is stored of it."""
    label: TraceLabel
    """The model's word on the trace, with reasoning and quotes."""


class Ballot:
    """Collects the replies of one vote on one trace."""

    def __init__(
        self,
        context: TraceInContext,
        config: JudgeConfig,
        spec: str,
        vote: int,
        first_sample: int = 0,
        count_tokens: TokenCounter = estimate_tokens,
        images: tuple[EncodedImage, ...] = (),
    ) -> None:
        """Render the calls; nothing is sent.

        Args:
            context: the trace.
            config: how to ask.
            spec: the model as the user named it.
            vote: 0-based number of the vote.
            first_sample: as for `render_vote`.
            count_tokens: as for `render_vote`.
            images: as for `render_vote`.
        """
        self._context = context
        self._config = config
        self._spec = spec
        self._vote = vote
        self._calls = render_vote(
            context,
            config,
            vote,
            first_sample=first_sample,
            count_tokens=count_tokens,
            images=images,
        )
        self._readings: dict[int, Reading] = {}
        self._resolved: set[str] = set()

    def requests(self, *, at_once: bool) -> list[GenerationRequest]:
        """What to send first: everything, or the call that fills the provider's prefix cache."""
        return [call.request for call in (self._calls if at_once else self._calls[:1])]

    def receive(
        self, request: GenerationRequest, outcome: ModelReply | ModelError, *, at_once: bool
    ) -> list[GenerationRequest]:
        """Read a reply; return what is to be sent next: the other calls, behind the first one."""
        place = request.meta.get("step_index", 0)
        call = self._calls[place]
        if isinstance(outcome, ModelError):
            self._readings[place] = Abstention(AbstentionReason.MODEL_ERROR, outcome.what)
        else:
            if outcome.resolved_model is not None:
                self._resolved.add(outcome.resolved_model)
            self._readings[place] = read_reply(
                outcome.text,
                outcome.finish_reason,
                call.asked,
                call.shown.kept,
                require_quotes=self._config.require_quotes,
            )
        return [] if at_once or place else [call.request for call in self._calls[1:]]

    @property
    def is_complete(self) -> bool:
        """Whether all replies are there."""
        return len(self._readings) == len(self._calls)

    def cast(self) -> CastVote:
        """The vote that the replies add up to."""
        readings = [self._readings[place] for place in range(len(self._calls))]
        label = label_of(
            self._context.trace.id,
            readings,
            grounded=bool(self._calls[0].shown.kept),
            resolved_model=", ".join(sorted(self._resolved)) or None,
        )
        keys = tuple(request_key(self._spec, call.request) for call in self._calls)
        return CastVote(_vote(label, self._vote, self._spec, keys), label)


def label_of(
    trace_id: str,
    readings: Sequence[Reading],
    *,
    grounded: bool,
    resolved_model: str | None = None,
) -> TraceLabel:
    """The label that the readings of a trace's calls add up to.

    A call without a reading leaves its step without a word; if no call has one, the trace has none.

    Args:
        trace_id: the trace.
        readings: one for the whole trace, or one per step in order.
        grounded: whether the calls showed documents.
        resolved_model: the version that answered.

    Returns:
        A label whose meta holds `grounded`, the tally `quotes` and, if known, `resolved_model`.
    """
    more = {} if resolved_model is None else {"resolved_model": resolved_model}
    faults = [reading for reading in readings if isinstance(reading, Abstention)]
    if len(faults) == len(readings):
        return TraceLabel(trace_id, abstention=faults[0], meta=more)
    steps = tuple(
        step
        for reading in readings
        for step in (
            (StepLabel(abstention=reading),) if isinstance(reading, Abstention) else reading
        )
    )
    return TraceLabel(
        trace_id, steps, meta={"grounded": grounded, "quotes": count_quotes(steps), **more}
    )


def _vote(label: TraceLabel, index: int, spec: str, keys: tuple[str, ...]) -> Vote:
    return Vote(
        label.trace_id,
        index,
        spec,
        label.meta.get("resolved_model"),
        tuple(word_of(step) for step in label.step_labels),
        first_error(label),
        keys,
        label.abstention,
    )


def word_of(step: StepLabel) -> Verdict | AbstentionReason:
    """A judge's word on a step: its verdict, or why there is none."""
    if step.verdict is not None:
        return step.verdict
    return step.abstention.reason if step.abstention else AbstentionReason.NOT_MEASURED


# --- How votes become one verdict: when voting ends, what a majority is, what becomes of a split


@dataclass(frozen=True, slots=True)
class Decision:
    """What the votes on a trace come to."""

    label: TraceLabel
    """The label; for a split the abstention `uncertain`."""
    is_split: bool = False
    """Whether the votes count but agree on nothing: what an escalation is for."""


def votes_needed(votes: Sequence[Vote], config: JudgeConfig) -> int:
    """How many further votes are certainly needed, at least 0; 0 when voting is over.

    >>> votes_needed([], JudgeConfig(votes=3, temperature=0.7))
    2
    """
    named = {vote.first_error for vote in votes if not vote.first_error.missing}
    left = config.votes - len(votes)
    if len(named) > 1:  # they can never all agree again
        return left
    counting = sum(not vote.first_error.missing for vote in votes)
    return min(left, max(0, min(config.agree, config.votes) - counting))


def decide(trace_id: str, cast: Sequence[CastVote], config: JudgeConfig) -> Decision:
    """What the votes on a trace come to, after the last one.

    Args:
        trace_id: the trace.
        cast: its votes in order, at least one.
        config: how many votes there were to be; one vote is the label itself.
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
        words = Abstention(AbstentionReason.UNCERTAIN, f"the votes are split: {_say(cast)}")
        return Decision(TraceLabel(trace_id, abstention=words, meta=meta), is_split=True)
    behind = [one.label for one in counting if one.vote.first_error == winner]
    first = winner.index if winner.index is not None else len(behind[0].step_labels)
    steps = tuple(
        _most_say([label.step_labels[t] for label in behind], is_open=t > first)
        for t in range(len(behind[0].step_labels))
    )
    meta |= {"grounded": behind[0].meta["grounded"], "quotes": count_quotes(steps)}
    return Decision(TraceLabel(trace_id, steps, True, winner.index, meta=meta))


def decide_escalated(
    trace_id: str, cast: Sequence[CastVote], escalated: CastVote, config: JudgeConfig
) -> TraceLabel:
    """The label of a split after another model was asked: its word, or still `uncertain`.

    The vote share is that of all counting votes, the escalation's included.
    """
    votes = [*cast, escalated]
    counting = [one.vote.first_error for one in votes if not one.vote.first_error.missing]
    word = escalated.vote.first_error
    tally = _tally(votes, len(counting), 0 if word.missing else counting.count(word))
    meta = {"votes": tally | {"escalated": config.escalate}}
    if word.missing:
        detail = f"the votes are split: {_say(cast)}; {config.escalate}: {_word(escalated.vote)}"
        label = abstained(trace_id, AbstentionReason.UNCERTAIN, detail)
        return replace(label, meta=meta)
    kept = {name: escalated.label.meta[name] for name in ("grounded", "quotes")}
    return TraceLabel(trace_id, escalated.label.step_labels, True, word.index, meta=meta | kept)


def _tally(cast: Sequence[CastVote], counting: int, agreeing: int) -> dict[str, Any]:
    """What of the votes is kept with the label; `share` is null where none counts."""
    return {
        "cast": len(cast),
        "counting": counting,
        "agreeing": agreeing,
        "share": agreeing / counting if counting else None,
    }


def _too_few(trace_id: str, cast: Sequence[CastVote], counting: int) -> TraceLabel:
    """The abstention where fewer than two votes have a word; its reason is the first one's."""
    silent = next(one for one in cast if one.vote.first_error.missing)
    reason = silent.vote.abstention or next(
        step.abstention for step in silent.label.step_labels if step.abstention is not None
    )
    detail = f"{counting} of {len(cast)} votes name a first error; {reason.reason}: {reason.detail}"
    meta = {"votes": _tally(cast, counting, counting)}
    return TraceLabel(trace_id, abstention=Abstention(reason.reason, detail), meta=meta)


def _most_say(steps: Sequence[StepLabel], *, is_open: bool) -> StepLabel:
    """What most of the agreeing votes say about one step; see the module's rule for ties."""
    words = [word_of(step) for step in steps]
    (word, count), *others = Counter(words).most_common(2)
    if others and others[0][1] == count and is_open:
        said = ", ".join(words)
        return StepLabel(
            abstention=Abstention(
                AbstentionReason.UNCERTAIN, f"behind the first error the votes say: {said}"
            )
        )
    saying = [step for step, said in zip(steps, words, strict=True) if said == word]
    return next((step for step in saying if step.quote and step.quote.verified), saying[0])


def _say(cast: Sequence[CastVote]) -> str:
    return ", ".join(_word(one.vote) for one in cast)


def _word(vote: Vote) -> str:
    if vote.abstention is not None:
        return vote.abstention.reason.value
    if vote.first_error.missing:
        return "first error left open"
    index = vote.first_error.index
    return "no error" if index is None else f"step {index + 1}"
