"""Prefixes kept between rounds save computation and change nothing; memory that runs out halves a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from inference.local.policy import LocalPolicy
from inference.local.shared_attention import ATTENTION, PrefixCache, prefill
from inference.local.shared_prefix import PrefixEngine, PrefixRow, SharedTrace, WrittenTrace
from inference.local.token_choice import SamplingRule, noise_key
from inference.prompting import ContinuationPrompt
from tests.policies import local_policy
from tests.tiny_models import tiny_llama, tiny_tokenizer
from traces.problem import TraceContinuations, TraceInContext, Wanted

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> Any:
    return tiny_llama(tokenizer, attn_implementation=ATTENTION)


def ids_of(name: int, length: int) -> tuple[int, ...]:
    draw = torch.Generator().manual_seed(name)
    return tuple(torch.randint(5, 300, (length,), generator=draw).tolist())


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(1, 24)),
            min_size=1,
            max_size=4,
            unique_by=lambda pair: pair[0],
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([0, 20, 60, 1000]),
)
def test_rounds_give_the_keys_of_one_prefill_and_stay_within_the_budget(
    model: Any, rounds: list[list[tuple[int, int]]], budget: int
) -> None:
    kept = PrefixCache(budget)
    most = dict.fromkeys(range(4), 0)
    for asked in rounds:
        traces = [(name, ids_of(name, length)) for name, length in asked]
        made = kept.prefill(model, traces)
        layers, computed = made.layers, made.computed
        for row, (_, ids) in enumerate(traces):
            alone = prefill(model, [ids])
            for got, wanted in zip(layers, alone, strict=True):
                keys, values = got.keys[row, :, : len(ids)], got.values[row, :, : len(ids)]
                assert torch.allclose(keys, wanted.keys[0], atol=TOLERANCE)
                assert torch.allclose(values, wanted.values[0], atol=TOLERANCE)
        assert kept.tokens <= budget
        for (name, length), new in zip(asked, computed, strict=True):
            if budget == 1000:  # everything is kept: only what is longer than ever is computed
                assert new == max(0, length - most[name])
            most[name] = max(most[name], length)


def test_another_text_under_the_same_name_is_computed_anew(model: Any) -> None:
    kept = PrefixCache(100)
    first = ids_of(1, 10)
    kept.prefill(model, [("t", first)])
    other = (*first[:4], *ids_of(2, 6))
    made = kept.prefill(model, [("t", other)])
    assert made.computed == [6]
    [wanted, *_] = prefill(model, [other])
    assert torch.allclose(made.layers[0].keys, wanted.keys, atol=TOLERANCE)


def test_what_is_released_is_computed_again(model: Any) -> None:
    kept = PrefixCache(100)
    asked = [("t", ids_of(1, 10)), (None, ids_of(2, 7))]
    assert kept.prefill(model, asked).computed == [10, 7]
    assert kept.prefill(model, asked).computed == [0, 7]
    kept.release(["t", "never seen"])
    assert kept.tokens == 0
    assert kept.prefill(model, asked).computed == [10, 7]


def test_a_full_keep_throws_nothing_out(model: Any) -> None:
    kept = PrefixCache(15)
    kept.prefill(model, [("a", ids_of(1, 10))])
    assert kept.prefill(model, [("b", ids_of(2, 10))]).computed == [10]
    assert kept.prefill(model, [("a", ids_of(1, 10))]).computed == [0]
    assert kept.prefill(model, [("a", ids_of(1, 20))]).computed == [10]
    assert kept.prefill(model, [("a", ids_of(1, 10))]).computed == [0]


def policy(folder: Path, **changes: Any) -> LocalPolicy:
    made: dict[str, Any] = {
        "spec": "hf:tiny", "prompt": ContinuationPrompt(), "max_tokens": 8, "temperature": 0.8,
    }  # fmt: skip
    return local_policy(folder, **made | changes)


def in_rounds(
    policy: LocalPolicy, contexts: list[TraceInContext], order: Callable[[int], list[Wanted]]
) -> dict[str, list[TraceContinuations]]:
    """Every trace asked for again and again, one element of `order(steps)` a round."""
    done: dict[str, list[TraceContinuations]] = {one.trace.id: [] for one in contexts}
    for number in range(max(len(order(len(one.trace.steps))) for one in contexts)):
        asked = [
            (one, [wanted[number]])
            for one in contexts
            if number < len(wanted := order(len(one.trace.steps)))
        ]
        for continued in policy.continue_wanted(asked, seed=0):
            done[continued.trace_id].append(continued)
    return done


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("cache_tokens", [None, 600, 40])
def test_rounds_draw_what_one_call_draws(
    tiny_folder: Path, contexts: list[TraceInContext], backwards: bool, cache_tokens: int | None
) -> None:
    contexts = contexts[1:4]
    whole = {
        one.trace_id: one for one in policy(tiny_folder).continue_traces(contexts, k=3, seed=0)
    }

    def order(steps: int) -> list[Wanted]:
        pieces = [
            piece for step in range(steps) for piece in (Wanted(step, 0, 1), Wanted(step, 1, 2))
        ]
        return pieces[::-1] if backwards else pieces

    asked = policy(tiny_folder, cache_tokens=cache_tokens)
    rounds = in_rounds(asked, contexts, order)
    for trace_id, pieces in rounds.items():
        texts = [text for piece in pieces for text in piece.texts]
        assert tuple(sorted(texts, key=lambda one: (one.step_index, one.index))) == whole[trace_id].texts  # fmt: skip
        prefilled = sum(piece.prefilled_tokens for piece in pieces)
        if cache_tokens is None:
            assert prefilled == whole[trace_id].prefilled_tokens
        elif cache_tokens == 40:  # nothing fits: every round computes its prefix
            assert prefilled > whole[trace_id].prefilled_tokens
    asked.release([context.trace.id for context in contexts])
    [again] = asked.continue_wanted([(contexts[2], [Wanted(3, 0, 1)])], seed=0)
    assert again.prefilled_tokens == whole["t3"].prefilled_tokens


def shared(number: int, length: int, k: int) -> SharedTrace:
    ids = ids_of(number, length)
    key = noise_key(0, f"t{number}")
    return SharedTrace(ids, tuple(PrefixRow(length - 1, ids[-1:], key, (0, i)) for i in range(k)))


def write(
    engine: PrefixEngine, tokenizer: PreTrainedTokenizerFast, traces: list[SharedTrace]
) -> list[WrittenTrace]:
    return list(
        engine.continue_all(
            traces, SamplingRule(0.9), max_new_tokens=6, stop=(), tokenizer=tokenizer
        )
    )


def narrow(model: Any, rows: int, tokens: int) -> Any:
    """A device that holds no larger forward than this: there is none such to be had in a test."""

    def refuse(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        fed = kwargs["input_ids"]
        if len(fed) > rows or fed.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)


def test_memory_that_runs_out_halves_the_batch_and_changes_nothing(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = tiny_llama(tokenizer, attn_implementation=ATTENTION)
    traces = [shared(number, length, 5) for number, length in enumerate([9, 12, 30, 31, 8])]
    engine = PrefixEngine(model, frozenset({4}))
    wanted = write(engine, tokenizer, traces)
    widths: list[int] = []
    model.lm_head.register_forward_hook(lambda _, args, __: widths.append(len(args[0])))
    hook = narrow(model, rows=7, tokens=40)
    assert write(engine, tokenizer, traces) == wanted
    assert 2 <= max(widths) <= 7
    hook.remove()
    narrow(model, rows=0, tokens=0)
    with pytest.raises(torch.OutOfMemoryError):
        write(engine, tokenizer, traces)


def test_another_fault_is_not_taken_for_memory(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_llama(tokenizer, attn_implementation=ATTENTION)
    engine = PrefixEngine(model, frozenset({4}))

    def fail(*_: Any) -> None:
        raise RuntimeError("expected scalar type Float")

    model.lm_head.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="scalar type"):
        write(engine, tokenizer, [shared(1, 9, 4)])
