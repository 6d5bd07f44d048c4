"""The pictures of a conversation as image processors take them: upright, eight bits, three colours."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from formats.images import EncodedImage

_PAPER = (255, 255, 255, 255)
"""What shows through where a picture is transparent: drawings are made for white paper."""
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Modes of 16 bits a pixel; Pillow's own way to RGB would cut them off at 255."""


def picture(image: EncodedImage) -> Image.Image:
    """Decode an image for a processor: EXIF rotation carried out, transparency on white, RGB.

    Sixteen bits are scaled to eight. The pixels are those that services are sent (`formats.images`).
    """
    opened = ImageOps.exif_transpose(Image.open(io.BytesIO(image.data)))
    if opened.mode in _DEEP:
        opened = Image.fromarray((np.asarray(opened).astype(np.uint32) >> 8).astype(np.uint8))
    if opened.has_transparency_data:
        seen = opened.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, _PAPER), seen).convert("RGB")
    return opened.convert("RGB")
