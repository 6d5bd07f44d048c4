"""Rank fusion against its formula, and what is chosen from the fused."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.search.choice import distinct, maximal_marginal_relevance, with_quotas
from retrieval.search.fusion import Ranking, reciprocal_rank_fusion


def ranking(*scored: tuple[int, float]) -> Ranking:
    return Ranking(
        np.array([number for number, _ in scored], dtype=np.int64),
        np.array([score for _, score in scored], dtype=np.float32),
    )


RANKINGS = st.lists(
    st.dictionaries(st.integers(0, 12), st.integers(1, 5), max_size=8).map(
        lambda scores: ranking(*sorted(scores.items(), key=lambda entry: (-entry[1], entry[0])))
    ),
    max_size=4,
)


@given(RANKINGS, st.integers(1, 100))
def test_fused_scores_are_the_formula_with_shared_ranks(
    rankings: list[Ranking], constant: int
) -> None:
    fused = reciprocal_rank_fusion(rankings, constant=constant)
    expected: dict[int, Fraction] = {}
    for each in rankings:
        scores = each.scores.tolist()
        for number, score in zip(each.ids.tolist(), scores, strict=True):
            rank = 1 + sum(other > score for other in scores)  # competition ranking, exactly
            expected[number] = expected.get(number, Fraction()) + Fraction(1, constant + rank)
    assert set(fused.ids.tolist()) == set(expected)
    for number, score in zip(fused.ids.tolist(), fused.scores.tolist(), strict=True):
        assert abs(score - float(expected[number])) < 1e-6
    exact = [expected[number] for number in fused.ids.tolist()]
    assert all(float(a) >= float(b) - 1e-12 for a, b in pairwise(exact))


def test_ties_stay_in_the_order_in_which_they_were_found() -> None:
    fused = reciprocal_rank_fusion([ranking((5, 2.0), (1, 1.0)), ranking((1, 2.0), (5, 1.0))])
    assert fused.ids.tolist() == [5, 1]
    assert len(reciprocal_rank_fusion([])) == 0


SENTENCE = "The recommended dose of the tablet is {} mg once daily with a full glass of water"


def test_near_duplicates_go_and_different_doses_stay() -> None:
    first = SENTENCE.format(5)
    texts = [
        first,
        first.upper() + " !",  # case and punctuation
        "  " + first.replace(" ", "\n"),  # white space
        SENTENCE.format(50),  # another dose
        first + " in the morning",  # a few words more
        first.replace("is 5", "is not 5"),  # the contrary
        "Store dry.",
        "Store dry",
        "Store cool.",
    ]
    assert distinct(texts) == [0, 3, 5, 6, 8]
    assert distinct([]) == []


@given(st.lists(st.text("ab 1.", max_size=30), max_size=8))
def test_of_each_group_of_equals_one_stays_the_first(texts: list[str]) -> None:
    kept = distinct(texts)
    assert kept == sorted(set(kept))
    for place, text in enumerate(texts):
        if place not in kept:
            assert any(earlier < place for earlier in kept), text
    assert distinct([texts[place] for place in kept]) == list(range(len(kept)))


def test_mmr_against_all_orders_written_out() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = rng.random(12).astype(np.float32)
    for weight in (0.0, 0.3, 0.7, 1.0):
        chosen: list[int] = []
        while len(chosen) < 7:  # the definition, with nothing remembered
            gains = {}
            for place in set(range(12)) - set(chosen):
                near = max((float(vectors[place] @ vectors[c]) for c in chosen), default=0.0)
                gains[place] = weight * float(relevance[place]) - (1 - weight) * near
            chosen.append(max(gains, key=lambda place: gains[place]))
        assert maximal_marginal_relevance(relevance, vectors, 7, weight) == chosen
    by_relevance = np.argsort(-relevance)[:7].tolist()
    assert maximal_marginal_relevance(relevance, vectors, 7, 1.0) == by_relevance
    assert len(maximal_marginal_relevance(relevance, vectors, 99, 0.5)) == 12


@given(
    st.lists(st.sampled_from("abc"), max_size=12),
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3), max_size=3),
    st.integers(0, 4),
)
def test_quotas_are_kept_as_far_as_there_are_passages(
    corpora: list[str], quotas: dict[str, int], more: int
) -> None:
    count = sum(quotas.values()) + more
    chosen = with_quotas(corpora, count, quotas)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(corpora))
    for corpus, places in quotas.items():
        have = [place for place in chosen if corpora[place] == corpus]
        assert len(have) >= min(places, corpora.count(corpus))
        best = [place for place, other in enumerate(corpora) if other == corpus]
        assert have == best[: len(have)], "the best of a corpus come first"
    assert with_quotas(corpora, count, {}) == list(range(min(count, len(corpora))))
