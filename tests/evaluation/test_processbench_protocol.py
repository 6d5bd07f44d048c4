"""ProcessBench's protocol against stated cases, scikit-learn and an obvious slow reference."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score  # type: ignore[import-untyped]

from evaluation.evaluated import EvaluatedTrace
from evaluation.protocols.processbench import evaluate_processbench
from tests.evaluation.builders import (
    ABSTAINED,
    N_STEPS,
    first,
    first_errors,
    scores,
    trace,
    verdicts,
)


def cases(real_data: Path, function: str) -> list[dict[str, Any]]:
    found = [
        case
        for case in json.loads((real_data / "metric_cases.json").read_text())["cases"]
        if case["function"] == function
    ]
    assert found
    return found


def test_stated_cases(real_data: Path) -> None:
    for case in cases(real_data, "processbench_f1"):
        traces = first_errors(case["input"]["labels"], case["input"]["preds"])
        # An empty dataset has no subset, only an average over none.
        report = evaluate_processbench(traces, resamples=10)
        found = report.subsets["default"] if traces else report.average
        expected = case["expected"]
        assert (found.n_error, found.n_correct) == (expected["n_error"], expected["n_correct"]), (
            case["id"]
        )
        for value, name in (
            (found.error_accuracy, "acc_error"),
            (found.correct_accuracy, "acc_correct"),
            (found.processbench_f1, "f1"),
        ):
            assert value.value == pytest.approx(expected[name], abs=1e-9), case["id"]


def test_the_average_is_not_weighted(real_data: Path) -> None:
    (case,) = cases(real_data, "processbench_average")
    traces = [
        each
        for number, subset in enumerate(case["input"]["subsets"])
        for each in first_errors(subset["labels"], subset["preds"], subset=f"s{number}")
    ]
    assert evaluate_processbench(
        traces, resamples=10
    ).average.processbench_f1.value == pytest.approx(case["expected"], abs=1e-9)


def test_a_score_equal_to_the_threshold_is_correct(real_data: Path) -> None:
    case = next(
        case for case in cases(real_data, "first_error_from_scores") if case["id"] == "17_thr_tie"
    )
    label = scores(case["input"]["scores"])
    report = evaluate_processbench(
        [trace(first(case["expected"]), label)], case["input"]["threshold"], resamples=10
    )
    assert report.average.error_accuracy.value == 1.0


numbers = st.integers(-1, N_STEPS - 1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(numbers, st.none() | numbers, st.sampled_from("ab")), max_size=25))
def test_agrees_with_the_formula_said_aloud(rows: list[tuple[int, int | None, str]]) -> None:
    traces = [
        each
        for label, predicted, subset in rows
        for each in first_errors([label], [predicted], subset=subset)
    ]
    report = evaluate_processbench(traces, resamples=5)
    f1s: list[float | None] = []
    for subset in sorted({subset for *_, subset in rows}):
        group = [(label, predicted) for label, predicted, name in rows if name == subset]
        # Missing is spelled -2: it is no label, so it is wrong and stays in the denominator.
        wrong = [(label, -2 if said is None else said) for label, said in group if label != -1]
        right = [(label, -2 if said is None else said) for label, said in group if label == -1]
        error, correct = (
            float(accuracy_score(*zip(*part, strict=True))) if part else None
            for part in (wrong, right)
        )
        f1 = (
            None
            if error is None or correct is None
            else 0.0
            if error + correct == 0
            else statistics.harmonic_mean([error, correct])
        )
        found = report.subsets[subset]
        assert found.error_accuracy.value == pytest.approx(error)
        assert found.correct_accuracy.value == pytest.approx(correct)
        assert found.processbench_f1.value == pytest.approx(f1)
        assert found.missing == sum(said is None for _, said in group)
        kept = [label == said for label, said in group if said is not None]
        assert found.kept.n == len(kept)
        assert found.kept.share.value == pytest.approx(len(kept) / len(group))
        assert found.kept.first_error_precision.value == (
            pytest.approx(sum(kept) / len(kept)) if kept else None
        )
        f1s.append(f1)
    known = [f1 for f1 in f1s if f1 is not None]
    average = sum(known) / len(known) if known and len(known) == len(f1s) else None
    assert report.average.processbench_f1.value == pytest.approx(average)


def test_both_accuracies_zero_give_zero_and_an_empty_group_gives_null() -> None:
    nothing_right = evaluate_processbench(first_errors([0, -1], [1, 0]), resamples=50)
    assert nothing_right.average.processbench_f1.value == 0.0
    no_errors = evaluate_processbench(first_errors([-1, -1], [-1, 0]), resamples=50)
    assert (no_errors.average.processbench_f1.value, no_errors.average.processbench_f1.ci95) == (
        None,
        None,
    )
    assert no_errors.average.error_accuracy.value is None
    assert no_errors.average.correct_accuracy.value == 0.5


def test_one_undefined_subset_makes_the_average_null() -> None:
    traces = first_errors([0, -1], [0, -1], subset="a") + first_errors([-1], [-1], subset="b")
    average = evaluate_processbench(traces, resamples=50).average
    assert (average.processbench_f1.value, average.processbench_f1.ci95) == (None, None)


@pytest.mark.parametrize(
    ("predicted", "hit", "missing"),
    [
        (verdicts([1, 0, -1, 1]), 1, 0),
        (verdicts([1, None, -1, 1]), 0, 1),
        (verdicts([1, 1, -1, None]), 1, 0),
        (scores([0.9, 0.5, 0.49, 0.0]), 1, 0),
        (scores([0.9, 0.4, 0.1, 0.0]), 0, 0),
        (ABSTAINED, 0, 1),
        (None, 0, 1),
    ],
)
def test_the_first_error_of_a_labeler(predicted: Any, hit: int, missing: int) -> None:
    report = evaluate_processbench([trace(first(2), predicted, n_steps=4)], resamples=5)
    assert (report.average.error_accuracy.value, report.average.missing) == (hit, missing)


def test_traces_without_usable_truth_are_counted_and_left_out() -> None:
    traces = [
        trace(ABSTAINED, first(0), id="a"),
        trace(None, first(0), id="b"),
        trace(verdicts([1, None, -1]), first(2), id="c"),
        trace(first(0), first(0), id="d"),
    ]
    report = evaluate_processbench(traces, resamples=5)
    assert (report.gold_unusable, report.gold_missing) == (2, 1)
    assert report.average.n_error == 1
    assert "3 traces without usable gold" in report.table("judge")


def test_the_document_is_that_of_the_contract() -> None:
    traces = first_errors([0, -1, 3], [0, -1, None], subset="gsm8k")
    document = evaluate_processbench(traces, 0.4, 3).as_json(
        dataset="pb", labeler="judge", gold="gold"
    )
    subset = document["subsets"].pop("gsm8k")
    assert {key: document[key] for key in ("protocol", "dataset", "labeler", "gold", "threshold", "threshold_source")} == {
        "protocol": "processbench", "dataset": "pb", "labeler": "judge", "gold": "gold", "threshold": 0.4, "threshold_source": "given",
    }  # fmt: skip
    assert subset.keys() >= {
        "n_error", "n_correct", "error_accuracy", "correct_accuracy", "processbench_f1", "ci95", "missing", "kept",
    }  # fmt: skip
    assert subset["kept"].keys() >= {"n", "share", "first_error_precision", "ci95"}
    assert document["average"].keys() >= {"processbench_f1", "ci95", "kept"}
    assert document["average"]["kept"] == subset["kept"]
    assert (
        subset["error_accuracy"],
        subset["correct_accuracy"],
        subset["missing"],
        subset["kept"]["n"],
    ) == (0.5, 1.0, 1, 2)
    assert len(subset["ci95"]) == 2
    json.dumps(document, allow_nan=False)


def test_nothing_to_evaluate_is_null_everywhere() -> None:
    document = evaluate_processbench([]).as_json(dataset="d", labeler="l", gold="g")
    assert document["subsets"] == {}
    average, kept = document["average"], document["average"]["kept"]
    assert [average["processbench_f1"], average["ci95"]] == [None, None]
    assert [kept[key] for key in ("n", "share", "first_error_precision", "ci95")] == [
        0,
        *[None] * 3,
    ]


def test_oracle_and_constant_predictions_on_the_real_labels(real_data: Path) -> None:
    rows = json.loads((real_data / "processbench" / "gsm8k.json").read_text())
    labels = [row["label"] for row in rows]

    def against(predictions: list[int]) -> list[EvaluatedTrace]:
        return [
            trace(first(label), first(said), id=str(i), n_steps=99)
            for i, (label, said) in enumerate(zip(labels, predictions, strict=True))
        ]

    assert evaluate_processbench(against(labels)).average.processbench_f1.value == 1.0
    constant = evaluate_processbench(against([-1] * 400)).average
    assert (constant.processbench_f1.value, constant.correct_accuracy.value) == (0.0, 1.0)
    # The paper's floor: the best constant step hits 29.5% of the erroneous GSM8K traces.
    best = max(
        evaluate_processbench(against([step] * 400), resamples=5).average.error_accuracy.value or 0
        for step in range(8)
    )
    assert best == pytest.approx(0.295, abs=5e-4)
