"""The dispatcher: nothing bought twice, nothing lost, never beyond window or budget."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.dispatch import Dispatcher
from inference.keys import request_key
from inference.prices import cost
from inference.protocol import GenerationRequest
from tests.inference.scripted import MemoryResponses, ScriptedModel, reply_to, request
from traces.errors import (
    BudgetExhausted,
    InputError,
    ModelRefused,
    ModelUnavailable,
    QuotaExhausted,
    StoreError,
)
from traces.records import ModelReply, StoredCall, Usage

SPEC = "gemini:gemini-3.5-flash-lite"


def texts(outcomes: Sequence[tuple[GenerationRequest, object]]) -> dict[str, object]:
    """What each prompt was answered, or the error it ended in."""
    return {
        asked.meta["text"]: got.text if isinstance(got, ModelReply) else got
        for asked, got in outcomes
    }


def test_every_request_is_answered_and_recorded_before_it_is_seen() -> None:
    store = MemoryResponses()
    with Dispatcher(ScriptedModel(), store) as dispatcher:
        for asked, got in dispatcher.run(request(str(number)) for number in range(20)):
            key = request_key(SPEC, asked)
            assert store.kept[key].reply == got
            assert asked.meta["text"] in store.kept[key].request
            assert store.kept[key].meta == asked.meta
    assert len(store.kept) == 20
    assert dispatcher.counters.sent == 20


def test_closing_closes_the_model_even_if_nothing_was_sent() -> None:
    model = ScriptedModel()
    Dispatcher(model, None).close()
    assert model.closed


def test_what_is_recorded_is_not_sent_again() -> None:
    store, model = MemoryResponses(), ScriptedModel()
    with Dispatcher(model, store) as dispatcher:
        list(dispatcher.run([request("a"), request("b")]))
        again = list(dispatcher.run([request("b"), request("c")]))
    assert sorted(model.calls) == ["a", "b", "c"]
    assert {asked.meta["text"]: got.cached for asked, got in again} == {"b": True, "c": False}  # type: ignore[union-attr]
    assert store.hits == [request_key(SPEC, request("b"))]
    assert (dispatcher.counters.sent, dispatcher.counters.cached) == (3, 1)


def test_a_request_sent_while_its_twin_flies_waits_for_that_reply() -> None:
    gate = threading.Event()
    model = ScriptedModel(gate=gate)

    def twins() -> Iterator[GenerationRequest]:
        yield from [request("a"), request("a"), request("a")]
        gate.set()

    store = MemoryResponses()
    with Dispatcher(model, store) as dispatcher:
        outcomes = list(dispatcher.run(twins()))
    assert model.calls == ["a"]
    assert len(store.hits) == 2
    assert [got.cached for _, got in outcomes] == [False, True, True]  # type: ignore[union-attr]
    assert dispatcher.counters.cached == 2


def test_samples_of_one_request_are_all_sent() -> None:
    model = ScriptedModel()
    samples = [
        GenerationRequest(request("a").messages, 9, sample_index=index, meta={"text": "a"})
        for index in range(3)
    ]
    with Dispatcher(model, MemoryResponses()) as dispatcher:
        assert len(list(dispatcher.run(samples))) == 3
    assert model.calls == ["a"] * 3


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(0, 6), max_size=25))
def test_the_window_is_kept_and_requests_are_drawn_lazily(limit: int, names: list[int]) -> None:
    model = ScriptedModel(concurrency=limit)
    drawn, seen = 0, 0

    def feed() -> Iterator[GenerationRequest]:
        nonlocal drawn
        for name in names:
            # one more than the window: the one that is drawn while all places are taken
            assert drawn - seen <= limit
            drawn += 1
            yield request(str(name))

    with Dispatcher(model, MemoryResponses()) as dispatcher:
        for _ in dispatcher.run(feed()):
            seen += 1
    assert seen == len(names)
    assert model.most_flying <= limit
    assert len(model.calls) == len(set(names))


def fails(name: str, error: Exception) -> ScriptedModel:
    """A model that fails on one prompt."""

    def answer(asked: GenerationRequest) -> ModelReply:
        if asked.messages[-1].text == name:
            raise error
        return reply_to(asked)

    return ScriptedModel(answer)


def test_an_unavailable_model_is_an_outcome_and_not_recorded() -> None:
    store = MemoryResponses()
    with Dispatcher(fails("b", ModelUnavailable("down")), store) as dispatcher:
        outcomes = texts(list(dispatcher.run([request(name) for name in "abc"])))
    assert (outcomes["a"], outcomes["c"]) == ("A", "C")
    assert isinstance(outcomes["b"], ModelUnavailable)
    assert len(store.kept) == 2
    assert dispatcher.counters.failed == 1


@pytest.mark.parametrize("error", [ModelRefused("no"), QuotaExhausted("used up"), KeyError("bug")])
def test_a_fatal_error_comes_after_everything_that_was_on_the_wire(error: Exception) -> None:
    store, model = MemoryResponses(), fails("b", error)
    outcomes: list[tuple[GenerationRequest, object]] = []
    with Dispatcher(model, store) as dispatcher, pytest.raises(type(error)):
        outcomes.extend(dispatcher.run(request(name) for name in "abcdefghijklmnop"))
    sent = set(model.calls)
    assert set(texts(outcomes)) == sent - {"b"}
    assert len(store.kept) == len(sent) - 1
    assert len(sent) < 16, "nothing more is sent after the error"


def test_a_store_that_cannot_write_ends_the_run() -> None:
    class FullDisk(MemoryResponses):
        def put(self, call: StoredCall) -> None:
            raise StoreError("disk full")

    with Dispatcher(ScriptedModel(), FullDisk()) as dispatcher, pytest.raises(StoreError):
        list(dispatcher.run([request("a")]))


def test_a_caller_that_stops_early_loses_nothing_that_was_sent() -> None:
    gate = threading.Event()
    store, model = MemoryResponses(), ScriptedModel()
    with Dispatcher(model, store) as dispatcher:
        list(dispatcher.run([request("known")]))
        model.gate = gate
        run = dispatcher.run(request(name) for name in ("a", "b", "c", "known", "d"))
        assert next(run)[0].meta["text"] == "known"
        assert len(store.kept) == 1, "a, b and c are still on the wire"
        threading.Timer(0.05, gate.set).start()
        run.close()  # type: ignore[attr-defined]  # a generator
    assert [call.meta["text"] for call in store.kept.values()] == ["known", "a", "b", "c"]
    assert dispatcher.counters.sent == len(model.calls) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("bad row")])
def test_an_interrupt_or_a_bad_feed_loses_nothing_that_was_sent(error: BaseException) -> None:
    store, model = MemoryResponses(), ScriptedModel()

    def feed() -> Iterator[GenerationRequest]:
        yield from [request("a"), request("b")]
        raise error

    with Dispatcher(model, store) as dispatcher, pytest.raises((KeyboardInterrupt, InputError)):
        list(dispatcher.run(feed()))
    assert len(store.kept) == len(model.calls) == 2


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_interrupts")
def test_ctrl_c_while_waiting_loses_nothing_that_was_sent() -> None:
    gate = threading.Event()
    store, model = MemoryResponses(), ScriptedModel(gate=gate)

    def press_and_let_the_replies_arrive() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(0.05, gate.set).start()

    with Dispatcher(model, store) as dispatcher:
        threading.Timer(0.05, press_and_let_the_replies_arrive).start()
        with pytest.raises(KeyboardInterrupt):
            list(dispatcher.run([request("a"), request("b")]))
    assert len(store.kept) == len(model.calls) == 2


class FirstAtOnce(ScriptedModel):
    """Answers "a" at once; the others stay on the wire until the gate opens."""

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request."""
        if request.messages[-1].text == "a":
            self.calls.append("a")
            return reply_to(request)
        return await super().generate(request)


def test_an_interrupt_between_two_replies_loses_nothing_that_was_sent() -> None:
    gate = threading.Event()
    store, model = MemoryResponses(), FirstAtOnce(gate=gate)
    with Dispatcher(model, store) as dispatcher:
        # The reference keeps the generator suspended, as the frames of a real traceback do.
        running = dispatcher.run([request("a"), request("b"), request("c")])
        next(running)
        threading.Timer(0.05, gate.set).start()
    assert len(store.kept) == len(model.calls) == 3
    del running


def test_what_hangs_when_the_run_has_to_stop_is_cancelled_in_time() -> None:
    never = threading.Event()
    model = ScriptedModel(gate=never)
    with Dispatcher(model, None, drain_s=0.02) as dispatcher:

        def interrupted() -> Iterator[GenerationRequest]:
            yield request("a")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(dispatcher.run(interrupted()))
    assert model.flying == 0, "the call was cancelled, not left behind"


# budget

DAY = date(2026, 11, 15)


def worst(asked: GenerationRequest) -> float:
    """The price of the full output alone: a lower bound of what the dispatcher reserves."""
    known = cost(Usage(output_tokens=asked.max_tokens), "gemini-3.5-flash-lite", on=DAY)
    assert known is not None
    return known


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 1),
    st.integers(0, 12),
    st.lists(st.integers(1, 4000), min_size=1, max_size=15),
)
def test_the_budget_is_never_passed(share: float, calls_worth: int, limits: list[int]) -> None:
    """Replies may cost anything up to the worst case, and come in any order."""

    def answer(asked: GenerationRequest) -> ModelReply:
        return reply_to(asked, usd=share * worst(asked))

    budget = calls_worth * 0.005
    store = MemoryResponses()
    asked = [request(str(number), limit) for number, limit in enumerate(limits)]
    got = []
    with Dispatcher(ScriptedModel(answer), store, budget, today=lambda: DAY) as dispatcher:
        try:
            got = list(dispatcher.run(asked))
        except BudgetExhausted:
            assert len(store.kept) < len(asked)
        else:
            assert len(got) == len(asked)
        assert dispatcher.counters.usd <= budget + 1e-12
        assert len(store.kept) == dispatcher.counters.sent


def test_the_budget_stops_after_what_was_sent_was_yielded_and_more_money_goes_on() -> None:
    store = MemoryResponses()
    asked = [request(str(number), 4000) for number in range(6)]
    per_call = worst(asked[0])
    model = ScriptedModel(lambda each: reply_to(each, usd=per_call))
    seen: list[object] = []
    poor = Dispatcher(model, store, 3.2 * per_call, today=lambda: DAY)
    with poor, pytest.raises(BudgetExhausted, match="larger --budget"):
        seen.extend(poor.run(asked))
    assert len(seen) == len(store.kept) == 3
    with Dispatcher(model, store, 10 * per_call, today=lambda: DAY) as rich:
        assert len(list(rich.run(asked))) == 6
    assert len(model.calls) == 6, "the three that were paid are not bought again"
    assert rich.counters.usd == pytest.approx(3 * per_call)


def test_cheap_replies_free_what_was_held_back_for_them() -> None:
    asked = [request(str(number), 4000) for number in range(10)]
    model = ScriptedModel(lambda each: reply_to(each, usd=worst(each) / 100))
    with Dispatcher(model, None, 1.5 * worst(asked[0]), today=lambda: DAY) as dispatcher:
        assert len(list(dispatcher.run(asked))) == 10
    assert model.most_flying == 1, "two at once could pass the budget"


def test_a_reply_of_unknown_price_is_held_against_the_budget_at_its_most() -> None:
    model = ScriptedModel(lambda each: reply_to(each, usd=None))
    asked = [request(str(number), 4000) for number in range(10)]
    with Dispatcher(model, None, 2.5 * worst(asked[0]), today=lambda: DAY) as dispatcher:
        with pytest.raises(BudgetExhausted):
            list(dispatcher.run(asked))
        assert dispatcher.counters.unpriced == dispatcher.counters.sent == 2
        assert dispatcher.counters.usd == 0.0


def test_a_budget_for_a_model_without_a_price_is_refused() -> None:
    with pytest.raises(InputError, match="a budget cannot be kept"):
        Dispatcher(ScriptedModel(spec="openai:gpt-x"), None, 1.0)
    Dispatcher(ScriptedModel(spec="openai:gpt-x", hosted=False), None, 1.0).close()


def test_cached_replies_cost_nothing() -> None:
    store = MemoryResponses()
    model = ScriptedModel(lambda each: reply_to(each, usd=0.001))
    with Dispatcher(model, store) as first:
        list(first.run([request("a")]))
    with Dispatcher(model, store, 0.0, today=lambda: DAY) as second:
        assert len(list(second.run([request("a")]))) == 1
    assert second.counters.usd == 0.0
