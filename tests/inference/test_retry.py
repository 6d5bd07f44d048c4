"""The retry layer against a clock that only sleeping moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.retries import Retrier, RetryPolicy, TransientFault
from traces.errors import ModelRefused, ModelUnavailable


class Clock:
    """Time passes only while someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def retrier(clock: Clock, policy: RetryPolicy | None = None, jitter: float = 0.0) -> Retrier:
    return Retrier(
        policy or RetryPolicy(),
        sleep=clock.sleep,
        clock=lambda: clock.now,
        jitter=lambda: jitter,
    )


def attempts(layer: Retrier, outcomes: Sequence[Exception | str]) -> tuple[str, int]:
    """Run a call whose attempts end as listed; the outcome and how many were made."""
    made = iter(outcomes)
    count = 0

    async def call() -> str:
        nonlocal count
        count += 1
        outcome = next(made)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return asyncio.run(layer.run(call, subject="gemini:g")), count


def test_what_passes_is_absorbed_and_counted() -> None:
    clock = Clock()
    layer = retrier(clock)
    assert attempts(layer, [TransientFault("500"), TransientFault("429"), "ok"]) == ("ok", 3)
    assert layer.retries == 2


def test_the_wait_doubles_up_to_the_cap_and_half_of_it_is_random() -> None:
    faults = [TransientFault("500")] * 7
    for jitter, expected in ((0.0, [0.5, 1, 2, 4, 5, 5, 5]), (1.0, [1, 2, 4, 8, 10, 10, 10])):
        clock = Clock()
        attempts(retrier(clock, RetryPolicy(attempts=8, cap_s=10.0), jitter), [*faults, "ok"])
        assert clock.slept == pytest.approx(expected)


def test_it_waits_as_long_as_the_service_asks_even_beyond_the_cap() -> None:
    clock = Clock()
    attempts(retrier(clock), [TransientFault("429", delay_s=120.0), "ok"])
    assert clock.slept == [120.0]


def test_no_wait_is_shorter_than_asked_and_many_clients_spread() -> None:
    clock = Clock()
    attempts(retrier(clock, jitter=0.5), [TransientFault("429", delay_s=7.0), "ok"])
    assert clock.slept == [7.25]


def test_it_gives_up_after_the_last_attempt_and_says_what_happened() -> None:
    clock = Clock()
    with pytest.raises(ModelUnavailable, match="no reply in 3 attempts: 503 overloaded"):
        attempts(retrier(clock, RetryPolicy(attempts=3)), [TransientFault("503 overloaded")] * 3)
    assert len(clock.slept) == 2


def test_a_wait_that_is_longer_than_the_time_left_is_not_begun() -> None:
    clock = Clock()
    with pytest.raises(ModelUnavailable, match="asks to wait 3600 s"):
        attempts(retrier(clock), [TransientFault("429", delay_s=3600.0)])
    assert clock.slept == []


def test_a_refusal_is_not_tried_again() -> None:
    clock = Clock()
    with pytest.raises(ModelRefused):
        attempts(retrier(clock), [ModelRefused("no")])
    assert clock.slept == []


def test_an_attempt_that_hangs_is_ended_and_tried_again() -> None:
    clock = Clock()
    calls = 0

    async def hangs_once() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return "ok"

    layer = retrier(clock, RetryPolicy(attempt_s=0.01))
    assert asyncio.run(layer.run(hangs_once, subject="g")) == "ok"
    assert calls == 2


@given(
    st.lists(st.none() | st.floats(0, 500), min_size=1, max_size=12),
    st.integers(1, 8),
    st.floats(1, 900),
    st.floats(0, 1, exclude_max=True),
)
def test_attempts_and_time_are_bounded(
    delays: list[float | None], most: int, total_s: float, jitter: float
) -> None:
    clock = Clock()
    layer = retrier(clock, RetryPolicy(attempts=most, total_s=total_s), jitter)
    outcomes = [TransientFault("x", delay_s=delay) for delay in delays]
    try:
        attempts(layer, [*outcomes, "ok"])
    except ModelUnavailable:
        assert layer.retries < most
    else:
        assert layer.retries == len(delays)
    assert layer.retries <= most - 1
    assert clock.now <= total_s
