"""The choices of `--neutral`."""

from __future__ import annotations

from enum import StrEnum


class NeutralPolicy(StrEnum):
    """How a neutral step is read (`--neutral`).

    The field disagrees: OpenAI and Qwen count PRM800K's neutral as positive, TRL as negative
    (`rating == 1`), VisualProcessBench leaves it out.
    """

    KEEP = "keep"
    """As the verdict neutral."""
    POSITIVE = "positive"
    """As correct."""
    NEGATIVE = "negative"
    """As incorrect."""
    IGNORE = "ignore"
    """As a step without a verdict; the first error is still the annotator's first -1."""
