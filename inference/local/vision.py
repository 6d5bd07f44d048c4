"""Conversations with images as image-text models take them: token ids, pixels, and embeddings.

Ids are the processor's own, with its expanded placeholders. Conversations about the same images
share their beginning, the *head*, up to the last image token. Only the text after it is tokenized
again; where that is not proven to give the processor's ids, the processor is used every time. This
works with any processor that transformers has for the model; no code of a checkpoint is run.
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

from formats import ImageError
from inference.prompting import Opening, first_ids, split_turns
from inference.protocol import Message
from traces import ModelRefused

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from formats import EncodedImage


_PAPER = (255, 255, 255, 255)
"""Background of transparent images: drawings are made for white paper."""
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Modes with 16 bits per pixel, which Pillow's own conversion to RGB would clip at 255."""


def decode_image(image: EncodedImage) -> Image.Image:
    """Decode an image for a processor: EXIF rotation applied, transparency on white, RGB, 8 bits.

    The pixels are those that services are sent (`formats.files.images`).
    """
    opened = ImageOps.exif_transpose(Image.open(io.BytesIO(image.data)))
    if opened.mode in _DEEP:
        opened = Image.fromarray((np.asarray(opened).astype(np.uint32) >> 8).astype(np.uint8))
    if opened.has_transparency_data:
        seen = opened.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, _PAPER), seen).convert("RGB")
    return opened.convert("RGB")


_NOT_FOR_THE_MODEL = ("input_ids", "attention_mask")
"""Outputs of processors that are passed on otherwise, or not needed without padding."""
_HEADS = 64
"""Heads cached with their encoded images, because traces of a problem are consecutive."""
_PIXEL_BYTES = 256 * 1024 * 1024
"""Pixels cached for the heads read last; others are read again when needed."""


@dataclass(frozen=True, slots=True)
class VisionInputs:
    """A conversation as an image-text model takes it."""

    ids: tuple[int, ...]
    """All token ids, with each image as the placeholders that its features replace."""
    beside: Mapping[str, Tensor]
    """Further inputs for a batch of one: pixels, grids, token types. Empty without images."""

    def cut(self, tokens: int) -> VisionInputs:
        """Its first tokens, which must include all of its images."""
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
    shown: tuple[str, ...]
    """Hashes of its images. Heads with equal ids and images are equal."""
    plain: tuple[int, ...] = field(compare=False)
    """Token ids by the tokenizer alone, where each placeholder is a single token."""
    turns: tuple[Message, ...] = field(compare=False, repr=False)
    """A conversation that begins with it."""


class VisionReader:
    """Turns conversations into the inputs of one image-text model."""

    def __init__(self, processor: Any, image_ids: frozenset[int], device: torch.device) -> None:
        """Take a processor.

        Args:
            processor: transformers' processor of the model, with tokenizer and chat template.
            image_ids: the token ids that image features replace, or that frame them.
            device: the device of the tensors.
        """
        self._processor, self._image_ids, self._device = processor, image_ids, device
        self._written = [
            token
            for name in ("image_token", "boi_token", "video_token", "audio_token")
            if (token := getattr(processor, name, None))
        ]
        self._heads: OrderedDict[tuple[str, ...], ImageHead] = OrderedDict()
        self._pixels: OrderedDict[ImageHead, VisionInputs] = OrderedDict()
        self._opening: Opening | None = None
        self.always_asks = False
        """Whether the processor is used for the ids of every conversation; see `prove_reading`."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The processor's tokenizer."""
        tokenizer: PreTrainedTokenizerBase = self._processor.tokenizer
        return tokenizer

    def read(self, messages: Sequence[Message]) -> VisionInputs:
        """Read a conversation with the processor, ready for the assistant's next token.

        Images come before the text of their turn, in order. A final assistant turn is appended
        verbatim to the template's generation prompt.

        Raises:
            ImageError: the processor rejects the images; `where` has their paths. That it accepts
                images at all, and that the template shows them, is proven when loading.
        """
        images = [decode_image(image) for message in messages for image in message.images]
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
                f"The model's image processor rejects it: {reason[0][:200]}.",
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
            messages: the turns before the assistant's; a final assistant turn is ignored.

        Raises:
            ImageError: as `read`.
            ModelRefused: nothing follows the last image.
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
        """The model's inputs for the head alone; read again if no longer cached."""
        if head not in self._pixels:
            self._keep(head, self.read(head.turns).cut(len(head.ids)))
        self._pixels.move_to_end(head)
        return self._pixels[head]

    def ids(
        self, conversations: Sequence[Sequence[Message]], head: ImageHead | None
    ) -> list[tuple[int, ...]]:
        """Token ids of conversations that share a head, as `read` gives them, without pixels.

        Raises:
            ModelRefused: one of them does not begin with the head.
        """
        rows = self._plain([self.text(conversation) for conversation in conversations])
        return rows if head is None else list(self._after(head, conversations, rows))

    def text(self, messages: Sequence[Message]) -> str:
        """The conversation up to where the assistant continues, with one placeholder per image."""
        turns, written = split_turns(messages)
        opening = self._begun() if written else Opening()
        rendered = self._rendered(turns, **opening.switches)
        begin = self.tokenizer.bos_token
        if first_ids(self.tokenizer) and begin and not rendered.startswith(begin):
            rendered = f"{begin}{rendered}"
        return f"{rendered}{opening.after}{self._spelled(written)}"

    def _begun(self) -> Opening:
        """How the template begins the assistant's text; found once."""
        if self._opening is None:
            where = str(self.tokenizer.name_or_path) or None
            self._opening = Opening.found(self._rendered, where=where)
        return self._opening

    def _rendered(self, turns: Sequence[Message], *, generate: bool = True, **switches: Any) -> str:
        """The turns rendered by the template; plain paragraphs without one."""
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
            add_generation_prompt=generate,
            **switches,
        )
        return str(rendered)

    def _spelled(self, text: str) -> str:
        """The text with any literal placeholder broken up by a space."""
        for token in self._written:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _read_head(
        self, asked: tuple[Message, ...], text: str, shown: tuple[str, ...]
    ) -> ImageHead:
        """Find where the images end, comparing processor and tokenizer ids from the end."""
        whole, plain = self.read(asked), self._plain([text])[0]
        after = 0
        for ours, alone in zip(reversed(whole.ids), reversed(plain), strict=False):
            if ours != alone or ours in self._image_ids:
                break
            after += 1
        if not after:
            raise ModelRefused(
                "The model's chat template puts nothing after the images of a turn.",
                remedy="serve the model and use openai:MODEL",
            )
        inputs = whole.cut(len(whole.ids) - after)
        head = ImageHead(inputs.ids, shown, plain[: len(plain) - after], asked)
        self._keep(head, inputs)
        return head

    def _keep(self, head: ImageHead, inputs: VisionInputs) -> None:
        """Cache the pixels of a head, and evict the oldest beyond the size limit."""
        self._pixels[head] = inputs
        size = sum(map(_bytes_of, self._pixels.values()))
        while size > _PIXEL_BYTES and len(self._pixels) > 1:
            size -= _bytes_of(self._pixels.popitem(last=False)[1])

    def _plain(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        rows = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [tuple(row) for row in rows]

    def _after(
        self,
        head: ImageHead,
        conversations: Sequence[Sequence[Message]],
        rows: Sequence[tuple[int, ...]],
    ) -> Iterator[tuple[int, ...]]:
        """The head followed by tokenized text; the processor's ids where the beginning differs."""
        for conversation, row in zip(conversations, rows, strict=True):
            if row[: len(head.plain)] == head.plain and not self.always_asks:
                whole = (*head.ids, *row[len(head.plain) :])
            else:
                whole = self.read(conversation).ids
            if whole[: len(head.ids)] != head.ids or len(whole) == len(head.ids):
                raise ModelRefused(
                    "The model's chat template begins differently for prefixes of one trace.",
                    remedy="serve the model and use openai:MODEL",
                )
            yield whole


def _bytes_of(inputs: VisionInputs) -> int:
    return sum(value.nbytes for value in inputs.beside.values())


_KNOWN = frozenset(
    {"inputs_embeds", "position_ids", "use_cache", "cache", "past_key_values", "return_dict"}
)


class _Reached(Exception):
    """The text model was reached."""


@dataclass(frozen=True, slots=True)
class EmbeddedTokens:
    """A conversation, or its beginning, as the inner text model takes it."""

    ids: tuple[int, ...]
    embeds: Tensor
    """`[1, tokens, width]`: token embeddings, with image features in place of placeholders."""
    positions: Tensor
    """int64 `[axes, tokens]`: one axis, or three (time, height, width) as for Qwen2-VL."""
    following: int
    """The position of the next text token, the same on every axis."""
    others: Mapping[str, Any]
    """Further inputs of the text model that are not None. If there are any, embeddings and
    positions do not suffice (features added to deeper layers, masks that look ahead)."""

    @property
    def shift(self) -> int:
        """Added to the index of a text token after these to get its position."""
        return self.following - len(self.ids)


def inner_text_model(model: PreTrainedModel) -> PreTrainedModel:
    """The text model in an image-text model: takes `inputs_embeds`, returns hidden states.

    Raises:
        ModelRefused: it has no separate text model.
    """
    inner: PreTrainedModel = model.get_decoder()  # type: ignore[no-untyped-call]
    if inner is model or inner is model.base_model:
        raise ModelRefused(
            "This image-text model has no separate text model inside.",
            remedy="serve it with an OpenAI-compatible server and use openai:MODEL",
        )
    return inner


@torch.inference_mode()
def embed_images(model: PreTrainedModel, inputs: VisionInputs) -> EmbeddedTokens:
    """Merge image features into the embeddings of a conversation, by the model's own code.

    The model runs up to its text model, which is not run, so the architecture itself handles images
    and positions.

    Args:
        model: an image-text model with its head.
        inputs: all tokens, or a beginning that includes all images.

    Raises:
        ModelRefused: the inner text model is not reached, or gets no embeddings.
    """
    inner = inner_text_model(model)
    with watched(inner, stop=True) as given, suppress(_Reached):
        run_model(model, inputs)
    embeds = given.get("inputs_embeds")
    if not isinstance(embeds, Tensor):
        raise ModelRefused(
            "This image-text model does not pass embeddings to its text model.",
            remedy="serve it with an OpenAI-compatible server and use openai:MODEL",
        )
    positions = positions_of(given, len(inputs.ids), embeds.device)
    others = {
        name: value for name, value in given.items() if name not in _KNOWN and value is not None
    }
    return EmbeddedTokens(
        inputs.ids, embeds, positions, following=int(positions.max()) + 1, others=others
    )


def run_model(
    model: PreTrainedModel,
    inputs: VisionInputs,
    how: Callable[..., Any] | None = None,
    **options: Any,
) -> Any:
    """The model's own forward pass over one conversation.

    Args:
        model: an image-text model.
        inputs: the conversation.
        how: the callable to run; None for the model without its language-model head.
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
    """Capture the keywords that a model is called with; with `stop` it is not run."""
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
    """The positions with which a text model was called, `[axes, tokens]`; by default 0, 1, 2 ..."""
    positions = given.get("position_ids")
    if not isinstance(positions, Tensor):
        return torch.arange(tokens, device=device).unsqueeze(0)
    # If there are four rows, the first has plain indices, followed by time, height and width.
    return positions.reshape(-1, tokens)[-3:]
