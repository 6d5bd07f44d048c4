"""The adaptive bound on calls at once, and the gate that one refusal closes for all."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.retries import Pace, Retrier, RetryPolicy, Slot, TransientFault
from traces.errors import QuotaExhausted


class Clock:
    """Time passes only while someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        """Let others run, then wake at that time."""
        wake = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, wake)


def halved(pace: Pace, times: int = 1) -> None:
    for _ in range(times):
        pace.throttled(Slot(pace.cuts), None)


def test_a_refusal_halves_the_bound_and_a_window_of_successes_adds_about_one() -> None:
    pace = Pace(16)
    halved(pace)
    assert pace.limit == 8
    for _ in range(9):
        pace.succeeded()
    assert pace.limit == 9


def test_a_burst_of_refusals_counts_once() -> None:
    pace = Pace(16)
    started = Slot(pace.cuts)
    for _ in range(16):
        pace.throttled(started, None)
    assert pace.limit == 8
    pace.throttled(Slot(pace.cuts), None)
    assert pace.limit == 4


@given(st.integers(1, 64), st.lists(st.booleans(), max_size=300))
def test_the_bound_stays_between_one_and_the_most(most: int, answered: list[bool]) -> None:
    pace = Pace(most)
    for success in answered:
        if success:
            pace.succeeded()
        else:
            halved(pace)
        assert 1 <= pace.limit <= most


def test_it_comes_back_to_the_most() -> None:
    pace = Pace(8)
    halved(pace, 5)
    assert pace.limit == 1
    for _ in range(60):
        pace.succeeded()
    assert pace.limit == 8


@pytest.mark.slow
@given(st.integers(1, 6), st.integers(1, 30), st.data())
def test_no_more_than_the_bound_hold_a_place_and_all_get_one(
    most: int, calls: int, data: st.DataObject
) -> None:
    pace = Pace(most)
    halved(pace, data.draw(st.integers(0, 3)))
    cancelled = data.draw(st.sets(st.integers(0, calls - 1), max_size=calls // 2))
    flying, highest, served = 0, 0, set[int]()

    async def call(number: int) -> None:
        nonlocal flying, highest
        async with pace.slot():
            flying += 1
            highest = max(highest, flying)
            try:
                await asyncio.sleep(0)
                served.add(number)
            finally:
                flying -= 1

    async def everyone() -> None:
        tasks = [asyncio.create_task(call(number)) for number in range(calls)]
        await asyncio.sleep(0)
        for number in cancelled:
            tasks[number].cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)

    asyncio.run(everyone())
    assert highest <= pace.limit
    assert served >= set(range(calls)) - cancelled


@pytest.mark.parametrize("asked", [7.0, 30.0])
def test_a_wait_that_one_call_is_told_holds_for_every_call(asked: float) -> None:
    clock = Clock()
    pace = Pace(8, clock=lambda: clock.now, sleep=clock.sleep)
    layer = Retrier(
        RetryPolicy(), pace, sleep=clock.sleep, clock=lambda: clock.now, jitter=lambda: 0.0
    )
    starts: list[float] = []

    async def call() -> str:
        starts.append(clock.now)
        if len(starts) == 1:
            raise TransientFault("429", delay_s=asked, throttled=True)
        return "ok"

    async def everyone() -> list[str]:
        first = asyncio.create_task(layer.run(call, subject="g"))
        await asyncio.sleep(0)
        others = [layer.run(call, subject="g") for _ in range(20)]
        return await asyncio.gather(first, *others)

    assert asyncio.run(everyone()) == ["ok"] * 21
    assert starts[0] == 0.0
    assert all(asked <= start < asked + 1 for start in starts[1:])


def test_a_fault_of_one_call_does_not_hold_up_the_others() -> None:
    clock = Clock()
    pace = Pace(8, clock=lambda: clock.now, sleep=clock.sleep)
    layer = Retrier(RetryPolicy(), pace, sleep=clock.sleep, clock=lambda: clock.now)

    async def overloaded_once() -> str:
        if clock.now == 0.0:
            raise TransientFault("503", delay_s=9.0)
        return "ok"

    assert asyncio.run(layer.run(overloaded_once, subject="g")) == "ok"
    assert (pace.limit, pace.cuts) == (8, 0)


def test_a_rate_limit_that_asks_for_more_time_than_there_is_ends_the_run() -> None:
    """Going on would turn every further trace into a model error."""

    async def refused() -> str:
        raise TransientFault("429 slow down", delay_s=3600.0, throttled=True)

    with pytest.raises(QuotaExhausted, match="asks all calls to wait 36"):
        asyncio.run(Retrier().run(refused, subject="g"))
