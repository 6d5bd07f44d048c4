"""What calls cost, by the dated table."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.prices import TABLE, cost, price_of
from traces.records import Usage

NOVEMBER = date(2026, 11, 15)
MILLION = 1_000_000


def test_the_worked_example_of_a_judge_call() -> None:
    """5,000 tokens in and 400 out on 3.5-flash-lite by batch: $0.00125 (facts/gemini.md 1.2)."""
    usage = Usage(input_tokens=5000, output_tokens=400)
    assert cost(usage, "gemini-3.5-flash-lite", "batch", on=NOVEMBER) == pytest.approx(0.00125)
    assert cost(usage, "gemini-3.5-flash-lite", "flex", on=NOVEMBER) == pytest.approx(0.00125)
    assert cost(usage, "gemini-3.5-flash-lite", on=NOVEMBER) == pytest.approx(0.0025)


def test_cached_tokens_are_counted_once() -> None:
    """promptTokenCount holds them already: naive code charges them twice (litellm#14849)."""
    usage = Usage(input_tokens=MILLION, cached_tokens=400_000)
    assert cost(usage, "gemini-3.5-flash-lite", on=NOVEMBER) == pytest.approx(
        0.6 * 0.30 + 0.4 * 0.03
    )


def test_thinking_is_billed_as_output() -> None:
    usage = Usage(output_tokens=100_000, thinking_tokens=900_000)
    assert cost(usage, "gemini-3.8-flash", on=NOVEMBER) == pytest.approx(3.75)


@pytest.mark.parametrize(
    ("model", "day", "output"),
    [
        ("gemini-3.8-flash", date(2026, 12, 31), 3.75),
        ("gemini-3.8-flash", date(2027, 1, 1), 7.50),
        ("gemini-4-argon", date(2026, 11, 30), 10.0),
        ("gemini-4-argon", date(2026, 12, 1), 20.0),
    ],
)
def test_prices_change_on_their_day(model: str, day: date, output: float) -> None:
    price = price_of(model, on=day)
    assert price is not None
    assert price.output == output


def test_before_its_first_day_a_model_has_no_price() -> None:
    assert price_of("gemini-3.8-flash", on=date(2026, 9, 1)) is None


def test_an_unknown_model_costs_none_and_not_nothing() -> None:
    assert cost(Usage(input_tokens=9), "gemini-9-helium", on=NOVEMBER) is None
    assert cost(Usage(input_tokens=9), "gemini-3.5-flash-lite-turbo", on=NOVEMBER) is None


@pytest.mark.parametrize(
    "name",
    [
        "models/gemini-3.5-flash-lite",
        "gemini-3.5-flash-lite-001",
        "gemini-3.5-flash-lite-preview-09-2026",
    ],
)
def test_resolved_versions_have_the_price_of_their_model(name: str) -> None:
    assert price_of(name, on=NOVEMBER) == price_of("gemini-3.5-flash-lite", on=NOVEMBER)


def test_no_two_rows_hold_on_one_day() -> None:
    for row in TABLE:
        for other in TABLE:
            if row is not other and row.model == other.model:
                assert (row.valid_to or date.max) < (other.valid_from or date.min) or (
                    other.valid_to or date.max
                ) < (row.valid_from or date.min)


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 400).map(lambda days: NOVEMBER + timedelta(days)),
)
def test_a_cached_token_never_costs_more_than_a_fresh_one(
    fresh: int, cached: int, output: int, day: date
) -> None:
    model = "gemini-3.8-flash"
    warm = cost(Usage(fresh + cached, cached, output), model, on=day)
    cold = cost(Usage(fresh + cached, 0, output), model, on=day)
    assert warm is not None
    assert cold is not None
    assert 0 <= warm <= cold
