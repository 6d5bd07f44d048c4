"""The one dated price table, and what a call costs by it.

US dollars per million tokens: input, output (thinking included), input read from the cache.
Prices change on announced dates, so every row says from when to when it holds. Source:
ai.google.dev pricing and optimization pages and the plan files that mirror them, read on
`PRICES_AS_OF`. Where no cache price was listed (3.5-flash, 3.8-flash from 2027) it is the
published 90% off. Batch and flex cost half; whether the cache discount stacks with them is not
published, so their cached tokens are charged as plain input: an upper bound.

The one dated list of models that are, or will be, shut down.

Source: ai.google.dev's deprecations page and the plan files that mirror it, read on
`REGISTRY_AS_OF`. Google goes on answering to the name of a retired model, with another model: that
is why a retired one is refused and why the version that answered is always recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from types import MappingProxyType
from typing import Literal

from inference.specs import ModelSpec
from traces import InputError, Usage

Service = Literal["standard", "flex", "batch"]

PRICES_AS_OF = date(2026, 10, 7)
"""When the table was read."""


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens."""

    input: float
    """Prompt tokens that were not cached."""
    output: float
    """Reply and thinking tokens."""
    cached: float
    """Prompt tokens read from the service's cache."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """What a model costs over a stretch of time."""

    model: str
    """The model's plain name."""
    standard: Price
    """Price of the standard service."""
    valid_from: date | None = None
    """First day; None: since before the table began."""
    valid_to: date | None = None
    """Last day; None: no end is known."""


TABLE: tuple[PriceRow, ...] = (
    PriceRow("gemini-2.5-flash-lite", Price(0.10, 0.40, 0.01)),
    PriceRow("gemini-3.1-flash-lite", Price(0.25, 1.50, 0.025), date(2026, 5, 7)),
    PriceRow("gemini-3.5-flash-lite", Price(0.30, 2.50, 0.03), date(2026, 7, 21)),
    PriceRow("gemini-3.5-flash", Price(1.50, 9.00, 0.15)),
    PriceRow("gemini-3.8-flash", Price(0.75, 3.75, 0.075), date(2026, 9, 2), date(2026, 12, 31)),
    PriceRow("gemini-3.8-flash", Price(1.50, 7.50, 0.15), date(2027, 1, 1)),
    PriceRow("gemini-4-argon", Price(2.00, 10.00, 0.10), None, date(2026, 11, 30)),
    PriceRow("gemini-4-argon", Price(4.00, 20.00, 0.20), date(2026, 12, 1)),
)

_SHARE: Mapping[str, float] = MappingProxyType({"standard": 1.0, "flex": 0.5, "batch": 0.5})

_VERSION_SUFFIX = re.compile(r"-(?:\d{3}|preview(?:-\d\d-\d{4})?|\d\d-\d{4})$")


def plain_name(model: str) -> str:
    """A model's name without `models/` and version suffix.

    >>> plain_name("models/gemini-3.5-flash-lite-001")
    'gemini-3.5-flash-lite'
    """
    return _VERSION_SUFFIX.sub("", model.removeprefix("models/"))


def price_of(model: str, service: Service = "standard", *, on: date | None = None) -> Price | None:
    """The price of a model on a day (default: today); None if the table does not know it.

    Args:
        model: its name, with or without `models/` and a version suffix (`-001`).
        service: standard, flex or batch.
        on: the day of the call.
    """
    day = on or date.today()
    name = plain_name(model)
    for row in TABLE:
        started = row.valid_from is None or row.valid_from <= day
        ended = row.valid_to is not None and day > row.valid_to
        if row.model == name and started and not ended:
            if service == "standard":
                return row.standard
            share = _SHARE[service]
            halved = row.standard.input * share
            return Price(halved, row.standard.output * share, cached=halved)
    return None


def cost(
    usage: Usage, model: str, service: Service = "standard", *, on: date | None = None
) -> float | None:
    """What a call costs in US dollars; None where no price is known, never 0.

    Cached tokens are part of `input_tokens` and are counted once, at their own price;
    thinking is billed as output.
    """
    price = price_of(model, service, on=on)
    if price is None:
        return None
    fresh = max(0, usage.input_tokens - usage.cached_tokens)
    output = usage.output_tokens + usage.thinking_tokens
    return (
        fresh * price.input + usage.cached_tokens * price.cached + output * price.output
    ) / 1_000_000


# --- The one dated list of models that are, or will be, shut down


REGISTRY_AS_OF = date(2026, 10, 7)
"""When the list was read."""
WARN_AHEAD = timedelta(days=90)
"""How long before its last day a model is warned about."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """The end of a model."""

    model: str
    """Its plain name."""
    shutdown: date
    """The day it is switched off."""
    replacement: str
    """What to take instead."""
    announced: bool = True
    """False if the day is only the earliest one: the model may live longer."""


RETIREMENTS: tuple[Retirement, ...] = (
    Retirement("gemini-2.0-flash", date(2026, 6, 1), "gemini-3.5-flash-lite"),
    Retirement("gemini-2.5-flash", date(2026, 12, 1), "gemini-3.5-flash-lite"),
    Retirement("gemini-2.5-pro", date(2026, 12, 1), "gemini-3.8-flash"),
    Retirement("gemini-3.1-flash-lite", date(2027, 5, 7), "gemini-3.5-flash-lite", announced=False),
)


def retirement_notice(spec: ModelSpec, *, today: date | None = None) -> str | None:
    """What a person should know about the end of a model; None if no end is near.

    Args:
        spec: the model as the user named it; only Gemini's are listed.
        today: the day to look from; None for this one.

    Raises:
        InputError: the model was shut down; the remedy names its replacement.
    """
    day = today or date.today()
    for each in RETIREMENTS if spec.kind == "gemini" else ():
        if each.model != plain_name(spec.name):
            continue
        if each.announced and day >= each.shutdown:
            raise InputError(
                f'"{spec}" was shut down on {each.shutdown}: another model would answer.',
                remedy=f"take gemini:{each.replacement} (list of {REGISTRY_AS_OF})",
            )
        if day >= each.shutdown - WARN_AHEAD:
            when = "will be" if each.announced else "may be"
            return (
                f'"{spec}" {when} shut down on {each.shutdown}: '
                f"plan for gemini:{each.replacement} (list of {REGISTRY_AS_OF})."
            )
    return None
