"""The one dated list of models that are, or will be, shut down.

Source: ai.google.dev's deprecations page and the plan files that mirror it, read on
`REGISTRY_AS_OF`. Google goes on answering to the name of a retired model, with another model: that
is why a retired one is refused and why the version that answered is always recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from inference.prices import plain_name
from inference.specs import ModelSpec
from traces.errors import InputError

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
