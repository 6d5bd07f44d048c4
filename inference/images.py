"""Images for a model: loaded for a problem, withheld where they must not be sent, and ordered."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from formats import EncodedImage as EncodedImage
from formats import ImageError, load_images
from inference.destinations import Redirected
from inference.protocol import GenerationRequest, Message
from traces import Abstention, AbstentionReason, ModelRefused, ModelUnavailable, Problem

KEPT_BYTES = 64 * 1024 * 1024
"""Images of the last problems are cached up to this size: traces of a problem are consecutive."""
TILE_TOKENS = 258
"""Tokens that Gemini bills per tile of an image."""
LEAST_TOKENS = 1120
"""Tokens that Gemini 3 bills for an image of any size at its default resolution."""
LABEL_TOKENS = 8
"""Upper bound for the line above an image."""

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
            root: the folder of relative paths.
            shown: False for a labeler that must not see images: then no problem has any.
            kept_bytes: size of the cache.
        """
        self._root = root
        self._shown = shown
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[tuple[str, ...], tuple[EncodedImage, ...]] = OrderedDict()
        self._size = 0

    @property
    def shown(self) -> bool:
        """Whether the labeler sees images."""
        return self._shown

    def of(self, problem: Problem) -> tuple[EncodedImage, ...]:
        """The images of a problem in order; empty if it has none.

        Raises:
            ImageError: one cannot be read; `where` has its path.
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
        """The images of a problem, or the abstention `unreadable` or `filtered`.

        An image with text burned into its pixels may name the patient. Like a problem that says
        `phi_removed: false`, it is not sent to a hosted model unless the user allows it.

        Args:
            problem: the problem.
            hosted: whether the model is hosted elsewhere.
            allow_phi: whether the user allows it.
        """
        try:
            images = self.of(problem)
        except ImageError as fault:
            return unreadable(fault)
        marked = [image.path for image in images if image.may_show_patient]
        if marked and hosted and not allow_phi:
            detail = (
                f"{marked[0]}: text burned into the image may name the patient; "
                "it is not sent to a hosted model without --allow-phi"
            )
            return Abstention(AbstentionReason.FILTERED, detail)
        return images


def unreadable(fault: ImageError) -> Abstention:
    """The abstention for an image that cannot be read; the detail starts with its path."""
    return Abstention(AbstentionReason.UNREADABLE, f"{fault.where}: {fault.what}")


def _bytes_of(images: tuple[EncodedImage, ...]) -> int:
    return sum(len(image.data) for image in images)


def message_parts(message: Message) -> Iterator[str | EncodedImage]:
    """A turn as services take it: each image after a line with its 1-based number, then the text.

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
    """Upper estimate of the tokens of an image and its line, for Gemini.

    Source: ai.google.dev/gemini-api/docs/tokens and .../media-resolution. Up to Gemini 2.5 an image
    costs 258 tokens per tile, whose side is the image's shorter side divided by 1.5, at least 256
    and at most 768 pixels; Gemini 3 bills up to 1,120 at its default resolution. The larger of the
    two counts; a budget corrects the estimate by the counts in replies.

    Args:
        width: pixels, at least 1.
        height: pixels, at least 1.
    """
    side = min(768, max(256, math.floor(min(width, height) / 1.5)))
    tiles = math.ceil(width / side) * math.ceil(height / side)
    return LABEL_TOKENS + max(LEAST_TOKENS, TILE_TOKENS * tiles)


def about_an_image(request: GenerationRequest, refusal: ModelRefused) -> ModelUnavailable | None:
    """The refusal as a fault of this request's image alone; None if it concerns the whole run.

    A service that cannot decode one image can still answer the next problem; one that takes no
    images at all cannot.
    """
    said = refusal.what
    if (
        isinstance(refusal, Redirected)
        or not has_images(request)
        or not _IMAGE.search(said)
        or _TAKES_NONE.search(said)
    ):
        return None
    return ModelUnavailable(said, remedy="check the images of this problem")
