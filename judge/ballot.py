"""One vote in the making: the calls it takes, what came back, and the label they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.keys import request_key
from inference.protocol import GenerationRequest
from judge.config import JudgeConfig
from judge.prompt import render_vote
from judge.reply import Reading, count_quotes, read_reply
from judge.tokens import estimate_tokens
from retrieval.documents import TokenCounter
from traces.abstention import Abstention, AbstentionReason
from traces.context import TraceInContext
from traces.errors import ModelError
from traces.first_error import first_error
from traces.labels import StepLabel, TraceLabel, Verdict
from traces.records import ModelReply
from traces.votes import Vote

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
