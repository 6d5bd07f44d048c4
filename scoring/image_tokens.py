"""Images as token ids after a model's vocabulary: each place that an image fills in a prompt has an
id.

For the model itself every such place is the same placeholder. Here the ids differ, except between
equal images, so that the common prefix of two traces follows from their ids alone. The embeddings
of these ids are computed when a forward pass meets them, once for all traces of a problem.
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
"""Most bytes of image embeddings that are kept, of the latest images: an image of 13 tiles takes 27
MB with an 8B model."""


class ImageFeatures(Protocol):
    """The part of a model that encodes images."""

    @property
    def placeholder(self) -> int:
        """The id whose embedding is replaced by an image's features."""

    def image_ids(self, image: EncodedImage) -> tuple[int, ...]:
        """Return the ids that represent the image in a prompt, placeholders included."""

    def features(self, image: EncodedImage) -> Tensor:
        """Return `[placeholders, width]`: the embedding for each placeholder."""


@dataclass(frozen=True, slots=True)
class _KnownImage:
    """An image that has been read."""

    path: str
    sha256: str
    """Hash of its content."""
    first: int
    """The id of its first place; the ids of the others follow."""
    places: int
    """Number of placeholders."""
    ids: tuple[int, ...]
    """The ids that represent it in a prompt."""


class ImageTokens:
    """The images of problems as token ids, and their embeddings. Used by one thread."""

    def __init__(
        self,
        encoder: ImageFeatures,
        images: ProblemImages,
        *,
        first: int,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """Set up without reading anything.

        Args:
            encoder: computes image features.
            images: reads the images.
            first: the first free id: the size of the vocabulary.
            kept_bytes: limit of the embeddings that are kept; the latest image always is.
        """
        self._encoder, self._images, self._kept_bytes = encoder, images, kept_bytes
        self._known: dict[str, _KnownImage] = {}
        self._in_order: list[_KnownImage] = []
        self._free = first
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._size = 0

    @property
    def shown(self) -> bool:
        """Whether the images of problems are shown to the model."""
        return self._images.shown

    def of(self, problem: Problem) -> tuple[tuple[int, ...], ...]:
        """Return for each image of a problem the ids that represent it; empty if images are not
        shown.

        Raises:
            CannotLayOut: an image cannot be read (`unreadable`, with its path).
        """
        return tuple(self._ids(path) for path in problem.images if self._images.shown)

    def embeddings(self, ids: Sequence[int]) -> Tensor:
        """Return the embeddings of image ids.

        Args:
            ids: given out by `of`, at least one.

        Returns:
            `[ids, width]`.

        Raises:
            PrmError: an image changed since its trace was laid out.
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
            plain = self._encoder.image_ids(image)
            places = plain.count(self._encoder.placeholder)
            own = iter(range(self._free, self._free + places))
            ids = tuple(next(own) if i == self._encoder.placeholder else i for i in plain)
            known = _KnownImage(path, image.sha256, first=self._free, places=places, ids=ids)
            self._known[image.sha256] = known
            self._in_order.append(known)
            self._free += places
        return self._known[image.sha256].ids

    def _read(self, path: str) -> EncodedImage | Abstention:
        # Nothing leaves this machine, so protected images may be shown.
        alone = Problem(path, "", images=(path,))
        found = self._images.sendable(alone, hosted=False, allow_phi=True)
        return found if isinstance(found, Abstention) else found[0]

    def _features(self, known: _KnownImage) -> Tensor:
        """Return an image's embeddings; computed again if they were not kept."""
        if known.sha256 in self._kept:
            self._kept.move_to_end(known.sha256)
            return self._kept[known.sha256]
        image = self._read(known.path)
        if isinstance(image, Abstention) or image.sha256 != known.sha256:
            raise PrmError(
                "The image changed during scoring.", where=known.path, remedy="score again"
            )
        features = self._encoder.features(image)
        if len(features) != known.places:
            raise PrmError(
                f"The model encodes an image as {len(features)} tokens, but its processor reserves"
                f" {known.places}.",
                where=known.path,
                remedy="use the processor files that were published with the checkpoint",
            )
        self._kept[known.sha256] = features
        self._size += features.nbytes
        while self._size > self._kept_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.nbytes
        return features


@runtime_checkable
class ShowsImages(Protocol):
    """A family that shows the images of problems to its model."""

    @property
    def image_tokens(self) -> ImageTokens:
        """The images as tokens."""


class ExtendedEmbedding(nn.Module):
    """A model's embedding that knows image ids too; the model needs no other change."""

    def __init__(self, words: nn.Embedding, images: ImageTokens) -> None:
        """Take the vocabulary's embedding, and the images, whose ids follow the vocabulary's."""
        super().__init__()
        self.words, self._images = words, images

    @property
    def weight(self) -> Tensor:
        """The rows of the vocabulary."""
        return self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return `[..., width]` for `[...]` ids."""
        of_images = ids >= self.words.num_embeddings
        embedded: Tensor = self.words(ids.masked_fill(of_images, 0))
        if bool(of_images.any()):
            seen = self._images.embeddings(ids[of_images].tolist())
            embedded[of_images] = seen.to(embedded)
        return embedded


class PictureReader(Protocol):
    """Turns a picture into model inputs."""

    @property
    def placeholder(self) -> int:
        """The id whose embedding is replaced by an image's features."""

    def read(self, image: Image) -> VisionInputs:
        """Return the ids that represent one picture, and its pixels."""


@dataclass(frozen=True, slots=True)
class ProcessorReader:
    """The checkpoint's own processor."""

    processor: Any
    """A processor of transformers for images and text."""

    @property
    def placeholder(self) -> int:
        """The processor's image token."""
        return int(self.processor.image_token_id)

    def read(self, image: Image) -> VisionInputs:
        """Return one image token as the processor expands it."""
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
    """Tiles between two tokens, for checkpoints without a processor for images and text."""

    tiles: Any
    """An image processor of transformers that cuts pictures into tiles."""
    begin: int
    """The id before the placeholders."""
    placeholder: int
    end: int
    """The id after the placeholders."""
    places: int
    """Placeholders per tile."""

    def read(self, image: Image) -> VisionInputs:
        """Return the placeholders of all tiles of the picture, with their pixels."""
        pixels = self.tiles(images=[image], crop_to_patches=True, return_tensors="pt")[
            "pixel_values"
        ]
        middle = [self.placeholder] * (self.places * len(pixels))
        return VisionInputs((self.begin, *middle, self.end), {"pixel_values": pixels})


class ModelImageFeatures:
    """Image features as an image-text model itself merges them into its embeddings."""

    def __init__(self, model: PreTrainedModel, reader: PictureReader) -> None:
        """Take an image-text model, ready on its device, and its picture reader."""
        self._model, self._reader = model, reader

    @property
    def placeholder(self) -> int:
        """The id whose embedding is replaced by an image's features."""
        return self._reader.placeholder

    def image_ids(self, image: EncodedImage) -> tuple[int, ...]:
        """Return the ids that represent the image in a prompt.

        Raises:
            PrmError: the reader cannot process the image.
        """
        return self._inputs(image).ids

    def features(self, image: EncodedImage) -> Tensor:
        """Return `[placeholders, width]`, as the model itself merges them into its embeddings.

        Raises:
            PrmError: the reader cannot process the image.
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
                f"The checkpoint's image processor fails on an image: {reason[0][:200]}",
                where=image.path,
                remedy="use the processor files that were published with the checkpoint",
            ) from fault
