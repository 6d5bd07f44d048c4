"""Proofs, for the image-text model at hand: ids are its processor's, shared prefixes give its logits."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from formats.image_error import ImageError
from formats.images import EncodedImage
from inference.device_memory import is_out_of_memory
from inference.plain_engine import behind_head
from inference.prefix_sharing_check import FAULTS, difference, shared_logits
from inference.prefix_sharing_heads import ImageHeads
from inference.prefix_sharing_kept import Beginning
from inference.protocol import Message
from inference.vision import VisionReader
from inference.vision_embedding import run
from traces.errors import ModelRefused

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
