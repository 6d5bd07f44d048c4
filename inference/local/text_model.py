"""A local model (`hf:PATH_OR_ID`) as a text model."""

from __future__ import annotations

import asyncio
import json
import threading

from formats import ImageError
from inference.images import has_images
from inference.local.engines import engine_for
from inference.local.model import load_local_model
from inference.local.shared_prefix import PrefixRow, SharedTrace
from inference.local.token_choice import SamplingRule, noise_key
from inference.protocol import GenerationRequest, Message, over_length_reply
from traces import ModelRefused, ModelReply, ModelUnavailable, Usage


class LocalTextModel:
    """A local model as a `TextModel`.

    Greedy if the request has no temperature. A JSON schema is not enforced. A prompt that does not
    fit is answered with the finish reason `over_length`.
    """

    def __init__(self, name: str, *, spec: str, device: str | None = None) -> None:
        """Load the model.

        Args:
            name: folder or hub id.
            spec: the model as the user named it.
            device: as for `load_local_model`.

        Raises:
            ModelRefused: it cannot be loaded or run.
        """
        self._local = load_local_model(name, device=device)
        self._engine = engine_for(self._local)
        self._spec = spec
        self._lock = threading.Lock()

    @property
    def spec(self) -> str:
        """The model as the user named it."""
        return self._spec

    @property
    def slow_because(self) -> str | None:
        """Why the slow engine answers; None if the fast one does."""
        return self._engine.slow_because

    @property
    def hosted(self) -> bool:
        """False: texts stay on this machine."""
        return False

    @property
    def concurrency(self) -> int:
        """One request at a time."""
        return 1

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by the model's own tokenizer, excluding special tokens."""
        tokenizer = self._local.tokenizer
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request; the event loop stays free meanwhile."""
        return await asyncio.to_thread(self._answer, request)

    async def aclose(self) -> None:
        """Nothing to release."""

    def _answer(self, request: GenerationRequest) -> ModelReply:
        if has_images(request) and self._local.vision is None:
            raise ModelRefused(
                f'"{self._spec}" is a text model: it cannot see the images of a problem.',
                remedy="use gemini:MODEL, openai:MODEL, an image-text model, or --ignore-images",
            )
        tokenizer = self._local.tokenizer
        try:
            [ids], head = self._local.read([request.messages])
        except ImageError as fault:
            raise ModelUnavailable(f"{fault.where}: {fault.what}") from fault
        room = self._local.window - len(ids)
        if room < 1:
            window = self._local.window
            return over_length_reply(self._spec, f"{len(ids)} tokens do not fit in {window}.")
        rule = SamplingRule(request.temperature or 0.0, top_p=request.top_p)
        words = json.dumps([_named(message) for message in request.messages])
        row = PrefixRow(
            len(ids) - 1, ids[-1:], noise_key(request.seed or 0, words), (0, request.sample_index)
        )
        with self._lock:
            [done] = self._engine.continue_all(
                [SharedTrace(ids, (row,), head=head)],
                rule,
                max_new_tokens=min(request.max_tokens, room),
                stop=request.stop,
                tokenizer=tokenizer,
            )
        [written] = done.rows
        return ModelReply(
            text=written.text,
            finish_reason=written.finish_reason,
            model=self._spec,
            resolved_model=self._local.fingerprint,
            usage=Usage(input_tokens=len(ids), output_tokens=written.tokens),
            usd=0.0,
            raw=written.text,
        )


def _named(message: Message) -> list[object]:
    """A turn for the noise key; without images a pair, as in keys older than images."""
    turn: list[object] = [message.role, message.text]
    return [*turn, [image.sha256 for image in message.images]] if message.images else turn
