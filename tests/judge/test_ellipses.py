"""What an ellipsis in a quote may stand for, and what it must never swallow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.quotes import verify_quote

WORDS = [
    "adult",
    "bottle",
    "clean",
    "daily",
    "evening",
    "fasting",
    "glass",
    "heart",
    "infusion",
    "kidney",
    "line",
    "morning",
    "nurse",
    "oral",
    "pressure",
    "quiet",
    "rest",
    "serum",
    "tablet",
    "urine",
    "vein",
    "water",
    "young",
    "zinc",
]
"""No two are alike, none says no."""
DENIALS = (
    "not", "never", "no", "cannot", "don't", "without", "neither", "except", "unless", "less than",
    "more than", "rather than", "younger than", "contraindicated in", "contra-indicated in", "avoid",
    "avoided in", "withheld in", "prohibited in", "forbidden in", "instead of", "stop", "discontinue",
    "unsafe in", "unsuitable for", "rarely", "hardly", "unlikely",
)  # fmt: skip


@pytest.mark.parametrize(
    ("passage", "quote"),
    [
        (
            "Tablets may be crushed when the patient cannot swallow.",
            "may be crushed when ... swallow",
        ),
        ("Velolol is contraindicated in angina and gout.", "Velolol is ... angina and gout"),
        ("Velolol is contraindicated in angina and gout.", "Velolol is ... in angina and gout"),
        ("Keep them dry. Do not freeze the tablets.", "Keep them dry. ... freeze the tablets"),
        ("Keep them dry. ## Storage Do not freeze them.", "Keep them dry. ... freeze them"),
        (
            "Keep them dry. Stop Halparin when it bleeds.",
            "Keep them dry. ... Halparin when it bleeds",
        ),
        ("Give it daily unless eGFR is low. Drink water.", "Give it ... Drink water"),
        ("Give it to all except children. Drink water.", "Give it to all ... Drink water"),
        ("Give it only if the dose is less than 5 mg.", "if the dose is ... 5 mg"),
        ("Give it only if the dose is less than about 5 mg.", "if the dose is ... about 5 mg"),
        ("The dose is halved below eGFR 30 in adults.", "The dose is ... eGFR 30 in adults"),
        ("The dose must stay below 300 mg in adults.", "The dose must stay ... 300 mg in adults"),
        ("Use heparin rather than warfarin in adults.", "Use heparin ... warfarin in adults"),
        ("Use heparin instead of warfarin in adults.", "Use heparin ... warfarin in adults"),
        # the same words stand elsewhere too, as something else
        ("In 12 of the men younger than 60 - in 22 of the men of 60.", "In 12 of the men ... 60"),
        (
            "It is crushed if one cannot swallow. Swallow it whole.",
            "It is crushed if one ... swallow",
        ),
    ],
)
def test_what_denies_the_kept_words_is_not_left_out(passage: str, quote: str) -> None:
    assert verify_quote(quote, passage) is None


@pytest.mark.parametrize(
    ("passage", "quote"),
    [
        ("Give it daily. Do not crush it. Drink water.", "Give it daily. ... Drink water"),
        ("The dose of stage I non-small cell carcinoma.", "The dose of stage I ... carcinoma"),
        ("Adults older than 65 years take half of it.", "Adults ... take half of it"),
        ("It is seen between 5 and 10 days after it.", "It is seen ... 5 and 10 days after it"),
        ("It is halved below eGFR 30, then stopped.", "It is halved ... then stopped"),
        ("The total minimum lumen diameter was 5 mm.", "The total ... diameter was 5 mm"),
    ],
)
def test_what_denies_only_words_that_go_with_it_may(passage: str, quote: str) -> None:
    match = verify_quote(quote, passage)
    assert match is not None
    assert match.method == "elided"


@given(
    words=st.permutations(WORDS),
    denial=st.sampled_from(DENIALS),
    sizes=st.tuples(*[st.integers(2, 5)] * 2, *[st.integers(0, 3)] * 2),
    dots=st.sampled_from([" ... ", "…", " [...] "]),
)
def test_no_ellipsis_inside_a_sentence_swallows_a_denial(
    words: list[str], denial: str, sizes: tuple[int, int, int, int], dots: str
) -> None:
    kept_left, kept_right, left_out, right_out = sizes
    left, right = words[: kept_left + left_out], words[-kept_right - right_out :]
    sentence = " ".join([*left, denial, *right])
    quote = " ".join(left[:kept_left]) + dots + " ".join(right[right_out:])
    assert verify_quote(quote, f"Ask for help. {sentence}. Write it down.") is None
    assert verify_quote(quote, sentence.upper()) is None


@given(words=st.permutations(WORDS), denial=st.sampled_from(DENIALS), size=st.integers(2, 6))
def test_a_whole_sentence_goes_with_its_denial(words: list[str], denial: str, size: int) -> None:
    before, after = " ".join(words[:size]), " ".join(words[-size:])
    middle = f"{words[8]} {denial} {words[9]} {words[10]}"
    match = verify_quote(f"{before} ... {after}", f"{before}. {middle}. {after}.")
    assert match is not None
    assert match.method == "elided"
