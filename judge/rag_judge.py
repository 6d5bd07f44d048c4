"""The judge: one call a trace, through the dispatcher, to verdicts with verified quotes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from inference.protocol import GenerationRequest, TextModel
from judge.prompt import JudgeConfig, RenderedJudgement, render_judgement
from judge.reply import parse_reply
from traces.abstention import AbstentionReason
from traces.context import TraceInContext
from traces.errors import ModelError
from traces.labels import TraceLabel, abstained
from traces.privacy import refuse_phi
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


class RagJudge:
    """Judges whole traces on their retrieved evidence (RAG-as-a-judge); `labeling.stages.Judge`."""

    def __init__(
        self, runner: Runner, config: JudgeConfig | None = None, *, allow_phi: bool = False
    ) -> None:
        """Nothing is sent yet.

        Args:
            runner: sends and records the calls.
            config: how to ask; None takes the packaged prompt and the defaults.
            allow_phi: whether problems marked `phi_removed: false` may go to a hosted model.
        """
        self._runner = runner
        self._config = config or JudgeConfig()
        self._allow_phi = allow_phi
        self.resolved_models: set[str] = set()
        """The model versions that really answered, as far as the service says."""

    @property
    def config(self) -> JudgeConfig:
        """How this judge asks."""
        return self._config

    def judge(self, contexts: Iterable[TraceInContext]) -> Iterator[TraceLabel]:
        """Yield one label per trace as replies come in, in any order.

        A trace that cannot be judged is an abstention; one that must not leave this machine is
        never sent (`traces.privacy`). A label's meta names the `resolved_model` where it is known. Raises ModelRefused, QuotaExhausted and BudgetExhausted,
        which end the run; what was yielded before stays valid.
        """
        waiting: dict[str, tuple[TraceInContext, RenderedJudgement]] = {}
        refused: deque[TraceLabel] = deque()
        for request, outcome in self._runner.run(self._requests(contexts, waiting, refused)):
            yield from _drain(refused)
            context, rendered = waiting.pop(request.meta["trace_id"])
            yield self._label(context, rendered, outcome)
        yield from _drain(refused)

    def _requests(
        self,
        contexts: Iterable[TraceInContext],
        waiting: dict[str, tuple[TraceInContext, RenderedJudgement]],
        refused: deque[TraceLabel],
    ) -> Iterator[GenerationRequest]:
        """Render lazily: only what the runner's window asks for is held in memory."""
        for context in contexts:
            hosted = self._runner.model.hosted
            refusal = refuse_phi(context, hosted=hosted, allow_phi=self._allow_phi)
            if refusal is not None:
                refused.append(refusal)
                continue
            rendered = render_judgement(context, self._config)
            waiting[context.trace.id] = (context, rendered)
            yield rendered.request

    def _label(
        self, context: TraceInContext, rendered: RenderedJudgement, outcome: ModelReply | ModelError
    ) -> TraceLabel:
        if isinstance(outcome, ModelError):
            return abstained(context.trace.id, AbstentionReason.MODEL_ERROR, outcome.what)
        label = parse_reply(outcome.text, outcome.finish_reason, context, rendered.shown.kept)
        if outcome.resolved_model is None:
            return label
        self.resolved_models.add(outcome.resolved_model)
        return replace(label, meta={**label.meta, "resolved_model": outcome.resolved_model})


def _drain(labels: deque[TraceLabel]) -> Iterator[TraceLabel]:
    while labels:
        yield labels.popleft()
