"""The numbers of a server's answer: which belongs to which step, and what score they make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from scoring.family import LaidOutTrace
from traces.errors import ModelRefused

Row = tuple[float, ...]
"""The numbers that a server gave for one reading place."""
LOGITS, ACTIVATED, LOGPROBS = "logits", "activated", "logprobs"
"""How a row becomes a score: of logits or a value, as probabilities already, of two log probabilities."""
_SUM_TOLERANCE: Final = 0.02
"""By how much two probabilities in half precision may miss a sum of 1."""


class Unread(Exception):
    """A well-formed answer that holds no number for some place of this one trace."""


def probabilities(rows: Sequence[Row], reading: str) -> list[float] | None:
    """The score of each row; None if the rows cannot be read so.

    Args:
        rows: as a route gives them.
        reading: LOGITS (wrong, right; or one value), ACTIVATED (the same behind softmax or sigmoid),
            or LOGPROBS (right, wrong).
    """
    if reading == LOGPROBS:
        return [_sigmoid(right - wrong) for right, wrong in rows]
    if reading == LOGITS:
        return [_sigmoid(row[-1] - (row[0] if len(row) == 2 else 0.0)) for row in rows]
    whole = all(len(row) == 1 or abs(sum(row) - 1) <= _SUM_TOLERANCE for row in rows)
    inside = all(0 <= value <= 1 for row in rows for value in row)
    return [row[-1] for row in rows] if whole and inside else None


def _sigmoid(value: float) -> float:
    """Without overflow on either side."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1 + grown)


def numbers_of(trace: LaidOutTrace, rows: int) -> list[int]:
    """The number of the row of each reading place.

    Raises:
        ModelRefused: it is neither a row a token nor a row a step token.
    """
    places = [place for read in trace.read_at for place in read]
    if rows == len(trace.ids):
        return places
    markers = {trace.ids[place] for place in places}
    if len(markers) == 1:
        of_marker = [place for place, token in enumerate(trace.ids) if token in markers]
        if rows == len(of_marker):
            number = {place: row for row, place in enumerate(of_marker)}
            return [number[place] for place in places]
    raise ModelRefused(
        f"The server gave {rows} rows for {len(trace.ids)} tokens with {len(places)} steps to read.",
        remedy="let it pool every token (ALL), or the family's step token (STEP with step_tag_id)",
    )


def same_length(read: int | None, sent: int) -> None:
    """Refuse an answer for more or fewer tokens than were sent; None says nothing.

    Raises:
        ModelRefused: they differ.
    """
    if read is not None and read != sent:
        raise ModelRefused(
            f"The server answers for {read} tokens where {sent} were expected.",
            remedy="it must read the token ids as they are sent, without a BOS of its own, uncut",
        )


def finite(value: Any) -> float:
    """The value as a number.

    Raises:
        Unread: it is none, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unread(f"The server gave {value!r} where a number was expected.")
    return float(value)


def other_shape(wanted: str, reply: Mapping[str, Any]) -> ModelRefused:
    """The refusal of an answer that lacks what was wanted; it names what the answer holds."""
    names = ", ".join(sorted(map(str, reply))[:8])
    return ModelRefused(
        f"The server's answer holds no {wanted}; it holds: {names or 'nothing'}.",
        remedy="name the server's kind with --route",
    )
