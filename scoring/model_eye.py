"""How an image-text model sees one image: what stands for it in a prompt, and what its tower makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from PIL.Image import Image
from torch import Tensor
from transformers import PreTrainedModel

from inference.images import EncodedImage
from inference.vision import VisionInputs
from inference.vision_embedding import embed
from inference.vision_pictures import picture
from traces.errors import PrmError


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
    """The `scoring.image_tokens.Eye` of an image-text model: features are those that it merges itself."""

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
        merged = embed(self._model, VisionInputs(inputs.ids, pixels)).embeds[0]
        return merged[[place for place, i in enumerate(inputs.ids) if i == self.placeholder]]

    def _inputs(self, image: EncodedImage) -> VisionInputs:
        try:
            return self._reader.read(picture(image))
        except (TypeError, ValueError, KeyError, IndexError) as fault:
            reason = str(fault).strip().splitlines() or [type(fault).__name__]
            raise PrmError(
                f"The checkpoint's image processor does not take an image: {reason[0][:200]}",
                where=image.path,
                remedy="take the processor files that were published with the checkpoint",
            ) from fault
