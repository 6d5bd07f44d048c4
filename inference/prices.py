"""The dated price table with the cost of a call, and the dated list of models that are shut down.

Prices are US dollars per million tokens: input, output (including thinking), cached input. Prices
change on announced dates, so every row states its validity. Source: ai.google.dev's pricing,
optimization and deprecations pages and the plan files that mirror them, read on `PRICES_AS_OF`.
Where no cache price was listed (3.5-flash, 3.8-flash from 2027), it is the published 90% discount.
Batch and flex cost half. Whether the cache discount applies to them is not published, so their
cached tokens are charged as plain input, an upper bound.

Google keeps answering to the name of a retired model, with another model. That is why a retired
model is refused, and why the version that answered is always recorded.
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
"""When prices and shutdown dates were read."""


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens."""

    input: float
    """Uncached prompt tokens."""
    output: float
    """Reply and thinking tokens."""
    cached: float
    """Prompt tokens read from the service's cache."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """The price of a model in a period."""

    model: str
    """The model's plain name."""
    standard: Price
    """Price of the standard service tier."""
    valid_from: date | None = None
    """First day; None: since before the table was started."""
    valid_to: date | None = None
    """Last day; None: no known end."""


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
    """The price of a model on a day (default: today); None if it is not in the table.

    Args:
        model: its name, with or without `models/` and a version suffix (`-001`).
        service: the service tier.
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
    """The cost of a call in US dollars; None without a known price, never 0.

    Cached tokens are part of `input_tokens` and are counted once, at their own price. Thinking is
    billed as output.
    """
    price = price_of(model, service, on=on)
    if price is None:
        return None
    fresh = max(0, usage.input_tokens - usage.cached_tokens)
    output = usage.output_tokens + usage.thinking_tokens
    return (
        fresh * price.input + usage.cached_tokens * price.cached + output * price.output
    ) / 1_000_000


WARN_AHEAD = timedelta(days=90)
"""How long before a model's shutdown the user is warned."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """The shutdown of a model."""

    model: str
    """Plain name."""
    shutdown: date
    """The day it is shut down."""
    replacement: str
    """The model to use instead."""
    announced: bool = True
    """False if the day is only the earliest possible one."""


RETIREMENTS: tuple[Retirement, ...] = (
    Retirement("gemini-2.0-flash", date(2026, 6, 1), "gemini-3.5-flash-lite"),
    Retirement("gemini-2.5-flash", date(2026, 12, 1), "gemini-3.5-flash-lite"),
    Retirement("gemini-2.5-pro", date(2026, 12, 1), "gemini-3.8-flash"),
    Retirement("gemini-3.1-flash-lite", date(2027, 5, 7), "gemini-3.5-flash-lite", announced=False),
)


def retirement_notice(spec: ModelSpec, *, today: date | None = None) -> str | None:
    """A warning about the upcoming shutdown of a model; None if there is none.

    Args:
        spec: the model as the user named it; only Gemini's are listed.
        today: the current day; None reads the clock.

    Raises:
        InputError: the model has been shut down; the remedy names its replacement.
    """
    day = today or date.today()
    for each in RETIREMENTS if spec.is_gemini else ():
        if each.model != plain_name(spec.name):
            continue
        if each.announced and day >= each.shutdown:
            raise InputError(
                f'"{spec}" was shut down on {each.shutdown}; another model would answer.',
                remedy=f"use gemini:{each.replacement} (list of {PRICES_AS_OF})",
            )
        if day >= each.shutdown - WARN_AHEAD:
            when = "will be" if each.announced else "may be"
            return (
                f'"{spec}" {when} shut down on {each.shutdown}: '
                f"plan to use gemini:{each.replacement} (list of {PRICES_AS_OF})."
            )
    return None
