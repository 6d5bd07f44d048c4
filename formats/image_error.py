"""An image that cannot be read, and how large one may be: known to images of every kind."""

from __future__ import annotations

from traces.errors import InputError

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: a few bytes can unfold to gigabytes."""


class ImageError(InputError):
    """An image of a problem cannot be read; `where` is its path."""
