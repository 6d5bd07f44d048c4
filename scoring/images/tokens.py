"""Images as words behind a model's vocabulary: each place that an image fills in a prompt has an id.

To the model itself every such place is the same placeholder. Here they are numbers of their own, equal
where the images are equal and nowhere else, so that what two traces begin with in common follows from
their ids alone. What the numbers look like is computed when a forward pass meets them, once for all
traces of a problem.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol, runtime_checkable

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from inference import EncodedImage, ProblemImages, VisionInputs, decode_image, embed_images
from scoring.family import CannotLayOut
from traces import Abstention, PrmError, Problem

KEPT_BYTES: Final = 256 << 20
"""What images look like is kept up to this size, that of the last ones: an image of 13 tiles takes 27 MB
with an 8B model."""


class Eye(Protocol):
    """The part of a model that sees."""

    @property
    def placeholder(self) -> int:
        """The id whose embedding gives way to what an image looks like."""

    def image_ids(self, image: EncodedImage) -> tuple[int, ...]:
        """What stands for the image in a prompt, placeholders included."""

    def features(self, image: EncodedImage) -> Tensor:
        """`[placeholders, width]`: what is put in the place of each."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An image that was met."""

    path: str
    """Where it was read."""
    sha256: str
    """Hash of its content."""
    first: int
    """The id of its first place; those of the others follow."""
    places: int
    """Placeholders it takes."""
    ids: tuple[int, ...]
    """What stands for it in a prompt, with the ids of its own."""


class ImageTokens:
    """The images of problems as token ids, and their embeddings. Used by one thread."""

    def __init__(
        self, eye: Eye, images: ProblemImages, first: int, *, kept_bytes: int = KEPT_BYTES
    ) -> None:
        """Nothing is read yet.

        Args:
            eye: sees.
            images: reads the images.
            first: the first id that is free: the size of the vocabulary.
            kept_bytes: bound of what is kept of the embeddings; the last image always is.
        """
        self._eye, self._images, self._kept_bytes = eye, images, kept_bytes
        self._known: dict[str, _Known] = {}
        self._in_order: list[_Known] = []
        self._free = first
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._size = 0

    @property
    def shown(self) -> bool:
        """Whether the images of problems are shown."""
        return self._images.shown

    def of(self, problem: Problem) -> tuple[tuple[int, ...], ...]:
        """For each image of a problem the ids that stand for it; empty if it is shown none.

        Raises:
            CannotLayOut: an image cannot be read (`unreadable`, with its path).
        """
        return tuple(self._ids(path) for path in problem.images if self._images.shown)

    def embeddings(self, ids: Sequence[int]) -> Tensor:
        """What ids of images look like.

        Args:
            ids: given out by `of`, at least one.

        Returns:
            `[ids, width]`.

        Raises:
            PrmError: an image is no longer what it was when its trace was laid out.
        """
        parts = []
        for number, run in groupby(ids, key=self._number):
            known = self._in_order[number]
            places = torch.tensor([i - known.first for i in run])
            features = self._features(known)
            parts.append(features[places.to(features.device)])
        return torch.cat(parts)

    def _number(self, i: int) -> int:
        return bisect_right(self._in_order, i, key=lambda known: known.first) - 1

    def _ids(self, path: str) -> tuple[int, ...]:
        image = self._read(path)
        if isinstance(image, Abstention):
            raise CannotLayOut(image)
        if image.sha256 not in self._known:
            plain = self._eye.image_ids(image)
            places = plain.count(self._eye.placeholder)
            own = iter(range(self._free, self._free + places))
            ids = tuple(next(own) if i == self._eye.placeholder else i for i in plain)
            known = _Known(path, image.sha256, self._free, places, ids)
            self._known[image.sha256] = known
            self._in_order.append(known)
            self._free += places
        return self._known[image.sha256].ids

    def _read(self, path: str) -> EncodedImage | Abstention:
        # Nothing leaves this machine: what is held back from hosted models may be shown.
        alone = Problem(path, "", images=(path,))
        found = self._images.sendable(alone, hosted=False, allow_phi=True)
        return found if isinstance(found, Abstention) else found[0]

    def _features(self, known: _Known) -> Tensor:
        """What an image looks like; computed anew if it was not kept."""
        if known.sha256 in self._kept:
            self._kept.move_to_end(known.sha256)
            return self._kept[known.sha256]
        image = self._read(known.path)
        if isinstance(image, Abstention) or image.sha256 != known.sha256:
            raise PrmError(
                "The image changed while it was scored.", where=known.path, remedy="score again"
            )
        features = self._eye.features(image)
        if len(features) != known.places:
            raise PrmError(
                f"The model sees {len(features)} tokens in an image for which its processor leaves"
                f" {known.places} places.",
                where=known.path,
                remedy="take the processor files that were published with the checkpoint",
            )
        self._kept[known.sha256] = features
        self._size += features.nbytes
        while self._size > self._kept_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.nbytes
        return features


@runtime_checkable
class ShowsImages(Protocol):
    """A family whose model is shown the images of problems."""

    @property
    def image_tokens(self) -> ImageTokens:
        """The images as tokens."""


class GrownEmbedding(nn.Module):
    """A model's embedding that knows the ids of images too; in its place the model needs no other change."""

    def __init__(self, words: nn.Embedding, images: ImageTokens) -> None:
        """Take the embedding of the vocabulary, and the images whose ids begin behind it."""
        super().__init__()
        self.words, self._images = words, images

    @property
    def weight(self) -> Tensor:
        """The rows of the vocabulary."""
        return self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        """`[...]` ids in, `[..., width]` out."""
        of_images = ids >= self.words.num_embeddings
        embedded: Tensor = self.words(ids.masked_fill(of_images, 0))
        if bool(of_images.any()):
            seen = self._images.embeddings(ids[of_images].tolist())
            embedded[of_images] = seen.to(embedded)
        return embedded


# --- How an image-text model sees one image: what stands for it in a prompt, and what its tower


class PictureReader(Protocol):
    """Turns a picture into what a model takes."""

    @property
    def placeholder(self) -> int:
        """The id whose embedding gives way to what an image looks like."""

    def read(self, image: Image) -> VisionInputs:
        """The ids that stand for one picture, and its pixels."""


@dataclass(frozen=True, slots=True)
class ProcessorReader:
    """The checkpoint's own processor."""

    processor: Any
    """Of transformers, for images and text."""

    @property
    def placeholder(self) -> int:
        """The processor's image token."""
        return int(self.processor.image_token_id)

    def read(self, image: Image) -> VisionInputs:
        """One image token, as the processor expands it."""
        made = self.processor(
            text=[self.processor.image_token],
            images=[[image]],
            add_special_tokens=False,
            return_tensors="pt",
        )
        pixels = {"pixel_values": made["pixel_values"]}
        return VisionInputs(tuple(made["input_ids"][0].tolist()), pixels)


@dataclass(frozen=True, slots=True)
class TileReader:
    """Tiles between two tokens, where a checkpoint has an image processor at most."""

    tiles: Any
    """An image processor of transformers that cuts pictures into tiles."""
    begin: int
    """The id before the placeholders."""
    placeholder: int
    """The id of each."""
    end: int
    """The id behind them."""
    places: int
    """Placeholders a tile."""

    def read(self, image: Image) -> VisionInputs:
        """As many places as the picture has tiles, with their pixels."""
        pixels = self.tiles(images=[image], crop_to_patches=True, return_tensors="pt")[
            "pixel_values"
        ]
        middle = [self.placeholder] * (self.places * len(pixels))
        return VisionInputs((self.begin, *middle, self.end), {"pixel_values": pixels})


class ModelEye:
    """The `scoring.images.tokens.Eye` of an image-text model: features are those that it merges itself."""

    def __init__(self, model: PreTrainedModel, reader: PictureReader) -> None:
        """Take an image-text model, ready on its device, and what reads pictures for it."""
        self._model, self._reader = model, reader

    @property
    def placeholder(self) -> int:
        """The id whose embedding gives way to what an image looks like."""
        return self._reader.placeholder

    def image_ids(self, image: EncodedImage) -> tuple[int, ...]:
        """What stands for the image in a prompt.

        Raises:
            PrmError: the reader does not take the image.
        """
        return self._inputs(image).ids

    def features(self, image: EncodedImage) -> Tensor:
        """`[placeholders, width]`, as the model itself merges them into its embeddings.

        Raises:
            PrmError: the reader does not take the image.
        """
        inputs = self._inputs(image)
        pixels = {name: value.to(self._model.device) for name, value in inputs.beside.items()}
        merged = embed_images(self._model, VisionInputs(inputs.ids, pixels)).embeds[0]
        return merged[[place for place, i in enumerate(inputs.ids) if i == self.placeholder]]

    def _inputs(self, image: EncodedImage) -> VisionInputs:
        try:
            return self._reader.read(decode_image(image))
        except (TypeError, ValueError, KeyError, IndexError) as fault:
            reason = str(fault).strip().splitlines() or [type(fault).__name__]
            raise PrmError(
                f"The checkpoint's image processor does not take an image: {reason[0][:200]}",
                where=image.path,
                remedy="take the processor files that were published with the checkpoint",
            ) from fault
