"""A policy behind a server: every prefix of every trace, continued k times, one request each.

Samples differ by `sample_index` and by a seed derived from run seed, trace, step and number, so
that any of them can be bought alone and found again. Prefixes are asked for in order: the next
one begins with the one before, which is what every server-side prefix cache lives on.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from inference.dispatch import Dispatcher, Outcome
from inference.images import EncodedImage, ProblemImages
from inference.prompting import (
    ContinuationPrompt,
    continuation_messages,
    prefix_text,
    render_question,
)
from inference.protocol import OVER_LENGTH, GenerationRequest, Message, Runner
from traces import (
    Abstention,
    AbstentionReason,
    Evidence,
    ModelError,
    ModelReply,
    PolicyText,
    Problem,
    ProblemSamples,
    SampledText,
    TraceContinuations,
    TraceInContext,
    Wanted,
    refuse_phi,
    withheld,
)

CONTINUE_IN_USER_TURN = (
    "Below is the beginning of a solution. Continue it exactly where it ends: do not repeat, "
    "correct or comment on what is already written, even if you disagree with it. Write one "
    'step a line and end with the line "The answer is X.", where X is {answer}.'
    "\n\n<solution>\n{prefix}</solution>"
)
"""For models that refuse to continue an assistant turn (Gemini 3 and later)."""


Images = tuple[EncodedImage, ...]
_Asked = tuple[TraceInContext, Sequence[Wanted]]
_Shown = tuple[TraceInContext, Sequence[Wanted], Images]


@dataclass(slots=True)
class _Open:
    """A trace whose continuations are on their way."""

    trace_id: str
    missing: int
    texts: list[PolicyText] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    abstention: Abstention | None = None

    def closed(self) -> TraceContinuations:
        texts = sorted(self.texts, key=lambda text: (text.step_index, text.index))
        kept = () if self.abstention else tuple(texts)
        versions = ", ".join(sorted(self.versions)) or None
        return TraceContinuations(self.trace_id, kept, versions, self.abstention)


class ServerPolicy:
    """Continues prefixes through a `Dispatcher`; keeps `labeling.stages.Policy`."""

    def __init__(
        self,
        dispatcher: Runner,
        prompt: ContinuationPrompt,
        *,
        max_tokens: int,
        temperature: float | None = 0.7,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        with_evidence: bool = True,
        allow_phi: bool = False,
        images: ProblemImages | None = None,
    ) -> None:
        """Join a model to a prompt.

        Args:
            dispatcher: sends, records and finds again.
            prompt: what surrounds question and prefix.
            max_tokens: limit of one continuation.
            temperature: sampling temperature; None for the server's default.
            top_p: nucleus; None for the server's default.
            stop: stop strings.
            with_evidence: whether the documents stand before the question.
            allow_phi: whether problems marked `phi_removed: false` may go to a hosted model.
            images: loads the images of problems; None starts relative paths from the current folder.
        """
        self._dispatcher = dispatcher
        self._prompt = prompt
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._top_p = top_p
        self._stop = tuple(stop)
        self._with_evidence = with_evidence
        self._allow_phi = allow_phi
        self._images = images or ProblemImages()

    @property
    def spec(self) -> str:
        """The policy as the user named it."""
        return self._dispatcher.model.spec

    def continue_traces(
        self, contexts: Iterable[TraceInContext], *, k: int, seed: int
    ) -> Iterator[TraceContinuations]:
        """Continue every prefix of every trace `k` times; yield traces as they are done.

        A trace with a continuation that could not be had at all (`model_error`), or whose prompt
        is too long (`over_length`), is yielded as an abstention; what was answered for it stays
        in the response store. One that must not leave this machine (`traces.privacy`), or with an
        image that cannot be read (`unreadable`), is never sent.

        Raises:
            ModelRefused, QuotaExhausted, BudgetExhausted: the run ends; traces yielded before
                stay valid.
        """
        yield from self._continue(
            (
                (one, [Wanted(step, 0, k) for step in range(len(one.trace.steps))])
                for one in contexts
            ),
            seed,
        )

    def continue_wanted(
        self, asked: Sequence[tuple[TraceInContext, Sequence[Wanted]]], *, seed: int
    ) -> Iterator[TraceContinuations]:
        """Draw just these continuations, all traces together; yield every trace once.

        Continuation `i` of a step is the request that `continue_traces` sends; raises as that does.
        """
        yield from self._continue(asked, seed)

    def release(self, trace_ids: Sequence[str]) -> None:
        """Nothing is kept here between rounds; the response store keeps the replies."""

    def _continue(self, asked: Iterable[_Asked], seed: int) -> Iterator[TraceContinuations]:
        opened: dict[int, _Open] = {}
        refused: deque[TraceContinuations] = deque()
        requests = self._requests(self._sendable(asked, refused), opened, seed)
        for request, outcome in self._dispatcher.run(requests):
            yield from _drain(refused)
            number = request.meta["trace_number"]
            trace = opened[number]
            _note(trace, request, outcome)
            if trace.missing == 0:
                del opened[number]
                yield trace.closed()
        yield from _drain(refused)

    def _sendable(
        self, asked: Iterable[_Asked], refused: deque[TraceContinuations]
    ) -> Iterator[_Shown]:
        for context, wanted in asked:
            found = self._images_of(context)
            if isinstance(found, Abstention):
                refused.append(TraceContinuations(context.trace.id, (), abstention=found))
            else:
                yield context, wanted, found

    def _images_of(self, context: TraceInContext) -> Images | Abstention:
        """What is shown of the problem beside its text, or why it is not sent."""
        hosted = self._dispatcher.model.hosted
        refusal = refuse_phi(context, hosted=hosted, allow_phi=self._allow_phi)
        if refusal is not None and refusal.abstention is not None:
            return refusal.abstention
        return self._images.sendable(context.problem, hosted=hosted, allow_phi=self._allow_phi)

    def _requests(
        self, asked: Iterable[_Shown], opened: dict[int, _Open], seed: int
    ) -> Iterator[GenerationRequest]:
        for number, (context, wanted, images) in enumerate(asked):
            missing = sum(one.count for one in wanted)
            opened[number] = _Open(context.trace.id, missing=missing)
            for one in wanted:
                step_index = one.step_index
                messages = self._messages(context, step_index, images)
                for index in range(one.first, one.first + one.count):
                    yield GenerationRequest(
                        messages,
                        self._max_tokens,
                        temperature=self._temperature,
                        top_p=self._top_p,
                        stop=self._stop,
                        seed=continuation_seed(seed, context.trace.id, step_index, index),
                        sample_index=index,
                        meta={
                            "purpose": "continue",
                            "trace_number": number,
                            "trace_id": context.trace.id,
                            "step_index": step_index,
                            "index": index,
                        },
                    )

    def _messages(
        self, context: TraceInContext, step_index: int, images: Images
    ) -> tuple[Message, ...]:
        evidence = context.evidence if self._with_evidence else ()
        prefix = context.trace.prefix(step_index)
        if not self.spec.startswith("gemini:"):
            return continuation_messages(
                context.problem,
                evidence,
                prefix,
                system=self._prompt.system,
                separator=self._prompt.separator,
                images=images,
            )
        answer = "the letter of the option" if context.problem.options else "the final answer"
        written = prefix_text(prefix, self._prompt.separator)
        asked = CONTINUE_IN_USER_TURN.replace("{answer}", answer).replace("{prefix}", written)
        text = f"{render_question(context.problem, evidence)}\n\n{asked}"
        question = Message("user", text, images)
        if self._prompt.system is None:
            return (question,)
        return (Message("system", self._prompt.system), question)


def continuation_seed(seed: int, trace_id: str, step_index: int, index: int) -> int:
    """The sampling seed of one continuation: stable across runs, machines and orders.

    Returns:
        A number in [0, 2**31), which every server takes.
    """
    name = f"{seed}\n{trace_id}\n{step_index}\n{index}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big") >> 1


def _drain(refused: deque[TraceContinuations]) -> Iterator[TraceContinuations]:
    while refused:
        yield refused.popleft()


def _note(trace: _Open, request: GenerationRequest, outcome: Outcome) -> None:
    """Enter one outcome into its trace."""
    trace.missing -= 1
    if isinstance(outcome, ModelError):
        trace.abstention = Abstention(AbstentionReason.MODEL_ERROR, outcome.what)
    elif outcome.finish_reason == OVER_LENGTH:
        trace.abstention = Abstention(AbstentionReason.OVER_LENGTH, outcome.raw)
    else:
        if outcome.resolved_model is not None:
            trace.versions.add(outcome.resolved_model)
        trace.texts.append(_text(request, outcome))


def _text(request: GenerationRequest, reply: ModelReply) -> PolicyText:
    # a blocked or empty reply is a continuation without an answer: the finish reason says why
    return PolicyText(
        step_index=request.meta["step_index"],
        index=request.meta["index"],
        text=reply.text or "",
        finish_reason=reply.finish_reason,
        tokens=reply.usage.output_tokens,
    )


# --- Whole solutions from a policy behind a server, one request each, found again in the store


@dataclass(slots=True)
class _server_sampler_Open:
    """A problem whose candidates are on their way."""

    missing: int
    texts: list[SampledText] = field(default_factory=list)
    resolved_model: str | None = None
    abstention: Abstention | None = None


class ServerSampler:
    """Samples through a `Dispatcher`; implements `labeling.candidates.Sampler`."""

    def __init__(
        self,
        runner: Dispatcher,
        prompt: ContinuationPrompt,
        *,
        max_tokens: int,
        temperature: float | None = 0.7,
        stop: Sequence[str] = (),
        with_evidence: bool = True,
        allow_phi: bool = False,
        images: ProblemImages | None = None,
        marked: Collection[str] = (),
    ) -> None:
        """Join a model to a prompt; arguments as those of `inference.server_policy.ServerPolicy`.

        `marked` are ids of problems whose traces say `phi_removed: false`: as if they said so.
        """
        self._runner, self._prompt = runner, prompt
        self._max_tokens, self._temperature, self._stop = max_tokens, temperature, tuple(stop)
        self._with_evidence, self._allow_phi = with_evidence, allow_phi
        self._images = images or ProblemImages()
        self._marked = frozenset(marked)

    def sample(
        self, asked: Iterable[tuple[Problem, Sequence[Evidence], range]], *, seed: int
    ) -> Iterator[ProblemSamples]:
        """Write the candidates wanted; yield problems as they are done.

        A problem with a candidate that could not be had (`model_error`), or whose prompt is too long
        (`over_length`), abstains; what was answered for it stays in the response store. A problem
        that must not leave this machine (`filtered`), or whose image cannot be read (`unreadable`), is
        never sent.

        Raises:
            ModelRefused, QuotaExhausted, BudgetExhausted: the run ends; what was yielded stays valid.
        """
        opened: dict[str, _server_sampler_Open] = {}
        refused: list[ProblemSamples] = []
        requests = self._requests(asked, opened, refused, seed)
        for request, outcome in self._runner.run(requests):
            yield from _drained(refused)
            problem_id = str(request.meta["problem_id"])
            one = opened[problem_id]
            one.missing -= 1
            if isinstance(outcome, ModelError):
                one.abstention = Abstention(AbstentionReason.MODEL_ERROR, outcome.what)
            elif outcome.finish_reason == OVER_LENGTH:
                one.abstention = Abstention(AbstentionReason.OVER_LENGTH, outcome.raw)
            else:
                one.resolved_model = outcome.resolved_model or one.resolved_model
                text = SampledText(
                    int(request.meta["index"]),
                    outcome.text or "",
                    outcome.finish_reason,
                    outcome.usage.output_tokens,
                )
                one.texts.append(text)
            if one.missing == 0:
                del opened[problem_id]
                texts = tuple(sorted(one.texts, key=lambda text: text.index))
                yield ProblemSamples(problem_id, texts, one.resolved_model, one.abstention)
        yield from _drained(refused)

    def _requests(
        self,
        asked: Iterable[tuple[Problem, Sequence[Evidence], range]],
        opened: dict[str, _server_sampler_Open],
        refused: list[ProblemSamples],
        seed: int,
    ) -> Iterator[GenerationRequest]:
        for problem, evidence, wanted in asked:
            images = self._images_of(problem)
            if isinstance(images, Abstention):
                refused.append(ProblemSamples(problem.id, (), abstention=images))
                continue
            opened[problem.id] = _server_sampler_Open(len(wanted))
            messages = continuation_messages(
                problem,
                evidence if self._with_evidence else (),
                (),
                system=self._prompt.system,
                separator=self._prompt.separator,
                images=images,
            )
            for index in wanted:
                yield GenerationRequest(
                    messages,
                    self._max_tokens,
                    temperature=self._temperature,
                    stop=self._stop,
                    seed=continuation_seed(seed, f"problem\n{problem.id}", 0, index),
                    sample_index=index,
                    meta={"purpose": "sample", "problem_id": problem.id, "index": index},
                )

    def _images_of(self, problem: Problem) -> tuple[EncodedImage, ...] | Abstention:
        """What is shown of the problem beside its text, or why it is not sent."""
        hosted = self._runner.model.hosted
        allow_phi = self._allow_phi
        said = {"phi_removed": problem.id not in self._marked}
        refusal = withheld(problem.meta, said, hosted=hosted, allow_phi=allow_phi)
        return refusal or self._images.sendable(problem, hosted=hosted, allow_phi=allow_phi)


def _drained(refused: list[ProblemSamples]) -> list[ProblemSamples]:
    ready = list(refused)
    refused.clear()
    return ready
