"""Passages: offsets to the letter, no word lost, no sentence torn without need."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.documents import (
    cut_to_tokens,
    estimate_tokens,
    make_document,
    sentence_ends,
    split_document,
)
from traces.errors import InputError
from traces.evidence import Passage


def count_words(text: str) -> int:
    return len(text.split())


def split(text: str, target: int, overlap: int = 0, title: str = "Doc") -> list[Passage]:
    document = make_document("doc.md", title, text, "here")
    return split_document(
        document, corpus="c", target_tokens=target, overlap=overlap, count_tokens=count_words
    )


GUIDE = """# Warfarin

Start at 5 mg daily, e.g. in adults. Check the INR on day 3! Is it above 4? Hold one dose.

## Renal

### Severe

Reduce by 50%.

```
# not a heading
```

## Elderly

- Start low.
- Go slow
  and steady.
"""


def test_passages_follow_headings_and_carry_their_path() -> None:
    passages = split(GUIDE, 100, title="Warfarin")
    assert [passage.title for passage in passages] == [
        "Warfarin",
        "Warfarin -- Renal -- Severe",
        "Warfarin -- Elderly",
    ]
    assert passages[0].text.startswith("# Warfarin\n\nStart")
    assert passages[1].text.startswith("## Renal\n\n### Severe\n\nReduce")
    assert passages[1].text.endswith("# not a heading\n```")
    assert [passage.index for passage in passages] == [0, 1, 2]
    assert {(passage.corpus, passage.document) for passage in passages} == {("c", "doc.md")}
    assert split(GUIDE, 100, title="Dosing")[1].title == "Dosing -- Warfarin -- Renal -- Severe"
    assert split("No heading.", 100, title="")[0].title == ""


def test_sentences_stay_whole() -> None:
    texts = [passage.text for passage in split(GUIDE, 11)]
    assert texts[:3] == [
        "# Warfarin\n\nStart at 5 mg daily, e.g. in adults.",
        "Check the INR on day 3! Is it above 4?",
        "Hold one dose.",
    ]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One here. Two here.", ["One here.", "Two here."]),
        ('He said "stop." Then left.', ['He said "stop."', "Then left."]),
        ("Give 0.5 mg. Or 1.5 mg.", ["Give 0.5 mg.", "Or 1.5 mg."]),
        ("See Dr. Smith vs. Fig. 3 of it.", ["See Dr. Smith vs. Fig. 3 of it."]),
        ("Take it b.i.d. After meals it is.", ["Take it b.i.d. After meals it is."]),
        ("wrapped\nline here", ["wrapped\nline here"]),
        ("intro:\n- first\n- second", ["intro:", "- first", "- second"]),
        ("steps\n1. first\n2) second", ["steps", "1. first", "2) second"]),
        ("Age | Dose\n< 50 | 10 mg", ["Age | Dose", "< 50 | 10 mg"]),
        ("para one\n \npara two", ["para one", "para two"]),
        ("投与する。減量する。", ["投与する。", "減量する。"]),
    ],
)
def test_where_sentences_end(text: str, sentences: list[str]) -> None:
    # With a target of one token every sentence is cut, so count each sentence as one token.
    document = make_document("d", "", text, "")
    passages = split_document(document, corpus="c", target_tokens=1, count_tokens=lambda _: 1)
    assert [passage.text for passage in passages] == sentences


def test_overlap_repeats_whole_sentences() -> None:
    text = "A one two. B one two. C one two. D one two."
    assert [passage.text for passage in split(text, 8, overlap=4)] == [
        "A one two. B one two.",
        "B one two. C one two.",
        "C one two. D one two.",
    ]
    # What has no room beside the next sentence is not repeated.
    long = "A one two. B one two. C one two three four five six."
    assert [passage.text for passage in split(long, 8, overlap=4)] == [
        "A one two. B one two.",
        "C one two three four five six.",
    ]


def test_a_heading_never_stands_alone() -> None:
    passages = split("# Dose\n\n" + "word " * 30 + "end.", 10)
    assert passages[0].text.startswith("# Dose\n\nword")
    assert all(count_words(passage.text) <= 10 for passage in passages)
    assert split("text\n\n# Only", 10)[1].text == "# Only"


@pytest.mark.parametrize(("target", "overlap"), [(0, 0), (10, 10), (10, -1)])
def test_impossible_lengths_are_refused(target: int, overlap: int) -> None:
    with pytest.raises(InputError, match="overlap"):
        split("text", target, overlap)


markup = st.sampled_from(
    ["# H\n", "## H2\n", "\n", "\n\n", " ", ". ", "? ", "- ", "\t", " | ", "```\n"]
)
words = st.text(alphabet="abAB12.,;é漢\u00a0\u2028\x1f", min_size=1, max_size=12)
anything = st.lists(st.one_of(markup, words, st.text(max_size=5)), max_size=60).map("".join)
texts = anything.map(lambda text: text.replace("\x00", "").encode(errors="replace").decode())


@given(texts.filter(lambda text: bool(text.strip())), st.integers(1, 30), st.integers(0, 29))
def test_offsets_are_exact_and_no_character_is_lost(text: str, target: int, overlap: int) -> None:
    overlap = min(overlap, target - 1)
    document = make_document("d", "T", text, "")
    passages = split_document(
        document, corpus="c", target_tokens=target, overlap=overlap, count_tokens=count_words
    )
    covered = [False] * len(document.text)
    before = -1
    for passage in passages:
        assert document.text[passage.start : passage.end] == passage.text
        assert passage.text == passage.text.strip() != ""
        assert passage.start > before
        assert overlap or not any(covered[passage.start : passage.end])
        assert count_words(passage.text) <= target
        before = passage.start
        covered[passage.start : passage.end] = [True] * len(passage.text)
    assert all(seen or char.isspace() for seen, char in zip(covered, document.text, strict=True))


@given(st.text(alphabet="ab .,\n-漢", max_size=200), st.integers(1, 12))
def test_pieces_keep_to_the_limit_and_to_the_text(text: str, limit: int) -> None:
    spans = cut_to_tokens(text, limit, estimate_tokens)
    assert all(estimate_tokens(text[start:end]) <= limit for start, end in spans)
    kept = "".join(text[start:end] for start, end in spans)
    assert "".join(kept.split()) == "".join(text.split())


def test_the_estimate_counts_letters_signs_and_foreign_letters() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("dose") == 1
    assert estimate_tokens("contraindicated") == 3
    assert estimate_tokens("INR >= 2.5, μg") == 1 + 2 + 3 + 1 + 2


@pytest.mark.parametrize(
    "sentences",
    [
        ["고혈압은 흔하다. ", "약을 쓴다! ", "140 이상인가?"],
        ["患者应停药。", "如果出现皮疹，应立即停药！", "老年患者？"],
        ["「投与する。」", "発疹が出た。"],
        ["दवा दें। ", "फिर रुकें।"],
        ["Принимать по 5 мг. ", "Не более 10 мг."],
        ["Take approx. 5 mg. ", "Ésta es otra. ", "«Otra» más."],
    ],
)
def test_sentences_end_in_every_script(sentences: list[str]) -> None:
    text = "".join(sentences)
    ends = sentence_ends(text)
    starts = [0, *ends[:-1]]
    assert [text[a:b].strip() for a, b in zip(starts, ends, strict=True)] == [
        sentence.strip() for sentence in sentences
    ]
