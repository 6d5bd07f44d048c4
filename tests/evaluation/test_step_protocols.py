"""PRMBench, MR-Score and mistake location: rules, scikit-learn, and what is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, matthews_corrcoef  # type: ignore[import-untyped]

from evaluation.evaluated import EvaluatedTrace
from evaluation.frames import REASON_KEY
from evaluation.protocols.mistake import evaluate_mistake
from evaluation.protocols.mr_ben import evaluate_mr_ben
from evaluation.protocols.prmbench import evaluate_prmbench
from tests.evaluation.builders import (
    ABSTAINED,
    N_STEPS,
    first,
    first_errors,
    scores,
    trace,
    verdicts,
)
from traces.labels import TraceLabel

steps = st.lists(
    st.tuples(st.sampled_from([1, 0, -1]), st.sampled_from([1, 0, -1, None])),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), steps), min_size=1, max_size=8))
def test_prmscore_agrees_with_scikit_learn(
    rows: list[tuple[str, list[tuple[int, int | None]]]],
) -> None:
    traces = [
        trace(
            verdicts([g for g, _ in pairs]),
            verdicts([p for _, p in pairs]),
            id=str(i),
            subset=name,
        )
        for i, (name, pairs) in enumerate(rows)
    ]
    report = evaluate_prmbench(traces, resamples=5)
    for name, found in [*report.classes.items(), (None, report.overall)]:
        pooled = [pair for kind, pairs in rows if name in (kind, None) for pair in pairs if pair[0]]
        said = [(gold, 1 if call == 0 else call) for gold, call in pooled if call is not None]
        assert found.n_steps == len(pooled)
        assert found.missing_steps == len(pooled) - len(said)
        both = {sign for pair in said for sign in pair}
        expected: dict[int, float | None] = {1: None, -1: None}
        for sign in both:
            expected[sign] = float(
                f1_score(*zip(*said, strict=True), pos_label=sign, zero_division=0)
            )
        assert found.f1.value == pytest.approx(expected[1])
        assert found.f1_negative.value == pytest.approx(expected[-1])
        halves = [value for value in expected.values() if value is not None]
        assert found.prmscore.value == (pytest.approx(sum(halves) / 2) if len(both) == 2 else None)


def test_a_score_at_the_threshold_is_a_bad_step_in_prmbench_only() -> None:
    tie = [trace(verdicts([1, -1]), scores([0.9, 0.5]))]
    assert evaluate_prmbench(tie, resamples=5).overall.prmscore.value == 1.0
    assert evaluate_mistake(tie, resamples=5).overall.location_accuracy.value == 0.0


def test_the_class_without_bad_steps_is_scored_by_good_steps_alone() -> None:
    only_good = trace(verdicts([1, 1]), verdicts([1, -1]), id="m", subset="multi_solutions")
    report = evaluate_prmbench([only_good], resamples=5)
    found = report.classes["multi_solutions"]
    assert found.prmscore.value == found.f1.value == pytest.approx(2 / 3)
    assert found.f1_negative.value is None
    # Pooled it is a class like the others: its wrong call is a bad step that gold does not know.
    assert report.overall.f1_negative.value == 0.0


def test_untouched_originals_stand_apart_from_the_overall_figures() -> None:
    report = evaluate_prmbench(
        [
            trace(verdicts([1, -1]), verdicts([1, -1]), id="a", subset="circular"),
            trace(verdicts([1, 1]), verdicts([-1, -1]), id="b", subset="correct"),
        ],
        resamples=5,
    )
    assert (report.overall.n, report.overall.prmscore.value) == (1, 1.0)
    assert report.classes["correct"].f1.value == 0.0


def test_invalid_predictions_are_left_out_and_counted() -> None:
    gold = verdicts([1, -1])
    report = evaluate_prmbench(
        [
            trace(gold, verdicts([1, -1]), id="a"),
            trace(gold, None, id="b"),
            trace(gold, ABSTAINED, id="c"),
            trace(gold, verdicts([1, None]), id="d"),
            trace(ABSTAINED, verdicts([1, -1]), id="e"),
            trace(None, verdicts([1, -1]), id="f"),
        ],
        resamples=5,
    )
    document = report.as_json(dataset="d", labeler="l", gold="gold")
    assert document["overall"].items() >= {
        "prmscore": 1.0, "n": 4, "missing": 2, "n_steps": 8, "missing_steps": 5,
    }.items()  # fmt: skip
    assert document["validity_rate"] == 0.5
    assert (document["gold_unusable"], document["gold_missing"]) == (1, 1)
    assert document["classes"]["default"].keys() >= {
        "prmscore",
        "f1",
        "f1_negative",
        "n",
        "missing",
    }
    assert "0.500" in report.table("prm")
    json.dumps(document, allow_nan=False)


def labelled(index: int | None, *, missing: bool = False, reason: bool | None = None) -> Any:
    if missing:
        return None
    meta = {} if reason is None else {REASON_KEY: reason}
    return TraceLabel("t", first_error_given=True, first_error_index=index, meta=meta)


word = st.tuples(
    st.none() | st.integers(0, 2), st.none() | st.integers(0, 2), st.booleans(), st.booleans()
)


@settings(max_examples=25, deadline=None)
@given(st.lists(word, max_size=15))
def test_mr_score_agrees_with_the_formula_and_scikit_learn(
    rows: list[tuple[int | None, int | None, bool, bool]],
) -> None:
    traces = [
        trace(
            first(-1 if gold is None else gold),
            labelled(said, missing=missing, reason=reason),
            id=str(i),
        )
        for i, (gold, said, missing, reason) in enumerate(rows)
    ]
    found = evaluate_mr_ben(traces, resamples=5).overall
    right = [gold is None for gold, *_ in rows]
    # A missing prediction is the other class.
    called = [gold is not None if missing else said is None for gold, said, missing, _ in rows]
    if not rows:
        assert found.mcc.value is None
        return
    one_class = len(set(right)) == 1 or len(set(called)) == 1
    mcc = 0.0 if one_class else float(matthews_corrcoef(right, called))
    assert found.mcc.value == pytest.approx(mcc)
    wrong = [row for row in rows if row[0] is not None]
    hits = [(not missing and said == gold, reason) for gold, said, missing, reason in wrong]
    assert found.missing == sum(missing for *_, missing, _ in rows)
    if not wrong:
        assert (found.step_accuracy.value, found.mr_score.value) == (None, None)
        return
    step = sum(hit for hit, _ in hits) / len(wrong)
    reason = sum(hit and ok for hit, ok in hits) / len(wrong)
    assert found.step_accuracy.value == pytest.approx(step)
    assert found.reason_accuracy.value == pytest.approx(reason)
    assert found.mr_score.value == pytest.approx(0.2 * max(0, mcc) + 0.3 * step + 0.5 * reason)


def test_without_a_word_on_the_reasons_there_is_no_mr_score() -> None:
    traces = [
        trace(first(1), labelled(1), id="a"),
        trace(first(1), labelled(0), id="b"),
        trace(first(-1), labelled(None), id="c"),
    ]
    report = evaluate_mr_ben(traces, resamples=5)
    overall = report.overall
    assert (overall.mr_score.value, overall.reason_accuracy.value, overall.reason_missing) == (
        None,
        None,
        1,
    )
    assert overall.step_accuracy.value == 0.5
    assert overall.mcc.value == 1.0
    assert "the reasons of 1 right steps were not assessed" in report.table("judge")
    document = report.as_json(dataset="d", labeler="l", gold="g")
    assert document["subsets"]["default"]["mcc"] == 1.0
    assert document["overall"]["mr_score"] is document["overall"]["ci95"] is None
    json.dumps(document, allow_nan=False)


def test_the_published_mr_score_is_ours() -> None:
    # GPT-4-Turbo of MR-GSM8K: .2 x 63.3 + .3 x 48.8 + .5 x 46.3 = 50.45 (table: 50.5).
    assert pytest.approx(50.45) == 0.2 * 63.3 + 0.3 * 48.8 + 0.5 * 46.3
    # 1,000 solutions made to those parts; MCC .632 from a balanced confusion of 816 : 184.
    wrong: list[tuple[int | None, int | None, bool]] = [(0, 0, index < 463) for index in range(488)]
    wrong += [(0, 1, False)] * 328
    wrong += [(0, None, False)] * 184
    right: list[tuple[int | None, int | None, bool]] = [(None, None, False)] * 816
    right += [(None, 0, False)] * 184
    traces: list[EvaluatedTrace] = [
        trace(first(-1 if gold is None else gold), labelled(said, reason=ok), id=str(i))
        for i, (gold, said, ok) in enumerate(wrong + right)
    ]
    found = evaluate_mr_ben(traces, resamples=5).overall
    assert found.mr_score.value == pytest.approx(0.2 * 0.632 + 0.3 * 0.488 + 0.5 * 0.463)


numbers = st.integers(-1, N_STEPS - 1)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(numbers, st.none() | numbers), max_size=20))
def test_mistake_location_is_one_accuracy(rows: list[tuple[int, int | None]]) -> None:
    traces = first_errors([gold for gold, _ in rows], [said for _, said in rows])
    overall = evaluate_mistake(traces, resamples=5).overall
    hits = sum(gold == said for gold, said in rows)
    assert overall.location_accuracy.value == (pytest.approx(hits / len(rows)) if rows else None)
    assert overall.missing == sum(said is None for _, said in rows)
    assert (overall.n, overall.n_error) == (len(rows), sum(gold != -1 for gold, _ in rows))


def test_mistake_location_has_the_split_of_processbench_beside_it() -> None:
    report = evaluate_mistake(
        [
            *first_errors([0, 1, -1], [0, 0, -1], subset="a"),
            *first_errors([2], [None], subset="b"),
            trace(ABSTAINED, first(0), id="u"),
        ],
        resamples=50,
    )
    document = report.as_json(dataset="d", labeler="l", gold="g")
    assert document["overall"]["location_accuracy"] == 0.5
    assert document["subsets"]["a"]["error_accuracy"] == 0.5
    assert document["subsets"]["a"]["correct_accuracy"] == 1.0
    assert document["subsets"]["b"]["processbench_f1"] is None
    assert document["gold_unusable"] == 1
    assert "1 traces without usable gold left out" in report.table("l")
    json.dumps(document, allow_nan=False)
