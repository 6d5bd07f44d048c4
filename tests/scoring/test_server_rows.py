"""The numbers of a server's answer: which step each belongs to, and what score it makes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoring.family import LaidOutTrace, served_head, served_tokens
from scoring.server.routes import (
    ACTIVATED,
    LOGITS,
    LOGPROBS,
    Completions,
    Generate,
    Pooling,
    Unread,
    route_of,
    row_scores,
)
from traces.errors import InputError, ModelRefused

numbers = st.floats(-1e4, 1e4)
TRACE = LaidOutTrace("t", (5, 9, 5, 7, 9, 9), ((1,), (), (4, 5)))
"""Two steps with token 9 behind them, one of them read twice; one without a place."""


@given(st.lists(st.tuples(numbers, numbers), min_size=1))
def test_two_logits_are_a_softmax(rows: list[tuple[float, float]]) -> None:
    wanted = torch.softmax(torch.tensor(rows, dtype=torch.float64), dim=1)
    assert row_scores(rows, LOGITS) == pytest.approx(wanted[:, 1].tolist(), abs=1e-12)
    assert row_scores(rows, LOGPROBS) == pytest.approx(wanted[:, 0].tolist(), abs=1e-12)


@given(st.lists(numbers, min_size=1))
def test_one_value_is_a_sigmoid(values: list[float]) -> None:
    wanted = torch.sigmoid(torch.tensor(values, dtype=torch.float64)).tolist()
    assert row_scores([(value,) for value in values], LOGITS) == pytest.approx(wanted, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1))
def test_row_scores_are_taken_as_they_are_and_nothing_else_for_them(given_: list[float]) -> None:
    assert row_scores([(p,) for p in given_], ACTIVATED) == given_
    assert row_scores([(1 - p, p) for p in given_], ACTIVATED) == given_
    assert row_scores([*[(1 - p, p) for p in given_], (0.5, 0.6)], ACTIVATED) is None
    assert row_scores([*[(p,) for p in given_], (1.5,)], ACTIVATED) is None


def pooled(rows: list[Any], **more: Any) -> dict[str, Any]:
    return {"data": [{"index": 0, "data": rows}], "usage": {"prompt_tokens": 6}, **more}


@pytest.mark.parametrize("flat", [False, True])
def test_pooling_gives_a_row_a_token_or_a_row_a_step_token(flat: bool) -> None:
    route = Pooling(served_head(1))
    every = [float(n) if flat else [float(n)] for n in range(6)]
    assert route.rows(pooled(every), TRACE) == [(1.0,), (4.0,), (5.0,)]
    # Token 9 stands at 1, 4 and 5: rows 0, 1 and 2.
    assert route.rows(pooled(every[:3]), TRACE) == [(0.0,), (1.0,), (2.0,)]


def test_a_step_token_that_stands_in_the_question_has_a_row_too() -> None:
    trace = LaidOutTrace("t", (9, 5, 9, 7, 9), ((2,), (4,)))
    reply = {"data": [{"data": [[0.0], [1.0], [2.0]]}]}
    assert Pooling(served_head(1)).rows(reply, trace) == [(1.0,), (2.0,)]


@given(st.integers(0, 20).filter(lambda n: n not in (3, 6)))
def test_any_other_number_of_rows_is_refused(count: int) -> None:
    with pytest.raises(ModelRefused, match=f"{count} rows for 6 tokens"):
        Pooling(served_head(1)).rows(pooled([[0.0]] * count), TRACE)


def test_rows_of_steps_that_end_differently_cannot_be_told_apart() -> None:
    trace = LaidOutTrace("t", (5, 9, 5, 7), ((1,), (3,)))
    with pytest.raises(ModelRefused, match="2 rows for 4 tokens and 2 steps"):
        Pooling(served_head(1)).rows({"data": [{"data": [[0.0], [0.0]]}]}, trace)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({}, "no one pooled input; it has: nothing"),
        ({"results": [], "object": "list"}, "no one pooled input; it has: object, results"),
        ({"data": [{"embedding": [0.1]}]}, "no rows of numbers"),
        (pooled([[0.0, 1.0, 2.0]] * 6), "3 numbers per token, expected 2"),
        (pooled([[0.0, 1.0]] * 7, usage={"prompt_tokens": 7}), "7 tokens, expected 6"),
    ],
)
def test_pooling_of_another_shape_is_refused_by_what_it_is(reply: Any, words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        Pooling(served_head(2)).rows(reply, TRACE)


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.5", True])
def test_what_is_no_number_is_no_score(value: Any) -> None:
    rows: list[Any] = [[0.0, 1.0]] * 5 + [[0.0, value]]
    with pytest.raises(Unread, match="instead of a number"):
        Pooling(served_head(2)).rows(pooled(rows), TRACE)


def told(token: int, logprob: float) -> dict[str, Any]:
    return {str(token): {"logprob": logprob}}


def completed(rows: list[Any], **choice: Any) -> dict[str, Any]:
    return {"choices": [{"prompt_logprobs": rows, **choice}], "usage": {"prompt_tokens": 7}}


def test_completions_read_what_was_predicted_behind_each_place() -> None:
    route = Completions(right=3, wrong=4)
    assert route.body("m", TRACE)["prompt"] == [5, 9, 5, 7, 9, 9, 9]
    rows = [None, *(told(3, -float(n)) | told(4, -n - 0.5) for n in range(6))]
    assert route.rows(completed(rows), TRACE) == [(-1.0, -1.5), (-4.0, -4.5), (-5.0, -5.5)]
    with pytest.raises(Unread, match=r"Token 4.* not among the 20 most probable"):
        route.rows(completed([None, *[told(3, -1.0)] * 6]), TRACE)
    with pytest.raises(ModelRefused, match="different tokens than those sent"):
        route.rows(completed(rows, prompt_token_ids=[1, 5, 9, 5, 7, 9, 9]), TRACE)
    with pytest.raises(ModelRefused, match="6 tokens, expected 7"):
        route.rows(completed(rows[:-1]), TRACE)
    with pytest.raises(ModelRefused, match='no "prompt_logprobs"'):
        route.rows({"choices": [{"text": "", "prompt_logprobs": None}]}, TRACE)
    with pytest.raises(ModelRefused, match="no one choice"):
        route.rows({"object": "list", "data": []}, TRACE)


def generated(rows: list[Any], prompt_tokens: int = 7) -> dict[str, Any]:
    return {"meta_info": {"prompt_tokens": prompt_tokens, "input_token_ids_logprobs": rows}}


def test_generate_counts_rows_from_where_it_started() -> None:
    route = Generate(right=3, wrong=4)
    assert route.body("m", TRACE)["logprob_start_len"] == 1
    # Row k is what was predicted for the token at 1 + k: that of place p is row p.
    rows = [None, *([[-n - 0.5, 4, None], [-float(n), 3, None]] for n in range(1, 6))]
    assert route.rows(generated(rows), TRACE) == [(-1.0, -1.5), (-4.0, -4.5), (-5.0, -5.5)]
    with pytest.raises(Unread, match="no log-probability of token 4"):
        route.rows(generated([None, *[[[-1.0, 3, None]]] * 5]), TRACE)
    with pytest.raises(ModelRefused, match="8 tokens, expected 7"):
        route.rows(generated(rows, prompt_tokens=8), TRACE)
    with pytest.raises(ModelRefused, match="5 tokens, expected 6"):
        route.rows(generated(rows[:-1]), TRACE)
    with pytest.raises(ModelRefused, match='no "meta_info"'):
        route.rows({"text": "", "model": "m"}, TRACE)
    with pytest.raises(ModelRefused, match='no "input_token_ids_logprobs"'):
        route.rows({"meta_info": {}}, TRACE)


def test_a_family_is_asked_in_a_way_that_can_carry_it() -> None:
    assert isinstance(route_of(None, served_head(2), "f"), Pooling)
    assert isinstance(route_of(None, served_tokens(1, 2), "f"), Completions)
    assert isinstance(route_of("generate", served_tokens(1, 2), "f"), Generate)
    assert isinstance(route_of("pooling", served_tokens(1, 2), "f"), Pooling)
    with pytest.raises(InputError, match="separate head"):
        route_of("generate", served_head(1), "f")
    with pytest.raises(InputError, match="Unknown route"):
        route_of("nonesuch", served_head(1), "f")
