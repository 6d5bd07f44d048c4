"""Encoded images made in memory, and requests that show them."""

from __future__ import annotations

import hashlib

from formats.files.images import EncodedImage
from inference.protocol import GenerationRequest, Message
from tests.formats.picture_files import picture


def encoded(number: int = 0, *, size: int = 0, path: str | None = None) -> EncodedImage:
    """A real picture; filled up to `size` bytes behind its end, where decoders do not look."""
    content = picture("PNG", (40 + number, 30))
    content += bytes(max(0, size - len(content)))
    return EncodedImage(
        "image/png",
        hashlib.sha256(content).hexdigest(),
        40 + number,
        30,
        path or f"scan{number}.png",
        content,
    )


def showing(*images: EncodedImage, text: str = "Step 1: a") -> GenerationRequest:
    """A request that shows these images with its question."""
    return GenerationRequest((Message("system", "Judge."), Message("user", text, images)), 200)
