"""What the loopback Gemini bills: an own count, in decimals, from an own copy of the price list.

Written from `facts/gemini.md` 1.1 and 1.3 to 1.5 and not from `inference/prices.py`, so that the two
can disagree: USD per million tokens (input, output with thinking, cached input) of the standard
service in November 2026; batch and flex cost half, and their cached tokens count as plain input.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

PRICES = {
    "gemini-2.5-flash-lite": ("0.10", "0.40", "0.01"),
    "gemini-3.1-flash-lite": ("0.25", "1.50", "0.025"),
    "gemini-3.5-flash-lite": ("0.30", "2.50", "0.03"),
    "gemini-3.5-flash": ("1.50", "9.00", "0.15"),
    "gemini-3.8-flash": ("0.75", "3.75", "0.075"),
    "gemini-4-argon": ("2", "10", "0.10"),
}


def bill(model: str, usage: Mapping[str, Any], service: str = "standard") -> Decimal | None:
    """US dollars of one answered call; None for a model that is not on the list."""
    if model not in PRICES:
        return None
    fresh, written, cached = map(Decimal, PRICES[model])
    read = Decimal(usage.get("cachedContentTokenCount", 0))
    prompt = Decimal(usage.get("promptTokenCount", 0)) - read
    output = Decimal(usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0))
    if service in ("flex", "batch"):
        due = ((prompt + read) * fresh + output * written) / 2
    else:
        due = prompt * fresh + read * cached + output * written
    return due / 1_000_000
