"""Models that are, or will be, shut down."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from inference.prices import RETIREMENTS, TABLE, WARN_AHEAD, retirement_notice
from inference.specs import ModelSpec
from traces.errors import InputError

NOVEMBER = date(2026, 11, 22)


def notice(spec: str, today: date = NOVEMBER) -> str | None:
    return retirement_notice(ModelSpec.parse(spec), today=today)


def test_a_model_that_was_shut_down_is_refused_and_its_replacement_named() -> None:
    """Google would answer to its name with another model."""
    with pytest.raises(InputError, match="shut down on 2026-06-01") as refusal:
        notice("gemini:models/gemini-2.0-flash-001")
    assert "gemini:gemini-3.5-flash-lite" in str(refusal.value)


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-2.5-pro"])
def test_from_ninety_days_before_its_last_day_on_it_is_warned_about(model: str) -> None:
    last = date(2026, 12, 1)
    assert notice(f"gemini:{model}", last - timedelta(days=91)) is None
    for day in (last - WARN_AHEAD, last - timedelta(days=1)):
        said = notice(f"gemini:{model}", day)
        assert said is not None
        assert "2026-12-01" in said
    with pytest.raises(InputError):
        notice(f"gemini:{model}", last)


def test_a_day_that_is_only_the_earliest_one_never_refuses() -> None:
    said = notice("gemini:gemini-3.1-flash-lite", date(2028, 1, 1))
    assert said is not None
    assert "may be" in said


@pytest.mark.parametrize(
    "spec", ["gemini:gemini-3.5-flash-lite", "openai:gemini-2.0-flash", "hf:gemini-2.0-flash"]
)
def test_the_others_are_not(spec: str) -> None:
    assert notice(spec) is None


def test_replacements_are_alive_and_have_a_price() -> None:
    for each in RETIREMENTS:
        assert notice(f"gemini:{each.replacement}") is None
        assert each.replacement in {row.model for row in TABLE}
