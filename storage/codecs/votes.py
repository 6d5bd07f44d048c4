"""Votes as rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from storage import checks
from storage.codecs.model_text import decode_optional, encode_text
from traces import (
    MISSING_FIRST_ERROR,
    Abstention,
    AbstentionReason,
    FirstError,
    InputError,
    Verdict,
    Vote,
)

Columns = dict[str, Any]
"""Column values by name."""

_VERDICTS = frozenset(Verdict)


def vote_columns(vote: Vote, n_steps: int) -> Columns:
    """The columns of a vote, without the trace label's key.

    Raises:
        InputError: it does not fit the number of steps, or cannot be stored.
    """
    where = f"A vote on trace {vote.trace_id!r}"
    if len(vote.words) not in (0, n_steps) or not (vote.words or vote.abstention):
        raise InputError(f"{where} has {len(vote.words)} words for {n_steps} steps.")
    index = checks.count(vote.first_error.index, f"{where}: the first error index")
    if index is not None and (vote.first_error.missing or index >= n_steps):
        raise InputError(f"{where} names step {index} of {n_steps}, or leaves it open.")
    return {
        "model": checks.plain_text(vote.model, f"{where}: the model"),
        "vote_index": checks.count(vote.index, f"{where}: its number"),
        "escalated": bool(vote.escalated),
        "resolved_model": checks.optional_text(vote.resolved_model, f"{where}: the model"),
        "words": [word.value for word in vote.words],
        "first_error_named": not vote.first_error.missing,
        "first_error_index": index,
        "abstention": None if vote.abstention is None else vote.abstention.reason.value,
        "abstention_detail": vote.abstention and encode_text(vote.abstention.detail),
        "request_keys": list(vote.request_keys),
    }


def vote_from(row: Row[Any]) -> Vote:
    """The vote in a row that names its `trace_id`."""
    named = FirstError(missing=False, index=row.first_error_index)
    return Vote(
        row.trace_id,
        row.vote_index,
        row.model,
        row.resolved_model,
        tuple(Verdict(w) if w in _VERDICTS else AbstentionReason(w) for w in row.words),
        named if row.first_error_named else MISSING_FIRST_ERROR,
        tuple(row.request_keys),
        None
        if row.abstention is None
        else Abstention(
            AbstentionReason(row.abstention), decode_optional(row.abstention_detail) or ""
        ),
        row.escalated,
    )
