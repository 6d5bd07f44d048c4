"""The judge: evidence and a trace go out, one verdict a step comes back, with its votes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from inference.images import ProblemImages
from judge.config import JudgeConfig
from judge.poll import Poll, Polled, Runner
from judge.voting import CastVote, decide, decide_escalated
from traces.labels import TraceLabel, Vote
from traces.problem import TraceInContext

__all__ = ["JudgedTrace", "RagJudge", "Runner"]


@dataclass(frozen=True, slots=True)
class JudgedTrace:
    """A judge's word on a trace, with everything that it was made from."""

    label: TraceLabel
    """The word."""
    votes: tuple[Vote, ...] = ()
    """The votes behind it, the escalation's last; empty if the trace was not sent."""


class RagJudge:
    """Judges traces on their retrieved evidence (RAG-as-a-judge); `labeling.stages.Judge`."""

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
            escalation: makes the runner of `config.escalate`; called after the votes, if at all.
            in_rounds: whether the runner answers in rounds; see `Poll`.
            first_sample: sample index of the first vote: above 0 asks anew what is stored.
            images: loads the images of problems; None starts relative paths from the current folder.
        """
        self._runner = runner
        self._config = config or JudgeConfig()
        self._allow_phi = allow_phi
        self._escalation = escalation
        self._in_rounds = in_rounds
        self._first_sample = first_sample
        self._images = images
        self.resolved_models: set[str] = set()
        """The model versions that really answered, as far as the service says."""

    @property
    def config(self) -> JudgeConfig:
        """How this judge asks."""
        return self._config

    def judge(self, contexts: Iterable[TraceInContext]) -> Iterator[TraceLabel]:
        """Yield one label per trace as replies come in, in any order.

        A trace that cannot be judged is an abstention, also where an image of its problem cannot be
        read; one that must not leave this machine is never sent (`traces.privacy`). A label's meta names the `resolved_model` where it is known.
        Raises ModelRefused, QuotaExhausted and BudgetExhausted, which end the run; what was yielded
        before stays valid.
        """
        for judged in self.judge_with_votes(contexts):
            yield judged.label

    def judge_with_votes(self, contexts: Iterable[TraceInContext]) -> Iterator[JudgedTrace]:
        """As `judge`, with the votes behind each label.

        Splits that are to be escalated come last, after all traces that agree.
        """
        config = self._config
        splits: list[Polled] = []
        for polled in self._poll(self._runner, config).run(contexts):
            if polled.refusal is not None:
                yield JudgedTrace(polled.refusal)
                continue
            decision = decide(polled.context.trace.id, polled.votes, config)
            if decision.is_split and self._escalation is not None:
                splits.append(polled)
            else:
                yield self._judged(decision.label, polled.votes)
        if splits and self._escalation is not None:
            yield from self._escalate(splits, self._escalation())

    def _escalate(self, splits: list[Polled], runner: Runner) -> Iterator[JudgedTrace]:
        """Put the splits to another model, one vote each."""
        first = {polled.context.trace.id: polled for polled in splits}
        single = replace(self._config, votes=1, temperature=0.0, escalate=None)
        for polled in self._poll(runner, single).run(split.context for split in splits):
            trace_id = polled.context.trace.id
            votes = first.pop(trace_id).votes
            if polled.refusal is None:
                asked = polled.votes[0]
                label = decide_escalated(trace_id, votes, asked, self._config)
                escalated = replace(asked, vote=replace(asked.vote, escalated=True))
                yield self._judged(label, (*votes, escalated))
                continue
            # a split that must not leave this machine stays one, and says so
            label = decide(trace_id, votes, self._config).label
            if label.abstention is not None and polled.refusal.abstention is not None:
                detail = f"{label.abstention.detail}; {polled.refusal.abstention.detail}"
                label = replace(label, abstention=replace(label.abstention, detail=detail))
            yield self._judged(label, votes)

    def _poll(self, runner: Runner, config: JudgeConfig) -> Poll:
        return Poll(
            runner,
            config,
            allow_phi=self._allow_phi,
            in_rounds=self._in_rounds,
            first_sample=self._first_sample,
            images=self._images,
        )

    def _judged(self, label: TraceLabel, votes: tuple[CastVote, ...]) -> JudgedTrace:
        versions = {
            version
            for one in votes
            if one.vote.resolved_model
            for version in one.vote.resolved_model.split(", ")
        }
        self.resolved_models |= versions
        if versions:
            meta = {**label.meta, "resolved_model": ", ".join(sorted(versions))}
            label = replace(label, meta=meta)
        return JudgedTrace(label, tuple(one.vote for one in votes))
