"""Conversations with images as image-text models take them: token ids, and pixels beside them.

Ids are the processor's own, placeholders expanded as it expands them. Conversations about the same
images share their beginning, the *head*, up to the last image token; only what stands behind it is
tokenised anew, and where that is not proven to give the processor's ids the processor is asked each
time. Works with whatever processor transformers has for the model; no code of a checkpoint is run.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import PreTrainedModel

from formats.files.images import ImageError
from inference.prompting import first_ids
from inference.protocol import Message
from traces import ModelRefused

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from formats.files.images import EncodedImage


_PAPER = (255, 255, 255, 255)
"""What shows through where a picture is transparent: drawings are made for white paper."""
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Modes of 16 bits a pixel; Pillow's own way to RGB would cut them off at 255."""


def picture(image: EncodedImage) -> Image.Image:
    """Decode an image for a processor: EXIF rotation carried out, transparency on white, RGB.

    Sixteen bits are scaled to eight. The pixels are those that services are sent (`formats.files.images`).
    """
    opened = ImageOps.exif_transpose(Image.open(io.BytesIO(image.data)))
    if opened.mode in _DEEP:
        opened = Image.fromarray((np.asarray(opened).astype(np.uint32) >> 8).astype(np.uint8))
    if opened.has_transparency_data:
        seen = opened.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, _PAPER), seen).convert("RGB")
    return opened.convert("RGB")


# --- Conversations with images as image-text models take them: token ids, and pixels beside them


_NOT_FOR_THE_MODEL = ("input_ids", "attention_mask")
"""What processors give that is handed over otherwise, or not needed: nothing is padded."""
_HEADS = 64
"""Heads remembered, with their encoded images: the traces of a problem follow each other."""
_PIXEL_BYTES = 256 * 1024 * 1024
"""Pixels kept of the heads read last; those of others are read again where they are needed."""


@dataclass(frozen=True, slots=True)
class VisionInputs:
    """A conversation as an image-text model takes it."""

    ids: tuple[int, ...]
    """All token ids, each image as the many placeholders that its features replace."""
    beside: Mapping[str, Tensor]
    """What the model takes beside the ids, for a batch of one: pixels, grids, kinds of tokens. Empty
    without images."""

    def cut(self, tokens: int) -> VisionInputs:
        """Its first tokens; all of its images must stand among them."""
        whole = (1, len(self.ids))
        beside = {
            name: value[:, :tokens] if tuple(value.shape[:2]) == whole else value
            for name, value in self.beside.items()
        }
        return VisionInputs(self.ids[:tokens], beside)


@dataclass(frozen=True, slots=True)
class ImageHead:
    """The beginning that conversations about the same images share, up to the last image token."""

    ids: tuple[int, ...]
    """Its token ids."""
    shown: tuple[str, ...]
    """The hashes of its images. Heads with equal ids and images are equal."""
    plain: tuple[int, ...] = field(compare=False)
    """What the tokenizer alone makes of it, where each placeholder is still one."""
    turns: tuple[Message, ...] = field(compare=False, repr=False)
    """A conversation that begins with it."""


class VisionReader:
    """Turns conversations into what one image-text model takes."""

    def __init__(self, processor: Any, image_ids: frozenset[int], device: torch.device) -> None:
        """Take a processor.

        Args:
            processor: transformers' processor of the model, with its tokenizer and chat template.
            image_ids: the token ids that image features replace, or that frame them.
            device: where the tensors go.
        """
        self._processor, self._image_ids, self._device = processor, image_ids, device
        self._written = [
            token
            for name in ("image_token", "boi_token", "video_token", "audio_token")
            if (token := getattr(processor, name, None))
        ]
        self._heads: OrderedDict[tuple[str, ...], ImageHead] = OrderedDict()
        self._pixels: OrderedDict[ImageHead, VisionInputs] = OrderedDict()
        self.always_asks = False
        """Whether the processor is asked for the ids of every conversation; see `prove_reading`."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer alone."""
        tokenizer: PreTrainedTokenizerBase = self._processor.tokenizer
        return tokenizer

    def read(self, messages: Sequence[Message]) -> VisionInputs:
        """A conversation through the processor, ready for the assistant's next token.

        Images stand before the text of their turn, in their order. A last assistant turn is put
        behind the template's generation prompt to the letter.

        Raises:
            ImageError: the processor does not take the images; their paths are in `where`. That it takes
                images at all, and that the template shows them, is proven at load.
        """
        images = [picture(image) for message in messages for image in message.images]
        text = self.text(messages)
        if not images:
            return VisionInputs(self._plain([text])[0], {})
        try:
            made = self._processor(
                text=[text], images=[images], add_special_tokens=False, return_tensors="pt"
            )
        except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as fault:
            reason = str(fault).strip().splitlines() or [type(fault).__name__]
            raise ImageError(
                f"The model's image processor does not take it: {reason[0][:200]}.",
                where=", ".join(image.path for message in messages for image in message.images),
            ) from fault
        beside = {
            name: value.to(self._device)
            for name, value in made.items()
            if name not in _NOT_FOR_THE_MODEL and isinstance(value, Tensor)
        }
        return VisionInputs(tuple(made["input_ids"][0].tolist()), beside)

    def head(self, messages: Sequence[Message]) -> ImageHead | None:
        """The head of all conversations that begin with these turns; None without images.

        Args:
            messages: the turns before the assistant's; a last assistant turn is of no concern.

        Raises:
            ImageError: as `read`.
            ModelRefused: nothing stands behind the last image.
        """
        asked = tuple(messages[:-1] if messages[-1].role == "assistant" else messages)
        shown = tuple(image.sha256 for message in asked for image in message.images)
        if not shown:
            return None
        text = self.text(asked)
        if (text, *shown) not in self._heads:
            self._heads[text, *shown] = self._read_head(asked, text, shown)
            if len(self._heads) > _HEADS:
                self._heads.popitem(last=False)
        return self._heads[text, *shown]

    def inputs(self, head: ImageHead) -> VisionInputs:
        """What the model takes for the head alone; read again if it is long ago that it was read."""
        if head not in self._pixels:
            self._keep(head, self.read(head.turns).cut(len(head.ids)))
        self._pixels.move_to_end(head)
        return self._pixels[head]

    def ids(
        self, conversations: Sequence[Sequence[Message]], head: ImageHead | None
    ) -> list[tuple[int, ...]]:
        """Token ids of conversations that share a head, as `read` gives them; pixels are left alone.

        Raises:
            ModelRefused: one of them does not begin with the head.
        """
        rows = self._plain([self.text(conversation) for conversation in conversations])
        return rows if head is None else list(self._behind(head, conversations, rows))

    def text(self, messages: Sequence[Message]) -> str:
        """The rendered conversation up to where the assistant goes on, a placeholder an image."""
        open_turn = bool(messages) and messages[-1].role == "assistant"
        written = self._spelled(messages[-1].text) if open_turn else ""
        turns = messages[:-1] if open_turn else messages
        rendered = self._rendered(turns)
        begin = self.tokenizer.bos_token
        if first_ids(self.tokenizer) and begin and not rendered.startswith(begin):
            rendered = f"{begin}{rendered}"
        return f"{rendered}{written}"

    def _rendered(self, turns: Sequence[Message]) -> str:
        """The turns by the template; without one as plain paragraphs."""
        template = self._processor.chat_template or self.tokenizer.chat_template
        if template is None:
            mark = getattr(self._processor, "boi_token", None) or self._processor.image_token
            return "".join(
                f"{mark * len(turn.images)}{self._spelled(turn.text)}\n\n" for turn in turns
            )
        rendered = self._processor.apply_chat_template(
            [
                {
                    "role": turn.role,
                    "content": [
                        *({"type": "image"} for _ in turn.images),
                        {"type": "text", "text": self._spelled(turn.text)},
                    ],
                }
                for turn in turns
            ],
            chat_template=template,
            add_generation_prompt=True,
        )
        return str(rendered)

    def _spelled(self, text: str) -> str:
        """The text without placeholders of its own: one that is written out is set apart by a blank."""
        for token in self._written:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _read_head(
        self, asked: tuple[Message, ...], text: str, shown: tuple[str, ...]
    ) -> ImageHead:
        """Where a conversation's part with images ends, told from the end of what both make of it."""
        whole, plain = self.read(asked), self._plain([text])[0]
        behind = 0
        for ours, alone in zip(reversed(whole.ids), reversed(plain), strict=False):
            if ours != alone or ours in self._image_ids:
                break
            behind += 1
        if not behind:
            raise ModelRefused(
                "The model's chat template puts nothing behind the images of a turn.",
                remedy="serve the model and name it openai:MODEL",
            )
        inputs = whole.cut(len(whole.ids) - behind)
        head = ImageHead(inputs.ids, shown, plain[: len(plain) - behind], asked)
        self._keep(head, inputs)
        return head

    def _keep(self, head: ImageHead, inputs: VisionInputs) -> None:
        """Keep the pixels of a head, and no more of earlier ones than there is room for."""
        self._pixels[head] = inputs
        size = sum(map(_bytes_of, self._pixels.values()))
        while size > _PIXEL_BYTES and len(self._pixels) > 1:
            size -= _bytes_of(self._pixels.popitem(last=False)[1])

    def _plain(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        rows = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [tuple(row) for row in rows]

    def _behind(
        self,
        head: ImageHead,
        conversations: Sequence[Sequence[Message]],
        rows: Sequence[tuple[int, ...]],
    ) -> Iterator[tuple[int, ...]]:
        """The head and what is tokenised behind it; the processor's own ids where it begins otherwise."""
        for conversation, row in zip(conversations, rows, strict=True):
            if row[: len(head.plain)] == head.plain and not self.always_asks:
                whole = (*head.ids, *row[len(head.plain) :])
            else:
                whole = self.read(conversation).ids
            if whole[: len(head.ids)] != head.ids or len(whole) == len(head.ids):
                raise ModelRefused(
                    "The model's chat template does not begin alike for all prefixes of a trace.",
                    remedy="serve the model and name it openai:MODEL",
                )
            yield whole


def _bytes_of(inputs: VisionInputs) -> int:
    return sum(value.nbytes for value in inputs.beside.values())


# --- What the text model inside an image-text model is given: embeddings with image features,


_KNOWN = frozenset(
    {"inputs_embeds", "position_ids", "use_cache", "cache", "past_key_values", "return_dict"}
)


class _Reached(Exception):
    """The text model would run now."""


@dataclass(frozen=True, slots=True)
class EmbeddedTokens:
    """A conversation, or its beginning, as the text model inside takes it."""

    ids: tuple[int, ...]
    """Its token ids."""
    embeds: Tensor
    """`[1, tokens, width]`: token embeddings, image features in the places of the placeholders."""
    positions: Tensor
    """int64 `[axes, tokens]`: one axis; three (time, height, width) for Qwen2-VL and its kin."""
    following: int
    """The position of the next text token, the same on every axis."""
    others: Mapping[str, Any]
    """What else the text model is given that is not None; where this is not empty embeddings and
    positions do not tell the whole story (features added to deeper layers, masks that look ahead)."""

    @property
    def shift(self) -> int:
        """What is added to a text token's place behind these tokens to get its position."""
        return self.following - len(self.ids)


def text_model(model: PreTrainedModel) -> PreTrainedModel:
    """The text model inside an image-text model: takes `inputs_embeds`, gives hidden states.

    Raises:
        ModelRefused: it has none of its own.
    """
    inner: PreTrainedModel = model.get_decoder()  # type: ignore[no-untyped-call]
    if inner is model or inner is model.base_model:
        raise ModelRefused(
            "This image-text model has no text model of its own inside.",
            remedy="serve it with an OpenAI-compatible server and name it openai:MODEL",
        )
    return inner


@torch.inference_mode()
def embed(model: PreTrainedModel, inputs: VisionInputs) -> EmbeddedTokens:
    """Merge image features into the embeddings of a conversation, by the model's own code.

    The model runs up to its text model, which is not run: whatever the architecture does with
    images and positions is what it does here.

    Args:
        model: an image-text model with its head.
        inputs: all tokens, or a beginning that holds all images.

    Raises:
        ModelRefused: the text model inside is not reached, or is given no embeddings.
    """
    inner = text_model(model)
    with watched(inner, stop=True) as given, suppress(_Reached):
        run(model, inputs)
    embeds = given.get("inputs_embeds")
    if not isinstance(embeds, Tensor):
        raise ModelRefused(
            "This image-text model does not hand embeddings to its text model.",
            remedy="serve it with an OpenAI-compatible server and name it openai:MODEL",
        )
    positions = positions_of(given, len(inputs.ids), embeds.device)
    others = {name: value for name, value in given.items() if name not in _KNOWN and value is not None}  # fmt: skip
    return EmbeddedTokens(inputs.ids, embeds, positions, int(positions.max()) + 1, others)


def run(
    model: PreTrainedModel,
    inputs: VisionInputs,
    how: Callable[..., Any] | None = None,
    **options: Any,
) -> Any:
    """The model's own forward pass over one conversation.

    Args:
        model: an image-text model.
        inputs: what it takes.
        how: what of the model is called; None for all but the head that gives logits.
        options: further keywords.
    """
    ids = torch.tensor([inputs.ids], device=model.device)
    beside = {
        name: value.to(model.dtype) if value.is_floating_point() else value
        for name, value in inputs.beside.items()
    }
    return (how or model.base_model)(input_ids=ids, **beside, **options)


@contextmanager
def watched(inner: PreTrainedModel, *, stop: bool = False) -> Iterator[dict[str, Any]]:
    """Keep the keywords that a model is called with next; with `stop` it is then not run."""
    given: dict[str, Any] = {}

    def keep(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.update(kwargs)
        if stop:
            raise _Reached

    hook = inner.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield given
    finally:
        hook.remove()


def positions_of(given: Mapping[str, Any], tokens: int, device: torch.device) -> Tensor:
    """The positions that a text model was called with, `[axes, tokens]`; by default 0, 1, 2 ..."""
    positions = given.get("position_ids")
    if not isinstance(positions, Tensor):
        return torch.arange(tokens, device=device).unsqueeze(0)
    # Behind a row of plain places, if there are four, come time, height and width.
    return positions.reshape(-1, tokens)[-3:]
