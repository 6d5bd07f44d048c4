"""How an image-text model sees one image: its processor's placeholders, its vision tower's features."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from inference.images import EncodedImage
from inference.vision import VisionInputs
from inference.vision_embedding import embed
from inference.vision_pictures import picture
from traces.errors import PrmError


class ModelEye:
    """The `scoring.image_tokens.Eye` of an image-text model.

    Tiles, resizing and the number of placeholders are the processor's, the features the model's own.
    """

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        """Take an image-text model, ready on its device, and its processor."""
        self._model, self._processor = model, processor

    @property
    def placeholder(self) -> int:
        """The id whose embedding gives way to what an image looks like."""
        return int(self._processor.image_token_id)

    def image_ids(self, image: EncodedImage) -> tuple[int, ...]:
        """What stands for the image in a prompt, as the processor expands it.

        Raises:
            PrmError: the processor does not take the image.
        """
        return self._inputs(image).ids

    def features(self, image: EncodedImage) -> Tensor:
        """`[placeholders, width]`, as the model itself merges them into its embeddings.

        Raises:
            PrmError: the processor does not take the image.
        """
        inputs = self._inputs(image)
        merged = embed(self._model, inputs).embeds[0]
        return merged[[place for place, i in enumerate(inputs.ids) if i == self.placeholder]]

    def _inputs(self, image: EncodedImage) -> VisionInputs:
        try:
            made = self._processor(
                text=[self._processor.image_token],
                images=[[picture(image)]],
                add_special_tokens=False,
                return_tensors="pt",
            )
        except (TypeError, ValueError, KeyError, IndexError) as fault:
            reason = str(fault).strip().splitlines() or [type(fault).__name__]
            raise PrmError(
                f"The checkpoint's image processor does not take an image: {reason[0][:200]}",
                where=image.path,
                remedy="take the processor files that were published with the checkpoint",
            ) from fault
        pixels = made["pixel_values"].to(self._model.device)
        return VisionInputs(tuple(made["input_ids"][0].tolist()), {"pixel_values": pixels})
