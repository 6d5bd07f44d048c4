"""The budget: never passed, nearly used up, and honest about what it cut."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.budget import Purse, input_bound
from inference.dispatch import Dispatcher
from inference.prices import cost
from inference.protocol import GenerationRequest, request_key
from tests.inference.scripted import MemoryResponses, ScriptedModel, reply_to, request
from traces.errors import BudgetExhausted, InputError
from traces.records import ModelReply, Usage

DAY = date(2026, 11, 15)
MODEL = "gemini-3.5-flash-lite"


class Speaker(ScriptedModel):
    """Says as many tokens as its prompt names, never more than it is allowed, and is paid for them."""

    input_factor = 1.0

    def __init__(self, concurrency: int = 4) -> None:
        super().__init__(self.speak, concurrency=concurrency)
        self.limits: list[int] = []
        self.bills: list[float] = []

    def speak(self, asked: GenerationRequest) -> ModelReply:
        """As long as the number in the prompt."""
        self.limits.append(asked.max_tokens)
        wanted = int(asked.messages[-1].text.split()[0])
        usage = Usage(int(input_bound(asked) * self.input_factor), 0, min(wanted, asked.max_tokens))
        usd = cost(usage, MODEL, on=DAY)
        assert usd is not None
        self.bills.append(usd)
        finish = "stop" if wanted <= asked.max_tokens else "length"
        return ModelReply(str(wanted), finish, f"gemini:{MODEL}", MODEL, usage, usd)


def long_reply(tokens: int, number: int = 0, limit: int = 8192) -> GenerationRequest:
    """A request whose reply is that long."""
    return request(f"{tokens} {number}", limit)


def spend(model: Speaker, asked: list[GenerationRequest], budget: float) -> tuple[int, bool]:
    """How many were answered, and whether the budget ended it."""
    got = 0
    with Dispatcher(model, MemoryResponses(), budget, today=lambda: DAY) as dispatcher:
        try:
            for _ in dispatcher.run(asked):
                got += 1
        except BudgetExhausted:
            return got, True
        finally:
            assert dispatcher.counters.usd == pytest.approx(sum(model.bills))
    return got, False


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.integers(0, 60),
    st.lists(st.integers(1, 4000), min_size=1, max_size=15),
    st.integers(1, 5),
    st.floats(0.2, 1.0),
)
def test_the_budget_is_never_passed(
    calls_worth: int, lengths: list[int], concurrency: int, input_factor: float
) -> None:
    budget = calls_worth * 0.001
    asked = [long_reply(length, number) for number, length in enumerate(lengths)]
    model = Speaker(concurrency)
    model.input_factor = input_factor
    got, stopped = spend(model, asked, budget)
    assert sum(model.bills) <= budget + 1e-12
    assert stopped == (got < len(asked))


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("tokens", [60, 400, 3000])
def test_a_tenth_of_the_price_buys_nearly_a_tenth(concurrency: int, tokens: int) -> None:
    """The whole output limit of one call alone is a fifth of this budget."""
    one = cost(Usage(input_bound(long_reply(tokens, 500)), 0, tokens), MODEL, on=DAY)
    assert one is not None
    model = Speaker(concurrency)
    count = min(1000, int(1.0 / one))
    budget = count * one / 10
    _, stopped = spend(model, [long_reply(tokens, number) for number in range(count)], budget)
    assert stopped
    assert 0.8 * budget <= sum(model.bills) <= budget


def test_replies_of_many_lengths_use_it_nearly_up_too() -> None:
    model = Speaker(8)
    asked = [long_reply(100 + 37 * number % 700, number) for number in range(900)]
    assert spend(model, asked, 0.1)[1]
    assert 0.08 <= sum(model.bills) <= 0.1


def test_a_service_that_counts_the_input_otherwise_is_learnt_before_the_window_opens() -> None:
    model = Speaker(16)
    model.input_factor = 40.0
    asked = [long_reply(9, number, limit=10) for number in range(500)]
    one = cost(Usage(int(input_bound(asked[0]) * 40), 0, 10), MODEL, on=DAY)
    assert one is not None
    assert spend(model, asked, 10.5 * one)[1]
    assert 8 * one <= sum(model.bills) <= 10.5 * one


def test_what_our_limit_cut_is_paid_kept_apart_and_asked_again() -> None:
    """Ten short replies teach a low limit; the long one does not fit into it."""
    store, model = MemoryResponses(), Speaker(1)
    asked = [*(long_reply(10, number) for number in range(10)), long_reply(3000)]
    with Dispatcher(model, store, 0.0205, today=lambda: DAY) as dispatcher:
        answers = {each.messages[0].text: got for each, got in dispatcher.run(asked)}
    last = answers["3000 0"]
    assert isinstance(last, ModelReply)
    assert (last.text, last.finish_reason) == ("3000", "stop")
    cut = [call for call in store.kept.values() if call.reply.finish_reason == "length"]
    assert len(cut) == len(model.limits) - 11 > 0
    whole = request_key(model.spec, asked[-1])
    assert whole not in {call.key for call in cut}
    assert store.kept[whole].reply == last
    assert sum(model.bills) == dispatcher.counters.usd <= 0.0205


def test_a_lower_limit_that_was_not_reached_gives_the_reply_itself() -> None:
    store, model = MemoryResponses(), Speaker(1)
    asked = [long_reply(10, number) for number in range(3)]
    with Dispatcher(model, store, 0.0205, today=lambda: DAY) as dispatcher:
        list(dispatcher.run(asked))
    assert model.limits[0] == 8192 > model.limits[-1]
    assert set(store.kept) == {request_key(model.spec, each) for each in asked}
    assert store.kept[request_key(model.spec, asked[-1])].meta["max_tokens_sent"] == 1024


def test_the_budget_stops_after_what_was_sent_was_yielded_and_more_money_goes_on() -> None:
    store, model = MemoryResponses(), Speaker()
    asked = [long_reply(4000, number, limit=4000) for number in range(6)]
    per_call = cost(Usage(input_bound(asked[0]), 0, 4000), MODEL, on=DAY)
    assert per_call is not None
    seen: list[object] = []
    poor = Dispatcher(model, store, 3.2 * per_call, today=lambda: DAY)
    with poor, pytest.raises(BudgetExhausted, match="larger --budget"):
        seen.extend(poor.run(asked))
    assert len(seen) == len(store.kept) == 3
    with Dispatcher(model, store, 10 * per_call, today=lambda: DAY) as rich:
        assert len(list(rich.run(asked))) == 6
    assert len(model.calls) == 6, "the three that were paid are not bought again"
    assert rich.counters.usd == pytest.approx(3 * per_call)


def test_two_models_spend_from_one_purse() -> None:
    purse = Purse(0.05)
    first, second = Speaker(), Speaker()
    asked = [long_reply(1000, number) for number in range(100)]
    with Dispatcher(first, None, purse, today=lambda: DAY) as one:
        list(one.run(asked[:10]))
        with (
            Dispatcher(second, None, purse, today=lambda: DAY) as two,
            pytest.raises(BudgetExhausted),
        ):
            list(two.run(asked[10:]))
    assert len(first.bills) == 10
    assert 0.04 <= sum(first.bills) + sum(second.bills) <= 0.05
    assert purse.spent_usd == pytest.approx(sum(first.bills) + sum(second.bills))


def test_a_reply_of_unknown_price_is_held_against_the_budget_at_its_most() -> None:
    model = ScriptedModel(lambda each: reply_to(each, usd=None))
    asked = [request(str(number), 4000) for number in range(10)]
    most = cost(Usage(input_bound(asked[0]), 0, 4000), MODEL, on=DAY)
    assert most is not None
    with Dispatcher(model, None, 2.0 * most, today=lambda: DAY) as dispatcher:
        with pytest.raises(BudgetExhausted):
            list(dispatcher.run(asked))
        assert dispatcher.counters.unpriced == dispatcher.counters.sent == 2
        assert dispatcher.counters.usd == 0.0


def test_a_budget_for_a_model_without_a_price_is_refused() -> None:
    with pytest.raises(InputError, match="a budget cannot be enforced"):
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
