"""Engines that run a local model: shared prefixes where proven right for it, else the plain engine.

The plain engine computes each continuation by the model's own `generate`, one after the other, for
image-text models whose attention cannot share prefixes. It chooses tokens by the same rule with the
same noise, so its continuations are those that the shared-prefix engine would give.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from formats import EncodedImage, ImageError
from inference.images import has_images
from inference.local.checkpoints import is_out_of_memory
from inference.local.model import LocalModel, counts_by, load_local_model
from inference.local.shared_attention import Beginning
from inference.local.shared_prefix import (
    FAULTS,
    ImageHeads,
    PrefixEngine,
    PrefixRow,
    SharedTrace,
    WrittenRow,
    WrittenTrace,
    difference,
    refusal,
    shared_logits,
)
from inference.local.token_choice import (
    NoiseRows,
    SamplingRule,
    StopStrings,
    choose_tokens,
    noise_key,
)
from inference.local.vision import VisionInputs, VisionReader, run_model
from inference.protocol import GenerationRequest, Message, over_length_reply
from traces import ModelRefused, ModelReply, ModelUnavailable, Usage


class PlainEngine:
    """Computes continuations with one image-text model without sharing prefixes."""

    def __init__(
        self,
        model: PreTrainedModel,
        reader: VisionReader,
        end_ids: frozenset[int],
        *,
        slow_because: str,
    ) -> None:
        """Take a model; its generation defaults (penalties, sampling) are dropped.

        Args:
            model: with the attention that it was loaded with.
            reader: reads the pixels of heads.
            end_ids: tokens that end a continuation.
            slow_because: why prefixes are not shared.
        """
        model.generation_config = _settings()
        self._generate: Any = model.generate
        self._model, self._reader = model, reader
        self._end_ids = frozenset(end_ids)
        self.slow_because = slow_because
        """Why prefixes are not shared."""
        self.near_ties = 0
        """Nearly tied token choices so far."""

    def continue_all(
        self,
        traces: Sequence[SharedTrace],
        rule: SamplingRule,
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[WrittenTrace]:
        """Yield the continuations of each trace's rows, trace by trace, in the order given."""
        stops = StopStrings(stop, tokenizer)
        for trace in traces:
            rows = [
                self._row(trace, row, rule, most=max_new_tokens, stops=stops) for row in trace.rows
            ]
            self.near_ties += sum(row.near_ties for row in rows)
            computed = sum(row.cut + len(row.tail) - 1 for row in trace.rows)
            yield WrittenTrace(tuple(rows), computed)

    def release(self, names: Iterable[Hashable]) -> None:
        """Nothing is kept."""

    @torch.inference_mode()
    def _row(
        self,
        trace: SharedTrace,
        row: PrefixRow,
        rule: SamplingRule,
        *,
        most: int,
        stops: StopStrings,
    ) -> WrittenRow:
        ids = (*trace.ids[: row.cut], *row.tail)
        inputs = VisionInputs(ids, {})
        if trace.head is not None:
            inputs = after_head(self._reader.inputs(trace.head), ids)
        writer = _TokenWriter(rule, row, end_ids=self._end_ids, stops=stops)
        run_model(
            self._model,
            inputs,
            self._generate,
            attention_mask=torch.ones((1, len(ids)), dtype=torch.int64, device=self._model.device),
            generation_config=_settings(max_new_tokens=most, do_sample=False, pad_token_id=0),
            logits_processor=[writer],
            stopping_criteria=[writer.is_done],
        )
        return writer.written()


def _settings(**said: Any) -> GenerationConfig:
    return GenerationConfig(**said)  # type: ignore[no-untyped-call]


def after_head(head: VisionInputs, ids: tuple[int, ...]) -> VisionInputs:
    """The model's inputs for a conversation that begins with the head.

    Token types are 0 for text; other inputs per token (to which images it attends) repeat the value
    of the head's last token. `plain_fault` proves this for a model.
    """
    beside = {}
    for name, value in head.beside.items():
        if tuple(value.shape[:2]) == (1, len(head.ids)):
            more = value[:, -1:].expand(1, len(ids) - len(head.ids), *value.shape[2:])
            value = torch.cat([value, torch.zeros_like(more) if value.ndim == 2 else more], dim=1)
        beside[name] = value
    return VisionInputs(ids, beside)


class _TokenWriter:
    """Chooses the tokens of one continuation instead of `generate`."""

    def __init__(
        self,
        rule: SamplingRule,
        row: PrefixRow,
        *,
        end_ids: frozenset[int],
        stops: StopStrings,
    ) -> None:
        self._rule, self._row = rule, row
        self._end_ids, self._stops = end_ids, stops
        self._tokens: list[int] = []
        self._near = 0
        self._reason = "length"

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Make all tokens but the chosen one impossible."""
        noise = NoiseRows(
            torch.tensor([self._row.key], device=scores.device),
            torch.tensor([self._row.counter], device=scores.device),
        )
        number = torch.tensor([len(self._tokens)], device=scores.device)
        chosen, near = choose_tokens(scores, self._rule, noise, number)
        self._tokens.append(int(chosen))
        self._near += int(near)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.unsqueeze(1), 0.0)

    def is_done(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether the last token ends the turn or completes a stop string."""
        if self._tokens[-1] in self._end_ids:
            self._reason = "end"
        elif self._stops and self._stops.text(self._row.tail[-1], self._tokens)[1]:
            self._reason = "stop"
        return torch.tensor([self._reason != "length"], device=input_ids.device)

    def written(self) -> WrittenRow:
        """The result."""
        ids = self._tokens[: len(self._tokens) - (self._reason == "end")]
        text, _ = self._stops.text(self._row.tail[-1], ids)
        reason = "length" if self._reason == "length" else "stop"
        return WrittenRow(text, reason, len(self._tokens), self._near)


_SIDES = ((168, 112), (112, 168))
"""Two images, one wider and one taller, so that rows and columns cannot be confused."""
_WRITTEN = "Step 1: the first image shows 12 of 30.\n\nStep 2: so the answer is"
_REMAINING = (4, 9)
"""Tokens before the end at which the two rows of the proof continue."""


def conversation() -> list[Message]:
    """Two images, a question and the beginning of a solution."""
    images = tuple(_gradient(number, size) for number, size in enumerate(_SIDES))
    question = Message("user", "Question: What do the images show?", images)
    return [question, Message("assistant", _WRITTEN)]


def prove_reading(reader: VisionReader) -> None:
    """Make the reader use the processor for every conversation if tokenizing the rest differs.

    Raises:
        ModelRefused: the processor or its template cannot be used.
    """
    turns = conversation()
    prefixes = [[turns[0], Message("assistant", _WRITTEN[:end])] for end in (1, 20, len(_WRITTEN))]
    try:
        head = reader.head(turns)
        exact = [reader.read(prefix).ids for prefix in prefixes]
    except ImageError as fault:
        raise ModelRefused(
            fault.what,
            remedy="check the chat template of the model, or serve it and use openai:MODEL",
        ) from fault
    reader.always_asks = reader.ids(prefixes, head) != exact


def sharing_fault(model: PreTrainedModel, reader: VisionReader, heads: ImageHeads) -> str | None:
    """Why continuations after images cannot share prefixes; None if that is proven right.

    Compares the logits of a few tokens, with shared prefixes prefilled in parts, to those of the
    model's own forward pass over the whole conversation.
    """
    turns = conversation()
    head = reader.head(turns)
    if head is None:
        return "it shows no images"
    try:
        inputs = reader.read(turns)
        cuts = [len(inputs.ids) - behind for behind in _REMAINING]
        beginning = Beginning(len(head.ids), lambda: heads.of(head)[0])
        got = shared_logits(model, inputs.ids, cuts, beginning)
        with torch.inference_mode(), heads.native():
            logits = run_model(model, inputs, model, use_cache=False).logits[0]
        wanted = torch.stack([logits[cut : cut + min(_REMAINING)] for cut in cuts]).float()
    except FAULTS as fault:
        if is_out_of_memory(fault):
            raise
        return f"{type(fault).__name__}: {fault}"
    return difference(wanted, got, model.dtype)


def plain_fault(model: PreTrainedModel, reader: VisionReader) -> str | None:
    """Why text after a head gives other logits than the processor's inputs; None if it does not."""
    turns = conversation()
    head = reader.head(turns)
    if head is None:
        return "it shows no images"
    whole = reader.read(turns)
    joined = after_head(reader.inputs(head), whole.ids)
    try:
        with torch.inference_mode():
            wanted, got = (
                run_model(model, inputs, model, use_cache=False)
                .logits[0, -min(_REMAINING) :]
                .float()
                for inputs in (whole, joined)
            )
    except FAULTS as fault:
        if is_out_of_memory(fault):
            raise
        return f"{type(fault).__name__}: {fault}"
    return difference(wanted, got, model.dtype)


def _gradient(number: int, size: tuple[int, int]) -> EncodedImage:
    """An image of color gradients, of which no two parts are alike."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    pixels = np.stack([across, down, (across + down * (1 + number)) % 256], axis=-1)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    data = out.getvalue()
    width, height = size
    return EncodedImage(
        mime="image/png",
        sha256=hashlib.sha256(data).hexdigest(),
        width=width,
        height=height,
        path="proof.png",
        data=data,
    )


class Engine(Protocol):
    """Computes continuations with one model."""

    @property
    def near_ties(self) -> int:
        """Nearly tied token choices so far."""

    @property
    def slow_because(self) -> str | None:
        """Why prefixes are not shared; None if they are."""

    def continue_all(
        self,
        traces: Sequence[SharedTrace],
        rule: SamplingRule,
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[WrittenTrace]:
        """Yield the continuations of each trace's rows, trace by trace, in the order given."""

    def release(self, names: Iterable[Hashable]) -> None:
        """Free what is cached under these names."""


def engine_for(
    local: LocalModel, *, cache_tokens: int | None = None, batch_rows: int | None = None
) -> Engine:
    """The fastest engine that is proven right for a model; limits as those of `PrefixEngine`.

    Raises:
        ModelRefused: there is none.
    """
    if local.vision is None:
        return PrefixEngine(
            local.model, local.end_ids, cache_tokens=cache_tokens, batch_rows=batch_rows
        )
    prove_reading(local.vision)
    shared = _shared_heads(local.model, local.vision)
    if not isinstance(shared, str):
        try:
            return PrefixEngine(
                local.model,
                local.end_ids,
                heads=shared,
                cache_tokens=cache_tokens,
                batch_rows=batch_rows,
            )
        except ModelRefused as fault:  # even without images
            shared.close()
            shared = fault.what
    wrong = plain_fault(local.model, local.vision)
    if wrong is not None:
        raise refusal(wrong)
    return PlainEngine(local.model, local.vision, local.end_ids, slow_because=shared)


def _shared_heads(model: PreTrainedModel, reader: VisionReader) -> ImageHeads | str:
    """What prefills heads for sharing, or why that is wrong for this model."""
    try:
        heads = ImageHeads(model, reader)
    except ModelRefused as fault:
        return fault.what
    fault_found = sharing_fault(model, reader, heads)
    if fault_found is None:
        return heads
    heads.close()
    return fault_found


_CONVERSATIONS = 4
"""Traces whose conversations stay cached between their turns."""


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
        self._recent: dict[str, None] = {}

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
        return counts_by(self._local.tokenizer)(text)

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
        rule = SamplingRule(
            request.temperature or 0.0, top_p=request.top_p, listed=request.logprobs
        )
        words = json.dumps([_named(message) for message in request.messages])
        row = PrefixRow(
            len(ids) - 1, ids[-1:], noise_key(request.seed or 0, words), (0, request.sample_index)
        )
        with self._lock:
            kept = self._kept(request)
            [done] = self._engine.continue_all(
                [SharedTrace(ids, (row,), kept, head)],
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
            usage=Usage(
                input_tokens=len(ids),
                cached_tokens=max(0, len(ids) - 1 - done.prefilled_tokens) if kept else 0,
                output_tokens=written.tokens,
            ),
            usd=0.0,
            raw=self._body(written) if request.logprobs else written.text,
        )

    def _kept(self, request: GenerationRequest) -> Hashable | None:
        """The name under which the conversation stays cached for the next turn of its trace."""
        if request.meta.get("purpose") != "score":
            return None
        name = request.meta["trace_id"]
        self._recent[name] = self._recent.pop(name, None)
        while len(self._recent) > _CONVERSATIONS:
            oldest = next(iter(self._recent))
            del self._recent[oldest]
            self._engine.release([oldest])
        return str(name)

    def _body(self, written: WrittenRow) -> str:
        """The first token's candidates, in the form of OpenAI's API."""
        listed = [
            {"token": self._local.tokenizer.decode([number]), "logprob": value}
            for number, value in written.listed
        ]
        first = {"top_logprobs": listed}
        choice = {"text": written.text, "logprobs": {"content": [first]}}
        return json.dumps({"choices": [choice]})


def _named(message: Message) -> list[object]:
    """A turn for the noise key; without images a pair, as in keys older than images."""
    turn: list[object] = [message.role, message.text]
    return [*turn, [image.sha256 for image in message.images]] if message.images else turn
