"""Model calls and failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from storage import checks
from storage.codecs.model_text import decode_optional, decode_text, encode_optional, encode_text
from traces import AbstentionReason, Failure, ModelReply, StoredCall, Usage

Columns = dict[str, Any]
"""Column values by name."""


def call_columns(call: StoredCall) -> Columns:
    """The columns of a model call.

    Raises:
        InputError: a number is out of range, or the meta is not JSON. Texts are never refused.
    """
    reply = call.reply
    return {
        "key": checks.name(call.key, "The key of a model call"),
        "request": encode_text(call.request),
        "text": encode_optional(reply.text),
        "raw": encode_text(reply.raw),
        "finish_reason": reply.finish_reason,
        "model": reply.model,
        "resolved_model": reply.resolved_model,
        "input_tokens": checks.count(reply.usage.input_tokens, "The count of input tokens"),
        "cached_tokens": checks.count(reply.usage.cached_tokens, "The count of cached tokens"),
        "output_tokens": checks.count(reply.usage.output_tokens, "The count of output tokens"),
        "thinking_tokens": checks.count(
            reply.usage.thinking_tokens, "The count of thinking tokens"
        ),
        "usd": checks.amount(reply.usd, "The cost of a model call"),
        "prices_as_of": reply.prices_as_of,
        "meta": checks.json_value(call.meta, "The meta of a model call"),
        "hits": 0,
        "purpose": _purpose(call.meta),
    }


def _purpose(meta: Mapping[str, Any]) -> str | None:
    purpose = meta.get("purpose")
    return purpose if isinstance(purpose, str) else None


def reply_from(row: Row[Any]) -> ModelReply:
    """The reply in a row of the table, marked as cached."""
    usage = Usage(row.input_tokens, row.cached_tokens, row.output_tokens, row.thinking_tokens)
    return ModelReply(
        decode_optional(row.text),
        row.finish_reason,
        row.model,
        row.resolved_model,
        usage,
        row.usd,
        row.prices_as_of,
        decode_text(row.raw),
        cached=True,
    )


def call_from(row: Row[Any]) -> StoredCall:
    """The call in a row of the table."""
    return StoredCall(row.key, decode_text(row.request), reply_from(row), row.meta)


def failure_columns(failure: Failure) -> Columns:
    """The columns of a failure, without the dataset's key."""
    return {
        "id": checks.name(failure.id, "The id of a failure"),
        "stage": checks.name(failure.stage, "The stage of a failure"),
        "reason": AbstentionReason(failure.reason).value,
        "retryable": bool(failure.retryable),
        "detail": encode_text(failure.detail),
    }


def failure_from(row: Row[Any]) -> Failure:
    """The failure in a row of the table."""
    return Failure(
        row.id, row.stage, AbstentionReason(row.reason), row.retryable, decode_text(row.detail)
    )
