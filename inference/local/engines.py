"""Which engine drives a local model: the shared-prefix one where it is proven right, else the plain one.

The slow and sure engine: each continuation by the model's own `generate`, one after the other.

For image-text models whose attention cannot be shared (`inference.local.engines`). Tokens are chosen by
the same rule with the same noise, so a continuation is the one that sharing would give.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from formats.files.images import EncodedImage, ImageError
from inference.local.checkpoints import is_out_of_memory
from inference.local.model import LocalModel
from inference.local.shared_attention import Beginning
from inference.local.shared_prefix import (
    FAULTS,
    ImageHeads,
    PrefixEngine,
    Row,
    SharedTrace,
    Written,
    WrittenTrace,
    difference,
    refusal,
    shared_logits,
)
from inference.local.token_choice import NoiseRows, SamplingRule, StopStrings, choose_tokens
from inference.local.vision import VisionInputs, VisionReader, run
from inference.protocol import Message
from traces import ModelRefused


class PlainEngine:
    """Writes continuations with one image-text model, sharing nothing."""

    def __init__(
        self,
        model: PreTrainedModel,
        reader: VisionReader,
        end_ids: frozenset[int],
        *,
        slow_because: str,
    ) -> None:
        """Take a model; its own generation defaults (penalties, sampling) are dropped.

        Args:
            model: with the attention that it was loaded with.
            reader: gives the pixels of heads.
            end_ids: tokens that end a continuation.
            slow_because: why nothing is shared.
        """
        model.generation_config = _settings()
        self._generate: Any = model.generate
        self._model, self._reader = model, reader
        self._end_ids = frozenset(end_ids)
        self.slow_because = slow_because
        """Why nothing is shared."""
        self.near_ties = 0
        """Choices so far in which the two best lay within `NEAR_TIE`."""

    def continue_all(
        self,
        traces: Sequence[SharedTrace],
        rule: SamplingRule,
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[WrittenTrace]:
        """Yield what was written for each trace's rows, trace by trace, in the order given."""
        stops = StopStrings(stop, tokenizer)
        for trace in traces:
            rows = [self._row(trace, row, rule, max_new_tokens, stops) for row in trace.rows]
            self.near_ties += sum(row.near_ties for row in rows)
            computed = sum(row.cut + len(row.tail) - 1 for row in trace.rows)
            yield WrittenTrace(tuple(rows), computed)

    def release(self, names: Iterable[Hashable]) -> None:
        """Nothing is kept."""

    @torch.inference_mode()
    def _row(
        self, trace: SharedTrace, row: Row, rule: SamplingRule, most: int, stops: StopStrings
    ) -> Written:
        ids = (*trace.ids[: row.cut], *row.tail)
        inputs = VisionInputs(ids, {})
        if trace.head is not None:
            inputs = behind_head(self._reader.inputs(trace.head), ids)
        writer = _Writer(rule, row, len(ids), self._end_ids, stops)
        run(
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


def behind_head(head: VisionInputs, ids: tuple[int, ...]) -> VisionInputs:
    """What the model takes for a conversation of which the head is the beginning.

    Kinds of tokens are 0 for text; what says more of each token (to which images it attends) goes on
    as it was for the head's last one. `plain_fault` proves it for the model at hand.
    """
    beside = {}
    for name, value in head.beside.items():
        if tuple(value.shape[:2]) == (1, len(head.ids)):
            more = value[:, -1:].expand(1, len(ids) - len(head.ids), *value.shape[2:])
            value = torch.cat([value, torch.zeros_like(more) if value.ndim == 2 else more], dim=1)
        beside[name] = value
    return VisionInputs(ids, beside)


class _Writer:
    """Chooses the tokens of one continuation, in the place of `generate`'s own choice."""

    def __init__(
        self,
        rule: SamplingRule,
        row: Row,
        prompt: int,
        end_ids: frozenset[int],
        stops: StopStrings,
    ) -> None:
        self._rule, self._row, self._prompt = rule, row, prompt
        self._end_ids, self._stops = end_ids, stops
        self._tokens: list[int] = []
        self._near = 0
        self._reason = "length"

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """All tokens but the chosen one are impossible."""
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

    def written(self) -> Written:
        """What was written."""
        ids = self._tokens[: len(self._tokens) - (self._reason == "end")]
        text, _ = self._stops.text(self._row.tail[-1], ids)
        reason = "length" if self._reason == "length" else "stop"
        return Written(text, reason, len(self._tokens), self._near)


# --- Proofs, for the image-text model at hand: ids are its processor's, shared prefixes give its


_SIDES = ((168, 112), (112, 168))
"""Two images, one broader and one higher, so that rows and columns cannot be confused."""
_WRITTEN = "Step 1: the first image shows 12 of 30.\n\nStep 2: so the answer is"
_BEHIND = (4, 9)
"""How many tokens before the end the two rows of the proof go on."""


def conversation() -> list[Message]:
    """Two images, a question and the beginning of a solution."""
    images = tuple(_gradient(number, size) for number, size in enumerate(_SIDES))
    return [Message("user", "Question: What do the images show?", images), Message("assistant", _WRITTEN)]  # fmt: skip


def prove_reading(reader: VisionReader) -> None:
    """Have the processor asked for every conversation if tokenising behind the head gives other ids.

    Raises:
        ModelRefused: the processor or its template cannot be used at all.
    """
    turns = conversation()
    prefixes = [[turns[0], Message("assistant", _WRITTEN[:end])] for end in (1, 20, len(_WRITTEN))]
    try:
        head = reader.head(turns)
        exact = [reader.read(prefix).ids for prefix in prefixes]
    except ImageError as fault:
        raise ModelRefused(
            fault.what,
            remedy="check the chat template of the model, or serve it and name it openai:MODEL",
        ) from fault
    reader.always_asks = reader.ids(prefixes, head) != exact


def sharing_fault(model: PreTrainedModel, reader: VisionReader, heads: ImageHeads) -> str | None:
    """Why continuations behind images cannot share prefixes; None where that is proven right.

    Compared are the logits of a few tokens: prefilled in parts and shared, and by the model's own
    forward pass over the whole conversation.
    """
    turns = conversation()
    head = reader.head(turns)
    if head is None:
        return "it shows no images"
    try:
        inputs = reader.read(turns)
        cuts = [len(inputs.ids) - behind for behind in _BEHIND]
        beginning = Beginning(len(head.ids), lambda: heads.of(head)[0])
        got = shared_logits(model, inputs.ids, cuts, beginning)
        with torch.inference_mode(), heads.native():
            logits = run(model, inputs, model, use_cache=False).logits[0]
        wanted = torch.stack([logits[cut : cut + min(_BEHIND)] for cut in cuts]).float()
    except FAULTS as fault:
        if is_out_of_memory(fault):
            raise
        return f"{type(fault).__name__}: {fault}"
    return difference(wanted, got, model.dtype)


def plain_fault(model: PreTrainedModel, reader: VisionReader) -> str | None:
    """Why text behind a head is not taken by the model as the processor's own reading of the whole."""
    turns = conversation()
    head = reader.head(turns)
    if head is None:
        return "it shows no images"
    whole = reader.read(turns)
    joined = behind_head(reader.inputs(head), whole.ids)
    try:
        with torch.inference_mode():
            wanted, got = (
                run(model, inputs, model, use_cache=False).logits[0, -min(_BEHIND) :].float()
                for inputs in (whole, joined)
            )
    except FAULTS as fault:
        if is_out_of_memory(fault):
            raise
        return f"{type(fault).__name__}: {fault}"
    return difference(wanted, got, model.dtype)


def _gradient(number: int, size: tuple[int, int]) -> EncodedImage:
    """A picture of colours that run, so that no two parts of it are alike."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    pixels = np.stack([across, down, (across + down * (1 + number)) % 256], axis=-1)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    data = out.getvalue()
    return EncodedImage("image/png", hashlib.sha256(data).hexdigest(), *size, "proof.png", data)


# --- Which engine drives a local model: the shared-prefix one where it is proven right, else the


class Engine(Protocol):
    """Writes continuations with one model."""

    @property
    def near_ties(self) -> int:
        """Choices so far in which the two best lay within `NEAR_TIE`."""

    @property
    def slow_because(self) -> str | None:
        """Why nothing is shared; None where prefixes are."""

    def continue_all(
        self,
        traces: Sequence[SharedTrace],
        rule: SamplingRule,
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[WrittenTrace]:
        """Yield what was written for each trace's rows, trace by trace, in the order given."""

    def release(self, names: Iterable[Hashable]) -> None:
        """Let go what is kept under these names."""


def engine_for(
    local: LocalModel, *, cache_tokens: int | None = None, batch_rows: int | None = None
) -> Engine:
    """The fastest engine that is proven right for a model; limits as those of `PrefixEngine`.

    Raises:
        ModelRefused: no engine is.
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
        except ModelRefused as fault:  # of text alone
            shared.let_go()
            shared = fault.what
    wrong = plain_fault(local.model, local.vision)
    if wrong is not None:
        raise refusal(wrong)
    return PlainEngine(local.model, local.vision, local.end_ids, slow_because=shared)


def _shared_heads(model: PreTrainedModel, reader: VisionReader) -> ImageHeads | str:
    """What prefills heads for sharing, or why that is not right for this model."""
    try:
        heads = ImageHeads(model, reader)
    except ModelRefused as fault:
        return fault.what
    fault_found = sharing_fault(model, reader, heads)
    if fault_found is None:
        return heads
    heads.let_go()
    return fault_found
