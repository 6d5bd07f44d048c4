"""The dispatcher: nothing bought twice, nothing lost, never beyond window or budget."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.dispatch import AHEAD, Dispatcher
from inference.protocol import GenerationRequest, request_key
from inference.retries import Pace
from tests.inference.scripted import MemoryResponses, ScriptedModel, reply_to, request
from traces.errors import (
    InputError,
    ModelChanged,
    ModelRefused,
    ModelUnavailable,
    QuotaExhausted,
    StoreError,
)
from traces.interrupts import _State, interrupt, interrupt_noted, uninterrupted
from traces.records import ModelReply, StoredCall

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
            assert drawn - seen <= AHEAD * limit
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


def test_no_call_is_sent_while_the_store_cannot_be_written() -> None:
    class FullDisk(MemoryResponses):
        def check(self) -> None:
            raise StoreError("disk full")

    model = ScriptedModel()
    with Dispatcher(model, FullDisk()) as dispatcher, pytest.raises(StoreError, match="disk full"):
        list(dispatcher.run([request("a"), request("b")]))
    assert model.calls == []


def wait_for(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        threading.Event().wait(0.002)
    return true()


def test_a_caller_that_stops_early_loses_nothing_that_was_sent() -> None:
    gate = threading.Event()
    store, model = MemoryResponses(), ScriptedModel()
    with Dispatcher(model, store) as dispatcher:
        list(dispatcher.run([request("known")]))
        model.gate = gate
        run = dispatcher.run(request(name) for name in ("a", "b", "c", "known", "d"))
        assert next(run)[0].meta["text"] == "known"
        assert wait_for(lambda: len(model.calls) == 4)
        assert len(store.kept) == 1, "a, b and c are still on the wire"
        threading.Timer(0.05, gate.set).start()
        run.close()  # type: ignore[attr-defined]  # a generator
    # Calls on the wire end in any order.
    assert sorted(call.meta["text"] for call in store.kept.values()) == ["a", "b", "c", "known"]
    assert dispatcher.counters.sent == len(model.calls) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("bad row")])
def test_an_interrupt_or_a_bad_feed_loses_nothing_that_was_sent(error: BaseException) -> None:
    gate = threading.Event()
    store, model = MemoryResponses(), ScriptedModel(gate=gate, concurrency=2)

    def feed() -> Iterator[GenerationRequest]:
        yield from map(request, "abc")
        while len(model.calls) < 2:
            time.sleep(0.001)
        threading.Timer(0.02, gate.set).start()
        raise error

    with Dispatcher(model, store) as dispatcher, pytest.raises((KeyboardInterrupt, InputError)):
        list(dispatcher.run(feed()))
    assert model.calls == ["a", "b"], "what still waited for a place is not sent any more"
    assert len(store.kept) == dispatcher.counters.sent == 2


def test_a_dispatcher_that_was_stopped_can_run_again() -> None:
    store, model = MemoryResponses(), fails("b", ModelRefused("no"))
    with Dispatcher(model, store) as dispatcher:
        for _ in range(3):
            with pytest.raises(ModelRefused):
                list(dispatcher.run(map(request, "abcdefgh")))
        assert len(list(dispatcher.run(map(request, "cdefgh")))) == 6


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def noted_interrupts() -> Iterator[None]:
    """Ctrl-C as the command line takes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traces.interrupts._STATE", _State())
        before = signal.signal(signal.SIGINT, lambda *_: interrupt())
        yield
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("noted_interrupts")
def test_a_noted_interrupt_yields_what_is_in_flight_and_then_ends_the_run() -> None:
    gate, seen = threading.Event(), list[str]()
    store, model = MemoryResponses(), ScriptedModel(gate=gate, concurrency=2)

    def press_and_let_the_replies_arrive() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(0.05, gate.set).start()

    with Dispatcher(model, store) as dispatcher:
        threading.Timer(0.05, press_and_let_the_replies_arrive).start()
        answers = dispatcher.run(request(str(number)) for number in range(200))
        with pytest.raises(KeyboardInterrupt):
            seen.extend(asked.messages[-1].text for asked, _ in answers)
    assert sorted(seen) == sorted(model.calls), "what was sent is lost"
    assert len(store.kept) == len(seen) < 200


@pytest.mark.usefixtures("noted_interrupts")
def test_an_interrupt_is_raised_at_once_or_at_the_end_of_the_outermost_block() -> None:
    reached: list[str] = []

    def work() -> None:
        with uninterrupted():
            with uninterrupted():
                signal.raise_signal(signal.SIGINT)
            reached.append("inner")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["inner"]
    signal.raise_signal(signal.SIGINT)  # only the first one counts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traces.interrupts._STATE", _State())
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert not interrupt_noted()


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
    """Answers "a" once all three are sent; the others stay on the wire until the gate opens."""

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request."""
        if request.messages[-1].text == "a":
            self.calls.append("a")
            while len(self.calls) < 3:
                await asyncio.sleep(0)
            return reply_to(request)
        return await super().generate(request)


def test_an_interrupt_between_two_replies_loses_nothing_that_was_sent() -> None:
    gate = threading.Event()
    store, model = MemoryResponses(), FirstAtOnce(gate=gate)
    with Dispatcher(model, store) as dispatcher:
        # The reference keeps the generator suspended, as the frames of a real traceback do.
        running = dispatcher.run([request("a"), request("b"), request("c")])
        next(running)
        while len(model.calls) < 3:  # on a busy machine the reply may come before the others leave
            time.sleep(0.001)
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


def test_inspection_sees_every_reply_and_may_end_the_run() -> None:
    store, model = MemoryResponses(), ScriptedModel()
    with Dispatcher(model, store) as first:
        list(first.run([request("a")]))
    seen: list[str] = []

    def inspect(reply: ModelReply) -> None:
        seen.append(str(reply.text))
        if reply.text == "C":
            raise ModelChanged("another version")

    outcomes: list[object] = []
    with Dispatcher(model, store, inspect=inspect) as second, pytest.raises(ModelChanged):
        outcomes.extend(second.run(request(name) for name in "abcdefghijklmnop"))
    assert "A" in seen, "stored ones too"
    assert "C" not in texts(outcomes).values()  # type: ignore[arg-type]
    assert len(store.kept) == len(model.calls) < 16, "nothing more is sent, nothing paid is lost"


class PacedModel(ScriptedModel):
    """A model whose service was found to take less."""

    pace = Pace(4)

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request when there is a place."""
        async with self.pace.slot():
            return await super().generate(request)


def open_when_flying(model: ScriptedModel, expected: int) -> None:
    """Open the gate once so many calls are on the wire, however long a busy machine takes."""
    wait_for(lambda: model.flying >= expected)
    if model.gate is not None:
        model.gate.set()


def test_the_window_follows_the_pace() -> None:
    model = PacedModel(concurrency=4)

    async def refused() -> None:
        async with model.pace.slot() as slot:
            model.pace.throttled(slot, None)

    with Dispatcher(model, None) as dispatcher:
        for expected in (4, 2):
            model.gate, model.most_flying = threading.Event(), 0
            opener = threading.Thread(target=open_when_flying, args=(model, expected))
            opener.start()
            list(dispatcher.run(request(str(number)) for number in range(8)))
            opener.join()
            assert model.most_flying == expected
            asyncio.run(refused())


def test_replies_that_arrive_together_are_recorded_together() -> None:
    class ManyAtOnce(MemoryResponses):
        writes = 0

        def put_all(self, calls: Sequence[StoredCall]) -> None:
            self.writes += 1
            # A disk that is busy until all replies are there.
            assert wait_for(lambda: len(model.calls) == 32 and not model.flying)
            for call in calls:
                self.put(call)

    store, model = ManyAtOnce(), ScriptedModel(concurrency=32)
    with Dispatcher(model, store) as dispatcher:
        got = list(dispatcher.run(request(str(number)) for number in range(32)))
    assert len(got) == len(store.kept) == 32
    assert store.writes < 16
