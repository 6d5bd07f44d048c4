"""Packing: never over budget, in order, and what was skipped really did not fit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.documents import TokenCounter, estimate_tokens
from retrieval.packing import PackedEvidence, pack_evidence, pack_like_medprm, render_document
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


def test_whole_passages_only() -> None:
    long = (
        "Give one tablet of it every morning with a full glass of water. Stop if a rash appears. "
        * 2
    )
    items = evidence(long.strip(), "Nine.")
    cut = pack_evidence(items, budget=20, count_tokens=count_words)
    assert [item.cut for item in cut.kept] == [True, False]
    whole = pack_evidence(items, budget=20, count_tokens=count_words, whole=True)
    assert whole.kept == (items[1],)
    assert whole.skipped == (items[0],)


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


@given(passages, st.integers(0, 200), counters, st.sampled_from([None, 3, 40]))
def test_budget_order_and_reason_hold(
    texts: list[str], budget: int, count: TokenCounter, cap: int | None
) -> None:
    items = evidence(*texts)
    packed = pack_evidence(items, budget=budget, count_tokens=count, cap=cap)
    assert_kept_in_order(items, packed, budget, count)
    if any(kept.cut for kept in packed.kept):
        return
    for item in packed.skipped:
        # What is skipped would not have fitted: beside what stands before it, or, if it had to
        # wait because it is long, beside all others.
        others = [each for each in packed.kept if cap is not None or each.rank < item.rank]
        tried = sorted([*others, item], key=lambda each: each.rank)
        text = "".join(render_document(number, each) for number, each in enumerate(tried, start=1))
        assert count(text) > budget


SENTENCE = "Give {} mg of it twice a day, and measure the kidney function again after a week."
texts_of_sentences = st.lists(
    st.integers(1, 30).map(lambda n: " ".join(SENTENCE.format(each) for each in range(n))),
    max_size=12,
)


def assert_kept_in_order(
    items: list[Evidence], packed: PackedEvidence, budget: int, count: TokenCounter
) -> None:
    rendered = [render_document(number, item) for number, item in enumerate(packed.kept, start=1)]
    assert packed.text == "".join(rendered)
    assert packed.tokens == (count(packed.text) if packed.kept else 0) <= budget
    for group in (packed.kept, packed.skipped):
        assert [item.rank for item in group] == sorted(item.rank for item in group)
    assert sorted(item.rank for item in (*packed.kept, *packed.skipped)) == list(range(len(items)))
    for item in packed.kept:
        whole = items[item.rank].passage
        kept = item.passage
        assert item.cut == (kept != whole)
        assert whole.text.startswith(kept.text)
        assert (kept.start, kept.end - kept.start) == (whole.start, len(kept.text))
        if item.cut:
            assert kept.text.endswith(".")
            assert whole.text[len(kept.text)] == " ", "a sentence ends there"


@given(texts_of_sentences, st.integers(0, 600), st.sampled_from([count_words, estimate_tokens]))
@settings(max_examples=60)
def test_all_is_kept_that_skip_and_continue_with_the_cap_keeps(
    texts: list[str], budget: int, count: TokenCounter
) -> None:
    items, cap = evidence(*texts), 64
    packed = pack_evidence(items, budget=budget, count_tokens=count, cap=cap)
    assert_kept_in_order(items, packed, budget, count)
    plain: list[int] = []
    text = ""
    for item in items:  # the rule itself: the first sentences up to the cap, if they fit
        shown = item.passage.text
        while count(shown) > cap:
            shown = shown[: shown.rstrip(".").rindex(".") + 1]
        longer = text + render_document(len(plain) + 1, shown)
        if count(longer) <= budget:
            plain.append(item.rank)
            text = longer
    assert {item.rank for item in packed.kept} >= set(plain)
    if budget >= count("".join(render_document(n, each) for n, each in enumerate(items, 1))):
        assert packed.kept == tuple(items), "with room for all, nothing is cut"


def test_what_is_left_makes_cut_passages_longer_then_whole() -> None:
    long = " ".join(SENTENCE.format(n) for n in range(10))
    items = evidence(long, "Stop.")
    tokens = [
        [
            len(kept.passage.text)
            for kept in pack_evidence(items, budget=budget, count_tokens=count_words, cap=40).kept
        ]
        for budget in (40, 80, 120, 200)
    ]
    whole = len(long)
    first = [row[0] for row in tokens]
    assert first == sorted(first)
    assert first[0] < first[1] < first[2] < first[3] == whole
    assert [len(row) for row in tokens] == [2, 2, 2, 2], "the short one behind it always has room"


def test_half_a_sentence_and_a_bare_heading_are_never_shown() -> None:
    one_sentence = "Give " + "very " * 100 + "little."
    heading = (
        "## Dosing of the drug in patients whose kidneys do not work as they should, by weight\n\n"
    )
    for text in (one_sentence, heading + one_sentence):
        packed = pack_evidence(evidence(text), budget=50, count_tokens=count_words)
        assert (packed.kept, packed.cut) == ((), 0)
    with pytest.raises(InputError, match="cap of 0"):
        pack_evidence([], count_tokens=count_words, cap=0)


def test_the_published_rule_stops_and_does_not_count_its_wrapper() -> None:
    # truncate_related_docs: cost len(tokens) + 1 each, break at the first that does not fit.
    def words(n: int) -> str:
        return " ".join(["x"] * n)

    fits = pack_like_medprm(evidence(words(3071)), count_tokens=count_words)
    assert len(fits.kept) == 1
    assert fits.tokens == 3073 > fits.budget == 3072, "the wrapper's two words came on top"
    none = pack_like_medprm(evidence(words(3072), "the dose"), count_tokens=count_words)
    assert (none.kept, len(none.skipped), none.text) == ((), 2, "")
    three = pack_like_medprm(
        evidence(words(10), words(20), words(5), words(1)),
        count_tokens=count_words,
        window=60,
        reserve=28,
    )
    assert [item.rank for item in three.kept] == [0, 1], "11 + 21 = 32, no room for 6"
    exact = pack_like_medprm(
        evidence(words(10), words(20), words(5)), count_tokens=count_words, window=60, reserve=22
    )
    assert [item.rank for item in exact.kept] == [0, 1, 2]
    with pytest.raises(InputError, match="larger than the window"):
        pack_like_medprm([], count_tokens=count_words, window=5, reserve=6)
