"""Every stated metric case, through a thin table from the cases' function names to ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.best_of_n import (
    Pool,
    PoolCandidate,
    best_index,
    expected_best,
    majority,
    rewards,
    weighted_majority,
)
from evaluation.comparison import cohen_kappa, pearson
from evaluation.frames import REASON_KEY
from evaluation.measures import Estimate
from evaluation.protocols.macro_f1 import evaluate_macro_f1
from evaluation.protocols.mr_ben import evaluate_mr_ben
from evaluation.protocols.prmbench import evaluate_prmbench
from evaluation.protocols.processbench import evaluate_processbench
from evaluation.thresholds import threshold_sweep
from tests.evaluation.builders import first, first_errors, scores, trace, verdicts
from traces.labels import TraceLabel, first_error

TOLERANCE = 1e-9
FEW = 5
HOW = {"min": "min", "prod": "product", "last": "last", "mean": "mean"}


def processbench_f1(labels: Sequence[int], preds: Sequence[int]) -> dict[str, Any]:
    report = evaluate_processbench(first_errors(labels, preds), resamples=FEW)
    found = report.subsets["default"] if labels else report.average
    return {
        "n_error": found.n_error,
        "n_correct": found.n_correct,
        "acc_error": found.error_accuracy.value,
        "acc_correct": found.correct_accuracy.value,
        "f1": found.processbench_f1.value,
    }


def processbench_average(subsets: Sequence[Mapping[str, Any]]) -> float | None:
    traces = [
        one
        for number, part in enumerate(subsets)
        for one in first_errors(part["labels"], part["preds"], subset=f"s{number}")
    ]
    return evaluate_processbench(traces, resamples=FEW).average.processbench_f1.value


def first_error_from_scores(
    scores: Sequence[float], threshold: float, tie_is_correct: bool = True
) -> int | None:
    return first_error(scores_label(scores), threshold, tie_is_correct=tie_is_correct).index


scores_label = scores


def best_threshold(
    labels: Sequence[int], score_lists: Sequence[Sequence[float]]
) -> dict[str, float]:
    traces = [
        trace(first(label), scores_label(values), id=str(number))
        for number, (label, values) in enumerate(zip(labels, score_lists, strict=True))
    ]
    found = threshold_sweep(traces, "processbench_f1").best()
    assert found is not None
    return {"threshold": found[0], "f1": found[1]}


def critic_vote(parsed: Sequence[int | None]) -> int | None:
    voted = majority([None if said is None else str(said) for said in parsed])
    return None if voted is None else int(voted)


def macro_f1_steps(gold: Sequence[int], pred: Sequence[int], missing: str) -> float | None:
    assert missing == "wrong"  # the one rule we have
    traces = [trace(verdicts(gold), verdicts(pred))] if gold else []
    return evaluate_macro_f1(traces, resamples=FEW).overall.macro_f1.value


def prm_score(
    error_steps_1based: Sequence[Sequence[int]], step_valid: Sequence[Sequence[bool]]
) -> float | None:
    traces = [
        trace(
            verdicts([-1 if index + 1 in wrong else 1 for index in range(len(kept))]),
            verdicts([1 if good else -1 for good in kept]),
            id=str(number),
        )
        for number, (wrong, kept) in enumerate(zip(error_steps_1based, step_valid, strict=True))
    ]
    return evaluate_prmbench(traces, resamples=FEW).overall.prmscore.value


def mr_score(
    gold_correct: Sequence[bool],
    pred_correct: Sequence[bool],
    gold_step: Sequence[int | None],
    pred_step: Sequence[int | None],
    reason_ok: Sequence[bool],
) -> dict[str, float | None]:
    traces = []
    for number, right in enumerate(gold_correct):
        said = TraceLabel(
            str(number),
            first_error_given=True,
            first_error_index=pred_step[number],
            meta={REASON_KEY: reason_ok[number]},
        )
        assert right == (gold_step[number] is None)
        assert pred_correct[number] == (pred_step[number] is None)
        traces.append(trace(first(-1 if right else gold_step[number]), said, id=str(number)))
    found = evaluate_mr_ben(traces, resamples=FEW).overall
    return {
        "mcc": found.mcc.value,
        "acc_step": found.step_accuracy.value,
        "acc_reason": found.reason_accuracy.value,
        "mr_score": found.mr_score.value,
    }


def best_of_n(step_scores: Sequence[Sequence[float]], how: str) -> int | None:
    pool = Pool("p", tuple(PoolCandidate(None, True, tuple(values)) for values in step_scores))
    return best_index(rewards(pool, HOW[how]))


def best_of_n_expected(
    step_scores: Sequence[Sequence[float]], correct: Sequence[bool], how: str
) -> float | None:
    pool = Pool("p", tuple(PoolCandidate(None, True, tuple(values)) for values in step_scores))
    return expected_best(rewards(pool, HOW[how]), correct, len(correct))


def weighted_vote(answers: Sequence[str | None], rewards: Sequence[float]) -> str | None:
    return weighted_majority(answers, rewards)


def kappa(a: Sequence[int], b: Sequence[int]) -> float | None:
    return cohen_kappa(a, b)


def pearson_of(x: Sequence[float], y: Sequence[float]) -> float | None:
    return pearson(x, y)


OURS: Mapping[str, Callable[..., Any]] = {
    "processbench_f1": processbench_f1,
    "processbench_average": processbench_average,
    "first_error_from_scores": first_error_from_scores,
    "best_threshold": best_threshold,
    "critic_vote": critic_vote,
    "macro_f1_steps": macro_f1_steps,
    "prm_score": prm_score,
    "mr_score": mr_score,
    "best_of_n": best_of_n,
    "best_of_n_expected": best_of_n_expected,
    "majority_vote": majority,
    "weighted_vote": weighted_vote,
    "cohen_kappa": kappa,
    "pearson": pearson_of,
}


def assert_same(found: Any, expected: Any, name: str) -> None:
    """Numbers to nine digits; None, texts and keys exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key, value in expected.items():
            assert_same(found[key], value, f"{name} {key}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=TOLERANCE, rel=0), name
    else:
        assert found == expected, name


def test_every_stated_case_to_nine_digits(real_data: Path) -> None:
    cases = json.loads((real_data / "metric_cases.json").read_text())["cases"]
    assert len(cases) >= 30
    for case in cases:
        found = OURS[case["function"]](**case["input"])
        assert_same(found, case["expected"], case["id"])


def test_an_undefined_estimate_is_none_in_both_parts() -> None:
    assert evaluate_mr_ben([]).overall.mcc == Estimate(None, None)
    assert evaluate_prmbench([]).overall.prmscore == Estimate(None, None)
