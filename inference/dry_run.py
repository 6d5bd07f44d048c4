"""A dispatcher that sends nothing: counts what a run would send, and what is already stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from inference.images import image_tokens
from inference.protocol import GenerationRequest, ResponseStore, request_key
from traces import ModelError, ModelRefused, ModelReply, Usage


@dataclass(slots=True)
class DryCounts:
    """Totals of a dry run."""

    calls: int = 0
    """Requests that would be sent."""
    input_tokens: int = 0
    """Their input tokens, as counted offline."""
    output_limit: int = 0
    """The sum of their output limits, in tokens."""
    stored: int = 0
    """Requests whose reply is stored, or that equal one already counted."""
    stored_usage: Usage = field(default_factory=Usage)
    """Tokens of the stored replies, as billed."""
    stored_estimate: int = 0
    """Input tokens of the stored replies by the offline count, which shows its error."""


class UnaskedModel:
    """A placeholder for a model in a dry run: it has a name and never answers."""

    concurrency = 1

    def __init__(self, spec: str, *, hosted: bool) -> None:
        """Name the model that would be asked; `hosted`: whether texts would leave this machine."""
        self.spec = spec
        self.hosted = hosted

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Refuse: a dry run sends nothing."""
        raise ModelRefused(f'"{self.spec}" is not asked in a dry run.')

    async def aclose(self) -> None:
        """Nothing is open."""


class DryRun:
    """Replaces a `Dispatcher`: same requests, placeholder replies, nothing sent or written."""

    def __init__(
        self,
        model: UnaskedModel,
        responses: ResponseStore,
        *,
        count_tokens: Callable[[str], int],
        answer: Callable[[GenerationRequest], str],
    ) -> None:
        """Nothing is counted yet.

        Args:
            model: the model that would be asked.
            responses: where replies are looked up; nothing is written.
            count_tokens: counts a text's tokens offline.
            answer: a plausible reply, so that stages that depend on replies can go on.
        """
        self._model = model
        self._responses = responses
        self._count_tokens = count_tokens
        self._answer = answer
        self._seen: set[str] = set()
        self.counts = DryCounts()
        """Totals over all runs."""

    @property
    def model(self) -> UnaskedModel:
        """The model that would be asked."""
        return self._model

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, ModelReply | ModelError]]:
        """Yield each request with its stored reply, or with a placeholder."""
        for request in requests:
            key = request_key(self._model.spec, request)
            stored = self._responses.get(key)
            tokens = self._tokens(request)
            if stored is not None:
                self._note_stored(stored, tokens)
                yield request, stored
                continue
            if key in self._seen:
                self.counts.stored += 1
            else:
                self._seen.add(key)
                self.counts.calls += 1
                self.counts.input_tokens += tokens
                self.counts.output_limit += request.max_tokens
            yield request, ModelReply(self._answer(request), "stop", self._model.spec, None)

    def _note_stored(self, reply: ModelReply, tokens: int) -> None:
        was, now = self.counts.stored_usage, reply.usage
        self.counts.stored += 1
        self.counts.stored_estimate += tokens
        self.counts.stored_usage = Usage(
            was.input_tokens + now.input_tokens,
            was.cached_tokens + now.cached_tokens,
            was.output_tokens + now.output_tokens,
            was.thinking_tokens + now.thinking_tokens,
        )

    def _tokens(self, request: GenerationRequest) -> int:
        texts = [message.text for message in request.messages]
        if request.response_json_schema is not None:
            texts.append(json.dumps(request.response_json_schema))
        images = sum(
            image_tokens(image.width, image.height)
            for message in request.messages
            for image in message.images
        )
        return sum(map(self._count_tokens, texts)) + images
