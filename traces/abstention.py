"""Abstention: no verdict, and the reason why. Never a number."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AbstentionReason(StrEnum):
    """Why a step or a trace has no verdict (design.md section 2)."""

    BLOCKED = "blocked"
    """The service refused to answer (safety, recitation, prohibited content)."""
    TRUNCATED = "truncated"
    """The reply was cut at a token limit."""
    UNREADABLE = "unreadable"
    """The reply could not be parsed, or did not cover every step; or an image could not be read."""
    NO_EVIDENCE = "no_evidence"
    """The labeler says that the evidence does not decide the step."""
    OVER_LENGTH = "over_length"
    """The trace does not fit into the model's window."""
    NOT_MEASURED = "not_measured"
    """The labeler did not look at this step (for example after the first error)."""
    MODEL_ERROR = "model_error"
    """The model call failed after all retries."""
    NO_ANSWER = "no_answer"
    """The problem has no gold answer to compare with."""
    UNPARSED = "unparsed"
    """No answer could be extracted from any continuation."""
    UNCERTAIN = "uncertain"
    """The labeler's signal lies between its two thresholds."""
    DISAGREEMENT = "disagreement"
    """Two labelers name different first errors."""
    FILTERED = "filtered"
    """A quality filter took the trace out."""
    GOLD_UNUSABLE = "gold_unusable"
    """The gold annotation points outside the trace's steps."""


RETRYABLE = frozenset(
    {
        AbstentionReason.MODEL_ERROR,
        AbstentionReason.TRUNCATED,
        AbstentionReason.UNREADABLE,
        AbstentionReason.OVER_LENGTH,
    }
)
"""Reasons after which the same labeler may succeed when it is asked again."""


@dataclass(frozen=True, slots=True)
class Abstention:
    """No verdict, with its typed reason and a sentence for a person."""

    reason: AbstentionReason
    """The typed reason."""
    detail: str = ""
    """One sentence of explanation; may be empty."""

    @property
    def retryable(self) -> bool:
        """Whether asking the same labeler again can help."""
        return self.reason in RETRYABLE
