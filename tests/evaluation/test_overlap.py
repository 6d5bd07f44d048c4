"""Contamination: n-grams against sets of tuples, ids, short texts, passages."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.overlap import EvaluatedProblem, TrainingRow, Vocabulary, Words, find_overlap
from traces.errors import InputError

text = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=14).map(" ".join)


def problem(question: str, *solutions: str, id: str = "p") -> EvaluatedProblem:
    return EvaluatedProblem(
        id, question, tuple(f"{id}:{i}" for i in range(len(solutions))), solutions
    )


def row(*texts: str, ids: tuple[str, ...] = (), line: int = 1) -> TrainingRow:
    return TrainingRow("train.jsonl", line, ids, texts)


def grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


@settings(max_examples=30, deadline=None)
@given(st.lists(text, min_size=1, max_size=4), st.lists(text, max_size=4), st.integers(1, 5))
def test_shares_are_those_of_sets_of_tuples(
    questions: list[str], training: list[str], n: int
) -> None:
    problems = [problem(question, id=str(i)) for i, question in enumerate(questions)]
    report = find_overlap(problems, [row(one) for one in training], ngram=n)
    known = {gram for one in training for gram in grams(one.split(), n)}
    shares = {match.problem_id: match.question_share for match in report.matches}
    for i, question in enumerate(questions):
        words = question.split()
        if 0 < len(words) < n:
            expected = float(words in [one.split() for one in training])
        else:
            own = grams(words, n)
            expected = sum(gram in known for gram in own) / len(own) if own else 0.0
        assert shares.get(str(i), 0.0) == pytest.approx(expected)
    assert report.training_rows == len(training)


def test_an_unknown_word_breaks_an_n_gram_and_case_does_not() -> None:
    report = find_overlap([problem("Give the drug now")], [row("GIVE the, drug... NOW?")], ngram=3)
    assert report.matches[0].question_share == 1.0
    assert report.matches[0].passage == "Give the drug now"
    other = find_overlap([problem("Give the drug now")], [row("give the new drug now")], ngram=3)
    assert other.matches == ()


def test_a_vocabulary_may_grow_between_hashes() -> None:
    vocabulary = Vocabulary()
    vocabulary.add(Words.of("a b c"))
    before = vocabulary.hashes(["a", "b", "c"], 2)
    for number in range(50):
        vocabulary.add(Words.of(f"w{number}"))
    assert list(vocabulary.hashes(["a", "b", "c"], 2)) == list(before)


def test_the_longest_passage_is_told_with_its_row() -> None:
    question = "One two three four. Five six seven eight nine ten."
    report = find_overlap(
        [problem(question, id="q7")],
        [
            row("nothing here", line=1),
            row("x two THREE four five, six seven y", ids=("t2",), line=2),
        ],
        ngram=3,
    )
    (match,) = report.matches
    assert match.passage == "two three four. Five six seven"
    assert (match.source, match.line, match.training_id) == ("train.jsonl", 2, "t2")
    assert match.question_share == pytest.approx(4 / 8)
    assert "q7: 50% in train.jsonl:2" in report.table(5)


def test_n_grams_span_steps_whatever_stands_between_them() -> None:
    solution = "We add two.\nThen we halve it."
    for training in (
        row("Question?", "We add two.", "Then we halve it."),
        row("We add two. ки\nThen we halve it. ки"),
        row("We add two.<extra_0>Then we halve it.<extra_0>"),
    ):
        (match,) = find_overlap([problem("?", solution)], [training], ngram=6).matches
        assert match.solution_share == 1.0


def test_ids_are_found_without_any_text() -> None:
    report = find_overlap(
        [problem("What?", "So.", id="q1"), problem("Why?", id="q2")],
        [row("else", ids=("q1:0",)), row("other", ids=("zzz",))],
    )
    (match,) = report.matches
    assert (match.shared_ids, match.question_share, match.passage) == (("q1:0",), 0.0, "")
    assert report.counts()["by_id"] == 1
    assert report.as_json()["rate"] == 0.5
    assert "id q1:0" in report.table(5)


def test_a_short_question_counts_only_as_a_whole_field() -> None:
    asked = [problem("What is aspirin?")]
    assert find_overlap(asked, [row("I wonder what is aspirin? Well.")]).matches == ()
    report = find_overlap(asked, [row("Tell me.", "what is ASPIRIN")])
    assert report.matches[0].question_share == 1.0
    assert report.short_questions == 1


def test_nothing_to_compare_is_null_and_long_lists_are_cut_by_name() -> None:
    empty = find_overlap([], [])
    assert empty.as_json()["rate"] is None
    json.dumps(empty.as_json(), allow_nan=False)
    many = find_overlap([problem("?", id=str(i)) for i in range(9)], [row("", ids=tuple("012345678"))])  # fmt: skip
    assert "and 4 more (--json lists all)" in many.table(5)
    with pytest.raises(InputError, match="at least one word, not 0"):
        find_overlap([], [], ngram=0)


def test_a_text_without_spaces_has_a_word_for_each_character() -> None:
    found = Words.of("患者应停药0.5 mg")
    assert found.folded == ("患", "者", "应", "停", "药", "0", "5", "mg")
    assert found.excerpt(0, 4) == "患者应停药"
