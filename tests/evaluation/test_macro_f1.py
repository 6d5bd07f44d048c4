"""Macro F1 over steps against scikit-learn and the rules for silence, neutral steps and bare first errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score  # type: ignore[import-untyped]

from evaluation.protocols.macro_f1 import evaluate_macro_f1, step_accuracy
from tests.evaluation.builders import ABSTAINED, first, scores, trace, verdicts
from tests.evaluation.test_processbench_protocol import cases


def test_stated_cases(real_data: Path) -> None:
    for case in cases(real_data, "macro_f1_steps"):
        gold, predicted = case["input"]["gold"], case["input"]["pred"]
        traces = [trace(verdicts(gold), verdicts(predicted))] if gold else []
        found = evaluate_macro_f1(traces, resamples=10).overall.macro_f1.value
        assert found == pytest.approx(case["expected"], abs=1e-9), case["id"]


step = st.tuples(st.sampled_from([1, 0, -1]), st.sampled_from([1, 0, -1, None]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(step, min_size=1, max_size=6), min_size=1, max_size=8))
def test_agrees_with_scikit_learn(rows: list[list[tuple[int, int | None]]]) -> None:
    traces = [
        trace(verdicts([g for g, _ in steps]), verdicts([p for _, p in steps]), id=str(i))
        for i, steps in enumerate(rows)
    ]
    pooled = [pair for steps in rows for pair in steps if pair[0] != 0]
    truth = [gold for gold, _ in pooled]
    # Silence counts as the other class, neutral as no error.
    called = [-gold if said is None else 1 if said == 0 else said for gold, said in pooled]
    overall = evaluate_macro_f1(traces, resamples=5).overall
    expected = (
        float(f1_score(truth, called, labels=[1, -1], average="macro", zero_division=0))
        if truth
        else None
    )
    assert overall.macro_f1.value == pytest.approx(expected)
    if truth:
        each = f1_score(truth, called, labels=[1, -1], average=None, zero_division=0)
        assert [overall.f1_correct.value, overall.f1_incorrect.value] == pytest.approx(list(each))
    assert overall.n_correct == truth.count(1)
    assert overall.n_incorrect == truth.count(-1)
    assert overall.n_neutral == sum(gold == 0 for steps in rows for gold, _ in steps)
    assert overall.missing == sum(said is None for _, said in pooled)
    agree = sum(gold == said for gold, said in zip(truth, called, strict=True))
    assert step_accuracy(traces) == (pytest.approx(agree / len(truth)) if truth else None)


def test_steps_behind_a_bare_first_error_are_not_scored() -> None:
    overall = evaluate_macro_f1([trace(first(1), verdicts([1, -1, -1, 1]))], resamples=5).overall
    assert (overall.n_correct, overall.n_incorrect, overall.macro_f1.value) == (1, 1, 1.0)
    clean = evaluate_macro_f1([trace(first(-1), verdicts([1, -1, 1, 1]))], resamples=5).overall
    assert (clean.n_correct, clean.n_incorrect) == (4, 0)
    assert clean.f1_incorrect.value == 0.0


def test_a_labeler_that_names_the_first_error_only_is_silent_behind_it() -> None:
    overall = evaluate_macro_f1([trace(verdicts([1, -1, -1, 1]), first(1))], resamples=5).overall
    assert overall.missing == 2
    assert overall.f1_correct.value == pytest.approx(0.5)
    assert overall.f1_incorrect.value == pytest.approx(0.5)


def test_scores_become_calls_at_the_threshold() -> None:
    traces = [trace(verdicts([1, 1, -1]), scores([0.9, 0.6, 0.59]))]
    assert step_accuracy(traces, 0.6) == 1.0
    assert step_accuracy(traces, 0.61) == pytest.approx(2 / 3)


def test_a_missing_label_is_the_other_class_everywhere() -> None:
    for absent in (None, ABSTAINED):
        report = evaluate_macro_f1([trace(verdicts([1, -1]), absent)], resamples=5)
        assert (report.overall.macro_f1.value, report.overall.missing) == (0.0, 2)


def test_unusable_gold_is_counted_and_left_out() -> None:
    report = evaluate_macro_f1(
        [trace(ABSTAINED, first(0)), trace(None, first(0)), trace(verdicts([1]), verdicts([1]))]
    )
    assert (report.gold_unusable, report.gold_missing, report.overall.n_correct) == (1, 1, 1)
    assert "2 traces without usable gold" in report.table("prm")


def test_labels_of_another_length_are_never_lined_up() -> None:
    with pytest.raises(ValueError, match="3 step labels for the 2 steps of trace 't'"):
        evaluate_macro_f1([trace(verdicts([1, 1]), verdicts([1, 1, 1]))])


def test_the_document_is_that_of_the_contract() -> None:
    traces = [
        trace(verdicts([1, -1]), verdicts([1, 1]), subset="b"),
        trace(verdicts([1]), None, id="u", subset="a"),
    ]
    document = evaluate_macro_f1(traces).as_json(dataset="d", labeler="l", gold="gold")
    contract = {
        "macro_f1",
        "f1_correct",
        "f1_incorrect",
        "n_correct",
        "n_incorrect",
        "n_neutral",
        "missing",
    }
    assert document["overall"].keys() >= contract | {"ci95"}
    assert list(document["subsets"]) == ["a", "b"]
    assert document["subsets"]["a"].keys() >= contract | {"ci95"}
    json.dumps(document, allow_nan=False)


def test_nothing_to_score_is_null() -> None:
    overall = evaluate_macro_f1([]).overall
    assert (overall.macro_f1.value, overall.macro_f1.ci95, overall.step_accuracy.value) == (
        None,
        None,
        None,
    )
    assert step_accuracy([]) is None
