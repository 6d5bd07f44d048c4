"""The judge: evidence and a trace go out, a verdict on every step comes back, with its votes.

Votes are collected over many traces at once: further votes are sent while others are in flight.

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

A prompt with `voting = "most-common"` (ProcessBench's critic) counts answers as they are written
instead: the most frequent one wins, the earliest of equally frequent ones, even if it names no
step. Voting ends once further votes cannot change that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inference import EncodedImage, GenerationRequest, ProblemImages, Runner, key_for
from judge.config import JudgeConfig
from judge.prompt import counter_of, render_vote
from judge.reply import Reading, count_quotes, label_readings, read_reply, said_in
from judge.tasks import run_tasks
from traces import (
    Abstention,
    AbstentionReason,
    LabeledTrace,
    ModelError,
    ModelReply,
    StepLabel,
    TraceInContext,
    TraceLabel,
    Verdict,
    Vote,
    abstained,
    first_error,
    refuse_phi,
)


@dataclass(frozen=True, slots=True)
class CastVote:
    """A vote and the label from which it was made."""

    vote: Vote
    """What is stored."""
    label: TraceLabel
    """The model's label of the trace, with reasoning and quotes."""
    answer: str | None = None
    """What it counts under where the most common answer wins; None if it says nothing."""


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


def votes_needed(
    votes: Sequence[Vote], config: JudgeConfig, answers: Sequence[str | None] = ()
) -> int:
    """Number of further votes that are certainly needed; 0 when voting is over.

    `answers` are those of the votes, in order, where the most common one wins.

    >>> votes_needed([], JudgeConfig(votes=3, temperature=0.7))
    2
    """
    left = config.votes - len(votes)
    if config.template.protocol.voting == "most-common" and config.votes > 1:
        given = [one for one in answers if one is not None]
        return next((n for n in range(left) if _is_settled(given, n, left - n)), left)
    named = {vote.first_error for vote in votes if not vote.first_error.missing}
    if len(named) > 1:  # they can no longer all agree
        return left
    counting = sum(not vote.first_error.missing for vote in votes)
    return min(left, max(0, min(config.agree, config.votes) - counting))


def _is_settled(answers: Sequence[str], more: int, left: int) -> bool:
    """Whether `left` votes cannot change the winner, once `more` votes went to it."""
    if not answers:
        # Before the first answer, the winner is whichever comes: it needs half of all votes.
        return more >= left
    ranked = Counter(answers).most_common()
    winner, count = ranked[0]
    order = list(dict.fromkeys(answers))
    ahead = count + more
    return left <= ahead and all(
        times + left < ahead or (times + left == ahead and order.index(winner) < order.index(one))
        for one, times in ranked[1:]
    )


def decide(trace_id: str, cast: Sequence[CastVote], config: JudgeConfig) -> Decision:
    """The outcome of the votes on a trace, after the last one.

    Args:
        trace_id: the trace.
        cast: its votes in order, at least one.
        config: how many votes were planned; a single one is the label itself.
    """
    if config.votes == 1:
        return Decision(cast[0].label)
    if config.template.protocol.voting == "most-common":
        return Decision(_most_common(trace_id, cast))
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


def _most_common(trace_id: str, cast: Sequence[CastVote]) -> TraceLabel:
    """The label of the most frequent answer, of the earliest of equally frequent ones."""
    answers = Counter(one.answer for one in cast if one.answer is not None)
    if not answers:
        return _too_few(trace_id, cast, 0)
    winner, agreeing = answers.most_common(1)[0]
    label = next(one.label for one in cast if one.answer == winner)
    tally = _tally(cast, answers.total(), agreeing)
    return replace(label, meta={**label.meta, "votes": tally})


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


class RagJudge:
    """Judges traces on their retrieved evidence (RAG-as-a-judge); implements `labeling.Judge`."""

    def __init__(
        self,
        runner: Runner,
        config: JudgeConfig | None = None,
        *,
        allow_phi: bool = False,
        escalation: Callable[[], Runner] | None = None,
        in_rounds: bool = False,
        first_sample: int = 0,
        images: ProblemImages | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            runner: sends and records the calls.
            config: how to ask; None takes the packaged prompt and the defaults.
            allow_phi: whether problems marked `phi_removed: false` may go to a hosted model.
            escalation: makes the runner of `config.escalate`; called once, after the votes, if any
                trace is split.
            in_rounds: whether the runner answers in rounds (a batch service). Then all votes and
                calls that are certainly needed are sent at once. Otherwise a trace's votes are sent
                one after the other, and its other steps after the first one, so that the provider's
                prefix cache is warm and no unneeded vote is paid for; other traces fill the window.
            first_sample: sample index of the first vote; above 0 it asks again what is stored.
            images: loads the images of problems; None resolves relative paths from the current
                folder.
        """
        self._runner = runner
        self._config = config or JudgeConfig()
        self._allow_phi = allow_phi
        self._escalation = escalation
        self._in_rounds = in_rounds
        self._first_sample = first_sample
        self._images = images or ProblemImages()
        self.resolved_models: set[str] = set()
        """The model versions that answered, as far as the service reports them."""

    @property
    def config(self) -> JudgeConfig:
        """How this judge asks."""
        return self._config

    def judge(self, contexts: Iterable[TraceInContext]) -> Iterator[LabeledTrace]:
        """Yield one label per trace, with its votes, as replies come in, in any order.

        A trace that cannot be judged is an abstention, also if an image of its problem cannot be
        read. A trace that must not leave this machine is never sent (`traces.privacy`). Splits that
        are escalated come last.

        Raises:
            ModelRefused, QuotaExhausted, BudgetExhausted: the run ends; what was yielded stays
                valid.
        """
        config = self._config
        splits: list[_VotedTrace] = []
        for collected in self._collect(self._runner, config, contexts):
            if collected.refusal is not None:
                yield self._labeled(collected.refusal, ())
                continue
            decision = decide(collected.context.trace.id, collected.votes, config)
            if decision.is_split and self._escalation is not None:
                splits.append(collected)
            else:
                yield self._labeled(decision.label, collected.votes)
        if splits and self._escalation is not None:
            yield from self._escalate(splits, self._escalation())

    def _escalate(self, splits: list[_VotedTrace], runner: Runner) -> Iterator[LabeledTrace]:
        """Ask another model about the splits, one vote each."""
        first = {split.context.trace.id: split for split in splits}
        single = replace(self._config, votes=1, temperature=0.0, escalate=None)
        for collected in self._collect(runner, single, (split.context for split in splits)):
            trace_id = collected.context.trace.id
            votes = first.pop(trace_id).votes
            if collected.refusal is None:
                asked = collected.votes[0]
                label = decide_escalated(trace_id, votes, asked, self._config)
                escalated = replace(asked, vote=replace(asked.vote, escalated=True))
                yield self._labeled(label, (*votes, escalated))
                continue
            # A split that must not leave this machine stays a split, with that reason added.
            label = decide(trace_id, votes, self._config).label
            if label.abstention is not None and collected.refusal.abstention is not None:
                detail = f"{label.abstention.detail}; {collected.refusal.abstention.detail}"
                label = replace(label, abstention=replace(label.abstention, detail=detail))
            yield self._labeled(label, votes)

    def _collect(
        self, runner: Runner, config: JudgeConfig, contexts: Iterable[TraceInContext]
    ) -> Iterator[_VotedTrace]:
        asking = _Asking(runner, config, at_once=self._in_rounds, first_sample=self._first_sample)
        return run_tasks(runner, (self._opened(context, asking) for context in contexts))

    def _opened(self, context: TraceInContext, asking: _Asking) -> _VotedTrace:
        """The trace, ready for its votes, or with why it must not or cannot be sent."""
        hosted = asking.runner.model.hosted
        refusal = refuse_phi(context, hosted=hosted, allow_phi=self._allow_phi)
        if refusal is not None or not asking.config.show_images:
            return _VotedTrace(context, asking, refusal)
        images = self._images.sendable(context.problem, hosted=hosted, allow_phi=self._allow_phi)
        if isinstance(images, Abstention):
            refusal = TraceLabel(context.trace.id, abstention=images)
            return _VotedTrace(context, asking, refusal)
        return _VotedTrace(context, asking, images=images)

    def _labeled(self, label: TraceLabel, votes: tuple[CastVote, ...]) -> LabeledTrace:
        versions = {
            version
            for one in votes
            if one.vote.resolved_model
            for version in one.vote.resolved_model.split(", ")
        }
        self.resolved_models |= versions
        resolved = ", ".join(sorted(versions)) or None
        if resolved is not None:
            label = replace(label, meta={**label.meta, "resolved_model": resolved})
        prompt = self._config.template
        return LabeledTrace(
            label,
            votes=tuple(one.vote for one in votes),
            resolved_model=resolved,
            prompt=(prompt.sha256, prompt.text),
        )


@dataclass(frozen=True, slots=True)
class _Asking:
    """How one model is asked; arguments as those of `RagJudge`."""

    runner: Runner
    config: JudgeConfig
    at_once: bool
    first_sample: int


class _VotedTrace:
    """The votes of one model on one trace: a task of `judge.tasks`."""

    def __init__(
        self,
        context: TraceInContext,
        asking: _Asking,
        refusal: TraceLabel | None = None,
        *,
        images: tuple[EncodedImage, ...] = (),
    ) -> None:
        self.context, self.asking, self.images = context, asking, images
        self.refusal = refusal
        """Why the trace must not or cannot be sent; None if it is sent."""
        self.is_done = False
        self._calls: dict[int, _VoteCalls] = {}
        self._cast: dict[int, CastVote] = {}

    @property
    def trace_id(self) -> str:
        """The trace."""
        return self.context.trace.id

    @property
    def votes(self) -> tuple[CastVote, ...]:
        """The votes cast so far, in order."""
        return tuple(self._cast[index] for index in sorted(self._cast))

    def start(self) -> Sequence[GenerationRequest]:
        """The first vote's requests."""
        self.is_done = self.refusal is not None
        return () if self.is_done else self._ask_further()

    def _ask_further(self) -> list[GenerationRequest]:
        """Ask for the votes that are certainly needed; without any, the trace is done."""
        votes, asking = self.votes, self.asking
        answers = [one.answer for one in votes]
        needed = votes_needed([one.vote for one in votes], asking.config, answers)
        self.is_done = not needed
        one_first = not asking.at_once and not votes  # the first vote warms the cache
        requests: list[GenerationRequest] = []
        for index in range(len(votes), len(votes) + (min(1, needed) if one_first else needed)):
            self._calls[index] = calls = _VoteCalls(self, vote=index)
            requests += calls.first_requests()
        return requests

    def receive(
        self, request: GenerationRequest, outcome: ModelReply | ModelError
    ) -> Sequence[GenerationRequest]:
        """Read a reply; return what to send next."""
        index = request.meta["vote"]
        calls = self._calls[index]
        further = calls.receive(request, outcome)
        if not calls.is_complete:
            return further
        del self._calls[index]
        self._cast[index] = calls.cast()
        return further if self._calls else [*further, *self._ask_further()]


class _VoteCalls:
    """The calls of one vote on one trace, and their replies."""

    def __init__(self, trace: _VotedTrace, *, vote: int) -> None:
        asking = trace.asking
        config, runner, first_sample = asking.config, asking.runner, asking.first_sample
        self._trace_id = trace.trace_id
        self._config, self._vote, self._at_once = config, vote, asking.at_once
        self._model = runner.model
        self._calls = render_vote(
            trace.context,
            config,
            vote,
            first_sample=first_sample,
            count_tokens=counter_of(runner.model),
            images=trace.images,
        )
        self._readings: dict[int, Reading] = {}
        self._resolved: set[str] = set()
        self._answer: str | None = None

    def first_requests(self) -> list[GenerationRequest]:
        """All requests, or the one that fills the provider's prefix cache."""
        return [call.request for call in (self._calls if self._at_once else self._calls[:1])]

    def receive(
        self, request: GenerationRequest, outcome: ModelReply | ModelError
    ) -> list[GenerationRequest]:
        """Read a reply; return what to send next: the other calls, after the first one."""
        place = request.meta.get("step_index", 0)
        call = self._calls[place]
        if isinstance(outcome, ModelError):
            self._readings[place] = Abstention(AbstentionReason.MODEL_ERROR, outcome.what)
        else:
            if outcome.resolved_model is not None:
                self._resolved.add(outcome.resolved_model)
            reading = read_reply(
                outcome.text,
                outcome.finish_reason,
                call.asked,
                call.shown.kept,
                protocol=self._config.template.protocol,
                require_quotes=self._config.require_quotes,
                raw=outcome.raw,
            )
            if isinstance(reading, Abstention) and outcome.only_reasoning is not None:
                reading = replace(reading, detail=outcome.only_reasoning)
            self._readings[place] = reading
            if outcome.finish_reason == "stop":
                self._answer = said_in(outcome.text, self._config.template.protocol)
        return [] if self._at_once or place else [call.request for call in self._calls[1:]]

    @property
    def is_complete(self) -> bool:
        """Whether all replies have been received."""
        return len(self._readings) == len(self._calls)

    def cast(self) -> CastVote:
        """The vote that the replies add up to."""
        label = label_readings(
            self._trace_id,
            [self._readings[place] for place in range(len(self._calls))],
            grounded=bool(self._calls[0].shown.kept),
            resolved_model=", ".join(sorted(self._resolved)) or None,
        )
        vote = Vote(
            trace_id=label.trace_id,
            index=self._vote,
            model=self._model.spec,
            resolved_model=label.meta.get("resolved_model"),
            words=tuple(verdict_or_reason(step) for step in label.step_labels),
            first_error=first_error(label),
            request_keys=tuple(key_for(self._model, call.request) for call in self._calls),
            abstention=label.abstention,
        )
        return CastVote(vote, label, self._answer)
