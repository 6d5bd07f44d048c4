"""Policies on a server: prefixes continued, and whole solutions sampled, with one request each.

Samples differ by `sample_index` and by a seed derived from run seed, trace, step and number, so
that each can be bought on its own and found again. Prefixes are requested in order, because each
begins with the one before, which server-side prefix caches rely on.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from inference.dispatch import Outcome
from inference.images import EncodedImage, ProblemImages
from inference.prompting import (
    PolicyConfig,
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
class _PendingTrace:
    """A trace whose continuations are in flight."""

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
    """Continues prefixes through a `Dispatcher`; implements `labeling.Policy`."""

    def __init__(
        self,
        runner: Runner,
        config: PolicyConfig,
        *,
        allow_phi: bool = False,
        images: ProblemImages | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            runner: sends and records the calls.
            config: prompt and sampling.
            allow_phi: whether problems marked `phi_removed: false` may go to a hosted model.
            images: loads the images of problems; None resolves relative paths from the current
                folder.
        """
        self._runner, self._config, self._allow_phi = runner, config, allow_phi
        self._images = images or ProblemImages()

    @property
    def spec(self) -> str:
        """The policy as the user named it."""
        return self._runner.model.spec

    def continue_traces(
        self, contexts: Iterable[TraceInContext], *, k: int, seed: int
    ) -> Iterator[TraceContinuations]:
        """Continue every prefix of every trace `k` times; yield traces as they are done.

        A trace abstains if one of its continuations failed (`model_error`) or its prompt is too
        long (`over_length`); replies that it got stay in the response store. A trace that must not
        leave this machine (`traces.privacy`), or with an unreadable image, is never sent.

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
        """Sample exactly these continuations in one batch; yield every trace once.

        Continuation `i` of a step is the request that `continue_traces` sends; raises like it.
        """
        yield from self._continue(asked, seed)

    def release(self, trace_ids: Sequence[str]) -> None:
        """Nothing is cached between rounds; the response store has the replies."""

    def _continue(self, asked: Iterable[_Asked], seed: int) -> Iterator[TraceContinuations]:
        opened: dict[int, _PendingTrace] = {}
        refused: deque[TraceContinuations] = deque()
        requests = self._requests(self._sendable(asked, refused), opened, seed)
        for request, outcome in self._runner.run(requests):
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
        """The images shown with the problem, or why it is not sent."""
        hosted = self._runner.model.hosted
        refusal = refuse_phi(context, hosted=hosted, allow_phi=self._allow_phi)
        if refusal is not None and refusal.abstention is not None:
            return refusal.abstention
        return self._images.sendable(context.problem, hosted=hosted, allow_phi=self._allow_phi)

    def _requests(
        self, asked: Iterable[_Shown], opened: dict[int, _PendingTrace], seed: int
    ) -> Iterator[GenerationRequest]:
        for number, (context, wanted, images) in enumerate(asked):
            missing = sum(one.count for one in wanted)
            opened[number] = _PendingTrace(context.trace.id, missing=missing)
            for one in wanted:
                step_index = one.step_index
                messages = self._messages(context, step_index, images)
                for index in range(one.first, one.first + one.count):
                    yield GenerationRequest(
                        messages,
                        self._config.max_tokens,
                        temperature=self._config.temperature,
                        top_p=self._config.top_p,
                        stop=self._config.stop,
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
        prompt = self._config.prompt
        evidence = context.evidence if self._config.with_evidence else ()
        prefix = context.trace.prefix(step_index)
        if not self.spec.startswith(("gemini:", "vertex:")):
            return continuation_messages(
                context.problem,
                evidence,
                prefix,
                system=prompt.system,
                separator=prompt.separator,
                images=images,
            )
        answer = "the letter of the option" if context.problem.options else "the final answer"
        written = prefix_text(prefix, prompt.separator)
        asked = CONTINUE_IN_USER_TURN.replace("{answer}", answer).replace("{prefix}", written)
        text = f"{render_question(context.problem, evidence)}\n\n{asked}"
        question = Message("user", text, images)
        if prompt.system is None:
            return (question,)
        return (Message("system", prompt.system), question)


def continuation_seed(seed: int, trace_id: str, step_index: int, index: int) -> int:
    """The sampling seed of one continuation: stable across runs, machines and orders.

    Returns:
        A number in [0, 2**31), which every server accepts.
    """
    name = f"{seed}\n{trace_id}\n{step_index}\n{index}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big") >> 1


def _drain(refused: deque[TraceContinuations]) -> Iterator[TraceContinuations]:
    while refused:
        yield refused.popleft()


def _note(trace: _PendingTrace, request: GenerationRequest, outcome: Outcome) -> None:
    """Add one outcome to its trace."""
    trace.missing -= 1
    if isinstance(outcome, ModelError):
        trace.abstention = Abstention(AbstentionReason.MODEL_ERROR, outcome.what)
    elif outcome.finish_reason == OVER_LENGTH:
        trace.abstention = Abstention(AbstentionReason.OVER_LENGTH, outcome.raw)
    elif (thought := outcome.only_reasoning) is not None:  # it does not continue the prefix
        trace.abstention = Abstention(AbstentionReason.TRUNCATED, thought)
    else:
        if outcome.resolved_model is not None:
            trace.versions.add(outcome.resolved_model)
        trace.texts.append(_text(request, outcome))


def _text(request: GenerationRequest, reply: ModelReply) -> PolicyText:
    # A blocked or empty reply is a continuation without an answer; see its finish reason.
    return PolicyText(
        step_index=request.meta["step_index"],
        index=request.meta["index"],
        text=reply.text or "",
        finish_reason=reply.finish_reason,
        tokens=reply.usage.output_tokens,
    )


@dataclass(slots=True)
class _PendingProblem:
    """A problem whose candidates are in flight."""

    missing: int
    texts: list[SampledText] = field(default_factory=list)
    resolved_model: str | None = None
    abstention: Abstention | None = None


class ServerSampler:
    """Samples solutions through a `Dispatcher`; implements `labeling.Sampler`."""

    def __init__(
        self,
        runner: Runner,
        config: PolicyConfig,
        *,
        allow_phi: bool = False,
        images: ProblemImages | None = None,
        marked: Collection[str] = (),
    ) -> None:
        """Nothing is sent yet; arguments as those of `ServerPolicy`.

        `marked` are ids of problems to treat as `phi_removed: false`, because a trace of theirs is.
        """
        self._runner, self._config, self._allow_phi = runner, config, allow_phi
        self._images = images or ProblemImages()
        self._marked = frozenset(marked)

    def sample(
        self, asked: Iterable[tuple[Problem, Sequence[Evidence], range]], *, seed: int
    ) -> Iterator[ProblemSamples]:
        """Sample the candidates wanted; yield problems as they are done.

        A problem abstains if one of its candidates failed (`model_error`) or its prompt is too long
        (`over_length`); replies that it got stay in the response store. A problem that must not
        leave this machine (`filtered`), or with an unreadable image, is never sent.

        Raises:
            ModelRefused, QuotaExhausted, BudgetExhausted: the run ends; what was yielded stays
                valid.
        """
        opened: dict[str, _PendingProblem] = {}
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
        opened: dict[str, _PendingProblem],
        refused: list[ProblemSamples],
        seed: int,
    ) -> Iterator[GenerationRequest]:
        for problem, evidence, wanted in asked:
            images = self._images_of(problem)
            if isinstance(images, Abstention):
                refused.append(ProblemSamples(problem.id, (), abstention=images))
                continue
            opened[problem.id] = _PendingProblem(len(wanted))
            messages = continuation_messages(
                problem,
                evidence if self._config.with_evidence else (),
                (),
                system=self._config.prompt.system,
                separator=self._config.prompt.separator,
                images=images,
            )
            for index in wanted:
                yield GenerationRequest(
                    messages,
                    self._config.max_tokens,
                    temperature=self._config.temperature,
                    stop=self._config.stop,
                    seed=continuation_seed(seed, f"problem\n{problem.id}", 0, index),
                    sample_index=index,
                    meta={"purpose": "sample", "problem_id": problem.id, "index": index},
                )

    def _images_of(self, problem: Problem) -> tuple[EncodedImage, ...] | Abstention:
        """The images shown with the problem, or why it is not sent."""
        hosted = self._runner.model.hosted
        allow_phi = self._allow_phi
        said = {"phi_removed": problem.id not in self._marked}
        refusal = withheld(problem.meta, said, hosted=hosted, allow_phi=allow_phi)
        return refusal or self._images.sendable(problem, hosted=hosted, allow_phi=allow_phi)


def _drained(refused: list[ProblemSamples]) -> list[ProblemSamples]:
    ready = list(refused)
    refused.clear()
    return ready
