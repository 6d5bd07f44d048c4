"""Replies that no model wrote, but that are facts worth recording."""

from __future__ import annotations

from traces.records import ModelReply

OVER_LENGTH = "over_length"
"""Finish reason of a request whose prompt does not fit into the model's window."""


def over_length_reply(spec: str, detail: str) -> ModelReply:
    """The record of a prompt that the service refused because of its length; costs nothing.

    It is a fact about one request, not about the run: recorded, it is not sent again, and the
    caller turns it into the abstention `over_length`.
    """
    return ModelReply(
        text=None,
        finish_reason=OVER_LENGTH,
        model=spec,
        resolved_model=None,
        usd=0.0,
        raw=detail,
    )
