"""The errors that requests of batch jobs end in, in words for a person."""

from __future__ import annotations

from inference.batch_limits import BatchLimits
from inference.batch_waves import PendingRequest
from traces.errors import ModelUnavailable, QuotaExhausted


def too_large(pending: PendingRequest, limits: BatchLimits) -> ModelUnavailable | None:
    """The error of a request that no job can hold; None if one can."""
    if pending.row.tokens <= limits.enqueued_tokens and pending.size <= limits.file_bytes:
        return None
    return ModelUnavailable(
        f"About {pending.row.tokens} tokens ({pending.size} bytes) are more than one batch job "
        f"of {limits.enqueued_tokens} enqueued tokens may hold.",
        remedy="raise --enqueued-tokens if your tier allows it, or use --service flex",
    )


def left_unanswered(spec: str, jobs: int) -> ModelUnavailable:
    """The error of a request that several jobs ended without answering."""
    return ModelUnavailable(
        f'"{spec}" left this request unanswered in {jobs} batch jobs.',
        remedy="stepgold retry asks it again; --service flex has the same price",
    )


def no_room(spec: str, said: str) -> QuotaExhausted:
    """The error of a service that takes no job though none of ours is on its way."""
    return QuotaExhausted(
        f'"{spec}" takes no batch job: {said}',
        remedy="run the same command again later, with a smaller --enqueued-tokens, "
        "or with --service flex, which has the same price",
    )
