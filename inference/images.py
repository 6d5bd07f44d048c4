"""Images on their way to a model: found for a problem, refused where they must not be sent, laid out."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from formats.files.images import EncodedImage, ImageError, load_images
from inference.protocol import GenerationRequest, Message
from traces import Abstention, AbstentionReason, ModelRefused, ModelUnavailable, Problem

__all__ = [
    "EncodedImage",
    "ProblemImages",
    "about_an_image",
    "has_images",
    "image_tokens",
    "message_parts",
    "unreadable",
]

KEPT_BYTES = 64 * 1024 * 1024
"""The images of the last problems, up to this size, are kept: the traces of a problem follow each other."""
TILE_TOKENS = 258
"""What Gemini bills for each tile of an image."""
LEAST_TOKENS = 1120
"""What Gemini 3 bills for an image at its default resolution, whatever its size."""
LABEL_TOKENS = 8
"""The line above an image, from above."""

_IMAGE = re.compile(r"\bimages?\b|\bimage_", re.IGNORECASE)
_TAKES_NONE = re.compile(
    r"\b(?:not|n't|no|without|lacks?)\b[^.]*\b(?:support|accept|capab)", re.IGNORECASE
)


class ProblemImages:
    """Loads the images of problems. Used by one thread."""

    def __init__(
        self, root: Path = Path(), *, shown: bool = True, kept_bytes: int = KEPT_BYTES
    ) -> None:
        """Nothing is read yet.

        Args:
            root: the folder that relative paths start from.
            shown: False for a labeler that is not to see images: then no problem has any.
            kept_bytes: how much of what was read last is kept.
        """
        self._root = root
        self._shown = shown
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[tuple[str, ...], tuple[EncodedImage, ...]] = OrderedDict()
        self._size = 0

    @property
    def shown(self) -> bool:
        """Whether the labeler is to see images."""
        return self._shown

    def of(self, problem: Problem) -> tuple[EncodedImage, ...]:
        """The images of a problem in their order; empty if it has none.

        Raises:
            ImageError: one cannot be read; its path is in `where`.
        """
        if not problem.images or not self._shown:
            return ()
        if problem.images in self._kept:
            self._kept.move_to_end(problem.images)
            return self._kept[problem.images]
        loaded = load_images(problem.images, self._root)
        self._kept[problem.images] = loaded
        self._size += _bytes_of(loaded)
        while self._size > self._kept_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._size -= _bytes_of(dropped)
        return loaded

    def sendable(
        self, problem: Problem, *, hosted: bool, allow_phi: bool
    ) -> tuple[EncodedImage, ...] | Abstention:
        """The images of a problem, or why it cannot be asked about: `unreadable` or `filtered`.

        An image into whose pixels text is burned may name the patient: like a problem that says
        `phi_removed: false`, it goes to no model that is hosted elsewhere unless the user allows it.

        Args:
            problem: the problem.
            hosted: whether the model is elsewhere.
            allow_phi: whether the user allows it.
        """
        try:
            images = self.of(problem)
        except ImageError as fault:
            return unreadable(fault)
        marked = [image.path for image in images if image.may_show_patient]
        if marked and hosted and not allow_phi:
            detail = (
                f"{marked[0]}: text is burned into the image, which may name the patient; "
                "it is sent to no hosted model without --allow-phi"
            )
            return Abstention(AbstentionReason.FILTERED, detail)
        return images


def unreadable(fault: ImageError) -> Abstention:
    """That an image cannot be read, or not by the model's processor; its path comes first."""
    return Abstention(AbstentionReason.UNREADABLE, f"{fault.where}: {fault.what}")


def _bytes_of(images: tuple[EncodedImage, ...]) -> int:
    return sum(len(image.data) for image in images)


def message_parts(message: Message) -> Iterator[str | EncodedImage]:
    """A turn as services take it: each image behind a line with its 1-based number, then the text.

    >>> list(message_parts(Message("user", "Which dose?")))
    ['Which dose?']
    """
    for number, image in enumerate(message.images, 1):
        yield f"Image {number}:"
        yield image
    yield message.text


def has_images(request: GenerationRequest) -> bool:
    """Whether the request shows an image."""
    return any(message.images for message in request.messages)


def image_tokens(width: int, height: int) -> int:
    """Tokens of an image and its line, estimated from above for Gemini.

    Source of the rule: ai.google.dev/gemini-api/docs/tokens and .../media-resolution. Up to Gemini
    2.5 an image is 258 tokens for each of its tiles, whose side is the shorter side divided by 1.5,
    at least 256 and at most 768 pixels; Gemini 3 bills up to 1,120 at its default resolution. The
    larger of the two counts; a budget corrects the estimate by what replies show.

    Args:
        width: pixels, at least 1.
        height: pixels, at least 1.
    """
    side = min(768, max(256, math.floor(min(width, height) / 1.5)))
    tiles = math.ceil(width / side) * math.ceil(height / side)
    return LABEL_TOKENS + max(LEAST_TOKENS, TILE_TOKENS * tiles)


def about_an_image(request: GenerationRequest, refusal: ModelRefused) -> ModelUnavailable | None:
    """What a refusal is if it is about an image of this request alone; None if it is about the run.

    A service that cannot decode one image has nothing against the next problem; one that takes no
    images at all has.
    """
    said = refusal.what
    if not has_images(request) or not _IMAGE.search(said) or _TAKES_NONE.search(said):
        return None
    return ModelUnavailable(said, remedy="look at the images of this problem")
