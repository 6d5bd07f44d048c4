"""Whole solutions from a policy behind a server, one request each, found again in the store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from inference.dispatch import Dispatcher
from inference.images import EncodedImage, ProblemImages
from inference.protocol import GenerationRequest
from inference.rendering import ContinuationPrompt, continuation_messages
from inference.replies import OVER_LENGTH
from inference.server_policy import continuation_seed
from traces.abstention import Abstention, AbstentionReason
from traces.continuation import ProblemSamples, SampledText
from traces.errors import ModelError
from traces.evidence import Evidence
from traces.privacy import withheld
from traces.problem import Problem


@dataclass(slots=True)
class _Open:
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
        opened: dict[str, _Open] = {}
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
        opened: dict[str, _Open],
        refused: list[ProblemSamples],
        seed: int,
    ) -> Iterator[GenerationRequest]:
        for problem, evidence, wanted in asked:
            images = self._images_of(problem)
            if isinstance(images, Abstention):
                refused.append(ProblemSamples(problem.id, (), abstention=images))
                continue
            opened[problem.id] = _Open(len(wanted))
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
