"""JSON as it comes over a wire: any gateway may have written it, and whatever it is, no run ends by it.

What has another shape than the service describes counts as absent, so that what was paid for is still recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from inference.faults import TransientFault

_MOST_TOKENS = 10**12
"""No call has more; a database cannot hold every number that JSON can."""


def read_object(body: str, *, called: str = "the reply") -> dict[str, Any]:
    """The JSON object in a 200 body; `called` names it in messages.

    Raises:
        TransientFault: it is none (empty, cut, nested without end, an HTML page of some gateway).
    """
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        start = " ".join(body[:60].split())
        why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise TransientFault(f'{called} is not JSON ("{start}"): {why}') from error
    if not isinstance(reply, dict):
        raise TransientFault(f"{called} is no JSON object")
    return reply


def mapping(value: Any) -> Mapping[str, Any]:
    """The object; an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def first_object(value: Any) -> Mapping[str, Any] | None:
    """The first object of a list; None of an absent or empty one, an empty object where neither is there."""
    if value is None or value == []:
        return None
    return mapping(value[0] if isinstance(value, list) else None)


def text_of(value: Any) -> str | None:
    """The text; None in place of anything else."""
    return value if isinstance(value, str) else None


def token_count(value: Any) -> int:
    """A count of tokens, 0 where there is none.

    Raises:
        TransientFault: it counts nothing: below zero, a fraction, no number. Costs cannot be told from it.
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_TOKENS:
        raise TransientFault(f"the reply counts its tokens as {str(value)[:40]!r}")
    return value
