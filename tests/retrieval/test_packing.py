"""Packing: never over budget, in order, and what was skipped really did not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.packing import pack_evidence, render_document
from retrieval.tokens import TokenCounter, estimate_tokens
from traces.errors import InputError
from traces.evidence import Evidence, Passage


def evidence(*texts: str) -> list[Evidence]:
    return [
        Evidence(Passage("c", f"d{rank}", 0, 0, len(text), text), 1 - rank / 100, rank)
        for rank, text in enumerate(texts)
    ]


def count_words(text: str) -> int:
    return len(text.split())


def test_a_passage_is_rendered_as_published() -> None:
    (item,) = evidence("Start at 5 mg.")
    assert render_document(3, item) == "Document 3: Start at 5 mg.\n\n"
    assert render_document(3, item.passage.text) == render_document(3, item)


def test_the_next_that_fits_is_tried() -> None:
    items = evidence("one two three four", "x " * 50, "five six", "seven eight nine", "ten")
    packed = pack_evidence(items, budget=13, count_tokens=count_words)
    # 2 words of wrapper each: 6 + 4 = 10, the fourth would need 5 more, the fifth 3.
    assert packed.kept == (items[0], items[2], items[4])
    assert packed.skipped == (items[1], items[3])
    assert (
        packed.text
        == "Document 1: one two three four\n\nDocument 2: five six\n\nDocument 3: ten\n\n"
    )
    assert (packed.tokens, packed.budget) == (13, 13)


def test_a_long_first_passage_does_not_cost_the_others() -> None:
    packed = pack_evidence(evidence("x " * 4000, "the dose"), count_tokens=count_words)
    assert packed.budget == 3072
    assert [item.rank for item in packed.kept] == [1]


def test_nothing_fits() -> None:
    packed = pack_evidence(evidence("a", "b"), budget=0, count_tokens=count_words)
    assert (packed.kept, packed.text, packed.tokens) == ((), "", 0)
    assert len(packed.skipped) == 2
    with pytest.raises(InputError, match="-1"):
        pack_evidence([], budget=-1, count_tokens=count_words)


def count_pairs(text: str) -> int:
    """A counter whose tokens reach across passages: every two characters begun."""
    return (len(text) + 1) // 2


passages = st.lists(st.text(alphabet="ab ", max_size=60), max_size=12)
counters = st.sampled_from([count_words, len, count_pairs, estimate_tokens])


@given(passages, st.integers(0, 200), counters)
def test_budget_order_and_reason_hold(texts: list[str], budget: int, count: TokenCounter) -> None:
    items = evidence(*texts)
    packed = pack_evidence(items, budget=budget, count_tokens=count)
    rendered = [render_document(number, item) for number, item in enumerate(packed.kept, start=1)]
    assert packed.text == "".join(rendered)
    assert packed.tokens == (count(packed.text) if packed.kept else 0) <= budget
    for group in (packed.kept, packed.skipped):
        assert [item.rank for item in group] == sorted(item.rank for item in group)
    assert sorted([*packed.kept, *packed.skipped], key=lambda item: item.rank) == items
    for item in packed.skipped:
        before = [kept for kept in packed.kept if kept.rank < item.rank]
        tried = [*before, item]
        text = "".join(render_document(number, each) for number, each in enumerate(tried, start=1))
        assert count(text) > budget
