"""Collects one model's votes over many traces: further votes go out while others are on the wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from inference.images import EncodedImage, ProblemImages
from inference.protocol import GenerationRequest, TextModel
from judge.config import JudgeConfig
from judge.prompt import counter_of
from judge.voting import Ballot, CastVote, votes_needed
from traces.errors import ModelError
from traces.labels import Abstention, TraceLabel
from traces.privacy import refuse_phi
from traces.problem import TraceInContext
from traces.records import ModelReply


class Runner(Protocol):
    """What the judge needs of `inference.dispatch.Dispatcher`."""

    @property
    def model(self) -> TextModel:
        """The model that answers."""

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, ModelReply | ModelError]]:
        """Answer requests in any order, each recorded before it is yielded."""


@dataclass(frozen=True, slots=True)
class Polled:
    """A trace whose voting is over."""

    context: TraceInContext
    """The trace."""
    votes: tuple[CastVote, ...]
    """Its votes in order; empty if the trace must not be sent."""
    refusal: TraceLabel | None = None
    """Why it must not, or cannot, be sent; None if it was."""


@dataclass(slots=True)
class _Voting:
    """A trace whose voting is not over."""

    context: TraceInContext
    images: tuple[EncodedImage, ...] = ()
    open: dict[int, Ballot] = field(default_factory=dict)
    cast: dict[int, CastVote] = field(default_factory=dict)


class Poll:
    """The votes of one model. One caller at a time; may be run again."""

    def __init__(
        self,
        runner: Runner,
        config: JudgeConfig,
        *,
        allow_phi: bool = False,
        in_rounds: bool = False,
        first_sample: int = 0,
        images: ProblemImages | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            runner: sends and records the calls.
            config: how to ask, and how often.
            allow_phi: whether problems marked `phi_removed: false` may go to a hosted model.
            in_rounds: True if the runner answers in rounds (a batch service): whatever is certainly
                needed is asked at once. Otherwise votes go out one after the other and a trace's
                further steps behind its first, so that the provider's prefix cache is warm and
                no vote is bought before it is known to be needed; other traces fill the window.
            first_sample: as for `render_vote`.
            images: loads the images of problems; None starts relative paths from the current folder.
        """
        self._runner = runner
        self._config = config
        self._allow_phi = allow_phi
        self._at_once = in_rounds
        self._first_sample = first_sample
        self._images = images or ProblemImages()
        self._votings: dict[str, _Voting] = {}
        self._queue: deque[GenerationRequest] = deque()
        self._done: deque[Polled] = deque()

    def run(self, contexts: Iterable[TraceInContext]) -> Iterator[Polled]:
        """Yield every trace once its voting is over, in any order; see `RagJudge.judge`."""
        source = iter(contexts)
        while True:
            for request, outcome in self._runner.run(self._draw(source)):
                self._receive(request, outcome)
                yield from self._finished()
            yield from self._finished()
            if not self._queue:  # no trace is left and nothing was asked for by the last replies
                break
        if self._votings:  # a trace must never get lost in silence
            raise RuntimeError(f"the runner left {len(self._votings)} traces without their replies")

    def _draw(self, source: Iterator[TraceInContext]) -> Iterator[GenerationRequest]:
        """What to send: what open traces need first, then new traces, as the runner has room.

        It ends when nothing is to be sent just now; what the replies still on the wire ask for is
        drawn by the next round.
        """
        while True:
            while self._queue:
                yield self._queue.popleft()
            context = next(source, None)
            if context is None:
                return
            voting = self._opened(context)
            if isinstance(voting, TraceLabel):
                self._done.append(Polled(context, (), voting))
                continue
            self._votings[context.trace.id] = voting
            self._ask_further(voting)

    def _opened(self, context: TraceInContext) -> _Voting | TraceLabel:
        """The voting on a trace, or why it must not or cannot be sent."""
        hosted = self._runner.model.hosted
        refusal = refuse_phi(context, hosted=hosted, allow_phi=self._allow_phi)
        if refusal is not None or not self._config.show_images:
            return refusal or _Voting(context)
        images = self._images.sendable(context.problem, hosted=hosted, allow_phi=self._allow_phi)
        if isinstance(images, Abstention):
            return TraceLabel(context.trace.id, abstention=images)
        return _Voting(context, images)

    def _ask_further(self, voting: _Voting) -> None:
        """Queue the votes that are certainly needed, or hand the trace on."""
        cast = [voting.cast[index].vote for index in sorted(voting.cast)]
        needed = votes_needed(cast, self._config)
        if not needed:
            del self._votings[voting.context.trace.id]
            votes = tuple(voting.cast[index] for index in sorted(voting.cast))
            self._done.append(Polled(voting.context, votes))
            return
        one_first = not self._at_once and not cast  # the first vote warms the cache
        for index in range(len(cast), len(cast) + (1 if one_first else needed)):
            ballot = Ballot(
                voting.context,
                self._config,
                self._runner.model.spec,
                index,
                self._first_sample,
                counter_of(self._runner.model),
                voting.images,
            )
            voting.open[index] = ballot
            self._queue.extend(ballot.requests(at_once=self._at_once))

    def _receive(self, request: GenerationRequest, outcome: ModelReply | ModelError) -> None:
        voting = self._votings[request.meta["trace_id"]]
        index = request.meta["vote"]
        ballot = voting.open[index]
        self._queue.extend(ballot.receive(request, outcome, at_once=self._at_once))
        if not ballot.is_complete:
            return
        del voting.open[index]
        voting.cast[index] = ballot.cast()
        if not voting.open:
            self._ask_further(voting)

    def _finished(self) -> Iterator[Polled]:
        while self._done:
            yield self._done.popleft()
