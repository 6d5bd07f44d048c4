"""What may be stored: SQLite accepts anything, so every value is checked before it is written.

A bad value is refused, never changed: no NaN becomes NULL, no NUL byte is dropped. The argument
`what` names the value in messages.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, SupportsFloat, SupportsIndex

from traces import ORIGIN, InputError, meant

_LISTED = 20
_SHOWN = 3


def plain_text(value: str, what: str) -> str:
    """Text that every database can hold.

    Raises:
        InputError: it contains a NUL or half of a surrogate pair, or is not a string.
    """
    if not isinstance(value, str):
        raise InputError(f"{what} must be text, not {type(value).__name__}.")
    if "\0" in value:
        raise InputError(f"{what} contains a NUL byte.", remedy="remove it from the source")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{what} contains half of a surrogate pair, which UTF-8 cannot encode.",
            remedy="save the source as UTF-8",
        ) from None
    return value


def is_plain(value: Any) -> bool:
    """Whether `plain_text` takes the value."""
    try:
        plain_text(value, "")
    except InputError:
        return False
    return True


def without_origin(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without where their file came from: the same file may come from elsewhere."""
    return {name: value for name, value in options.items() if name != ORIGIN}


def optional_text(value: str | None, what: str) -> str | None:
    """As `plain_text`; None stays None."""
    return None if value is None else plain_text(value, what)


def name(value: str, what: str) -> str:
    """A name or id: plain text on one line that is not blank.

    Raises:
        InputError: it is blank, has a line break, or is not plain text.
    """
    plain_text(value, what)
    if not value.strip() or "\n" in value or "\r" in value:
        raise InputError(f"{what} {value!r} must be one line that is not blank.")
    return value


def json_value(value: Any, what: str) -> Any:
    """The value as strict JSON, with tuples as lists.

    Raises:
        InputError: it contains NaN, infinity, a key that is not text, or a type outside JSON.
    """
    return _json(value, what, plain=False)


def plain_json(value: Any, what: str) -> Any:
    """As `json_value`, where every text must satisfy `plain_text`."""
    return _json(value, what, plain=True)


_ENCODE = json.JSONEncoder(sort_keys=True, allow_nan=False).encode


def canonical(value: Any) -> str:
    """The same text for equal JSON values, whatever the order of their keys."""
    return _ENCODE(value)


def digest(*parts: Any) -> str:
    """sha256 of JSON values."""
    return sha256(canonical(parts).encode()).hexdigest()


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Which keys of two configurations differ and how, for the user."""
    found = [
        f"{key} was {_shown(stored, key)}, now {_shown(wanted, key)}"
        for key in sorted({*stored, *wanted})
        if (key in stored, canonical(stored.get(key)))
        != (key in wanted, canonical(wanted.get(key)))
    ]
    more = f"; {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def fraction(value: SupportsFloat | None, what: str) -> float | None:
    """A number in [0, 1]; None stays None.

    Raises:
        InputError: it is NaN or outside.
    """
    return _number(value, what, 0.0, 1.0)


def similarity(value: SupportsFloat | None, what: str) -> float | None:
    """A number in [-1, 1]; None stays None.

    A cosine of float32 unit vectors may exceed 1 by rounding; up to 1e-5 more counts as 1.
    """
    if value is not None and 1.0 < abs(float(value)) <= 1.0 + 1e-5:
        return math.copysign(1.0, float(value))
    return _number(value, what, -1.0, 1.0)


def amount(value: SupportsFloat | None, what: str) -> float | None:
    """A finite number, at least 0; None stays None."""
    return _number(value, what, 0.0, math.inf)


def count(value: SupportsIndex | None, what: str) -> int | None:
    """A whole number, at least 0; None stays None.

    Raises:
        InputError: it is negative or not a whole number.
    """
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{what} {value!r} is not a whole number.") from None
    if number < 0:
        raise InputError(f"{what} {number} is negative.")
    return number


def known(kind: str, wanted: str, names: Iterable[str], *, make: str) -> InputError:
    """The error for an unknown name, with the known ones in the remedy.

    Args:
        kind: what has the name, e.g. "dataset".
        wanted: the name.
        names: the known names.
        make: how to create one, for when there are none.
    """
    have = sorted(names)
    listed = ", ".join(have[:_LISTED]) + (" and more" if len(have) > _LISTED else "")
    otherwise = f"known: {listed}" if have else f"there is none yet: {make}"
    return InputError(f"There is no {kind} {wanted!r}.", remedy=meant(wanted, have, otherwise))


def _shown(config: Mapping[str, Any], key: str) -> str:
    if key not in config:
        return "not set"
    text = canonical(config[key])
    return text if len(text) <= 60 else f"{text[:57]}..."


def _json(value: Any, what: str, *, plain: bool) -> Any:
    if isinstance(value, str):
        return plain_text(value, what) if plain else value
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{what} contains {value}, which is not a JSON number.")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{what} has the key {key!r}, which is not text.")
        return {
            _json(key, what, plain=plain): _json(inner, what, plain=plain)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_json(inner, what, plain=plain) for inner in value]
    raise InputError(f"{what} contains a {type(value).__name__}, which is not a JSON value.")


def _number(value: SupportsFloat | None, what: str, low: float, high: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, (str, bool)):
        raise InputError(f"{what} {value!r} is not a number.")
    number = float(value)
    # In this form, NaN is refused too: it compares false with everything.
    if not (low <= number <= high and math.isfinite(number)):
        bound = f"of at least {low:g}" if math.isinf(high) else f"in [{low:g}, {high:g}]"
        raise InputError(f"{what} {number} is not a finite number {bound}.")
    return number
