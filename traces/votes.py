"""One model's reading of one trace, kept beside the label that was made from it."""

from __future__ import annotations

from dataclasses import dataclass

from traces.abstention import Abstention, AbstentionReason
from traces.first_error import FirstError
from traces.labels import Verdict


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote: what one model said about a whole trace under one vote index."""

    trace_id: str
    """The trace."""
    index: int
    """0-based number among this model's votes on the trace; part of the request key."""
    model: str
    """The model as asked for."""
    resolved_model: str | None
    """The version that answered (several are joined by ", "); None if none did."""
    words: tuple[Verdict | AbstentionReason, ...]
    """For each step its verdict or why there is none; empty if the vote abstains as a whole."""
    first_error: FirstError
    """The first error that the vote names; `missing` if it leaves it open: such a vote does not count."""
    request_keys: tuple[str, ...]
    """Content addresses of the calls behind it: one, or one per step."""
    abstention: Abstention | None = None
    """Why there is no word on the trace; None if there is one."""
    escalated: bool = False
    """Whether the split of the others was put to this model."""
