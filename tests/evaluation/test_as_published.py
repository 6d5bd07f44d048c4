"""Official scripts transcribed independently, from their rules over raw rows, quirks included."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation import EvaluatedTrace, Published, protocol_named
from formats import read_file
from traces import ImportedTrace, StepLabel, TraceLabel

CLOSE = 1e-9
Row = dict[str, Any]
Scores = Mapping[str, Sequence[float] | None]
"""A labeler's step scores by trace id; None where it has none."""


def evaluated(format: str, path: Path, scores: Scores, *, reasons: bool = False) -> Any:
    """The file as our importer reads it, with a labeler's scores."""
    found = []
    for row in read_file(format, path):
        if not isinstance(row, ImportedTrace):
            continue
        given = scores[row.trace.id]
        meta = {"reason_correct": sum(map(len, row.trace.steps)) % 3 == 0} if reasons else {}
        found.append(
            EvaluatedTrace(
                row.trace.id,
                row.problem.id,
                row.trace.subset,
                len(row.trace.steps),
                row.labels[0][1],
                None
                if given is None
                else TraceLabel(row.trace.id, tuple(StepLabel(score=s) for s in given), meta=meta),
            )
        )
    return found


def drawn_scores(lengths: Mapping[str, int], seed: int, *, missing: float = 0.1) -> Scores:
    """Scores in steps of 0.25, so that some equal the threshold."""
    rng = random.Random(seed)
    return {
        id: None
        if rng.random() < missing
        else [rng.choice((0.25, 0.5, 0.75, 1.0, 1.0)) for _ in range(n)]
        for id, n in lengths.items()
    }


def same(found: Published, expected: Mapping[str, Mapping[str, float]], overall: float) -> None:
    lead = {"processbench_f1", "prmscore", "mr_score"} & found.overall.keys()
    value = found.overall[lead.pop()]
    assert (value is None) == math.isnan(overall)
    assert value is None or value == pytest.approx(overall, abs=CLOSE)
    assert found.subsets.keys() == expected.keys()
    for name, figures in expected.items():
        for measure, figure in figures.items():
            ours = found.subsets[name][measure]
            assert (ours is None) == math.isnan(figure), (name, measure)
            assert ours is None or ours == pytest.approx(figure, abs=CLOSE), (name, measure)


# ProcessBench: mean(prediction == label) in both groups by numpy, then 2ab / (a + b), in percent.


def processbench_script(rows: Sequence[Row], scores: Scores) -> tuple[dict[str, Any], float]:
    split: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        split[row["subset"]].append(row)
    figures = {}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, part in split.items():
            hits: dict[bool, list[bool]] = {True: [], False: []}
            for row in part:
                given = scores[row["id"]]
                prediction: int | None = None
                if given is not None:
                    wrong = [i for i, score in enumerate(given) if score < 0.5]
                    prediction = wrong[0] if wrong else -1
                hits[row["label"] != -1].append(prediction == row["label"])
            error, correct = (np.float64(np.mean(hits[kind]) * 100) for kind in (True, False))
            f1 = 2 * error * correct / (error + correct)
            figures[name] = {
                "error_accuracy": float(error) / 100,
                "correct_accuracy": float(correct) / 100,
                "processbench_f1": float(f1) / 100,
            }
        average = float(np.mean([each["processbench_f1"] for each in figures.values()]))
    return figures, average


def processbench_file(folder: Path, seed: int, *, never_right: bool = False) -> list[Row]:
    rng = random.Random(seed)
    rows = []
    for number in range(120):
        n = rng.randint(1, 8)
        rows.append(
            {
                "id": f"r-{number}",
                "generator": "g",
                "problem": f"What is {number}?",
                "steps": [f"Step {i}" for i in range(n)],
                "final_answer_correct": True,
                "label": n - 1 if never_right else rng.choice([-1, *range(n)]),
                "subset": "ab"[number % 2],
            }
        )
    for name in "ab":
        part = [row for row in rows if row["subset"] == name]
        (folder / f"{name}.json").write_text(json.dumps(part))
    return rows


def read_parts(folder: Path, scores: Scores) -> list[EvaluatedTrace]:
    return [
        replace(trace, subset=name)
        for name in "ab"
        for trace in evaluated("processbench", folder / f"{name}.json", scores)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_processbench_on_random_labels(tmp_path: Path, seed: int) -> None:
    rows = processbench_file(tmp_path, seed)
    scores = drawn_scores({row["id"]: len(row["steps"]) for row in rows}, seed)
    expected, average = processbench_script(rows, scores)
    publish = protocol_named("processbench").as_published
    assert publish is not None
    same(publish(read_parts(tmp_path, scores), 0.5), expected, average)


def test_processbench_gives_nan_where_strict_gives_zero(tmp_path: Path) -> None:
    rows = processbench_file(tmp_path, 3)
    scores: Scores = {row["id"]: None for row in rows}
    expected, average = processbench_script(rows, scores)
    assert math.isnan(average)
    protocol = protocol_named("processbench")
    traces = read_parts(tmp_path, scores)
    assert protocol.as_published is not None
    found = protocol.as_published(traces, 0.5)
    same(found, expected, average)
    assert any("divides 0 by 0" in cause for cause in found.causes)
    strict = protocol.evaluate(traces, resamples=1).as_json(dataset="d", labeler="l", gold="gold")
    document = found.as_json(strict, whole_key="average", groups_key="subsets")
    assert {
        "group": "average",
        "measure": "processbench_f1",
        "strict": 0.0,
        "published": None,
        "difference": None,
    } in document["differences"]


@pytest.mark.slow
def test_processbench_on_real_labels(real_data: Path) -> None:
    path = real_data / "processbench" / "gsm8k.json"
    rows = [row | {"subset": "default"} for row in json.loads(path.read_text())]
    scores = drawn_scores({row["id"]: len(row["steps"]) for row in rows}, 1)
    expected, average = processbench_script(rows, scores)
    publish = protocol_named("processbench").as_published
    assert publish is not None
    same(publish(evaluated("processbench", path, scores), 0.5), expected, average)


# PRMBench: counts over the labels of a trace, -1 for every undefined ratio.


def prmbench_script(rows: Sequence[Row], scores: Scores) -> tuple[dict[str, Any], float]:
    matrix: dict[str, dict[str, int]] = {}
    for row in rows:
        for group in (row["classification"], None):
            counts = matrix.setdefault(str(group), dict.fromkeys(("TP", "FP", "TN", "FN"), 0))
            given = scores[f"{row['classification']}_{row['idx']}"]
            bad = [number - 1 for number in row["error_steps"]]
            for index, score in enumerate(given or ()):
                good = score > 0.5
                kind = ("FP" if good else "TN") if index in bad else ("TP" if good else "FN")
                counts[kind] += 1

    def f1(hit: int, false: int, missed: int) -> float:
        precision = hit / (hit + false) if hit + false != 0 else -1
        recall = hit / (hit + missed) if hit + missed != 0 else -1
        total = precision + recall
        return 2 * precision * recall / total if total != 0 else -1

    figures = {}
    for name, counts in matrix.items():
        tp, fp, tn, fn = (counts[kind] for kind in ("TP", "FP", "TN", "FN"))
        of_good, of_bad = f1(tp, fp, fn), f1(tn, fn, fp)
        score = of_good if name == "multi_solutions" else 0.5 * of_good + 0.5 * of_bad
        figures[name] = {"prmscore": score, "f1": of_good}
        if name != "multi_solutions":
            figures[name]["f1_negative"] = of_bad
    overall = figures.pop("None")["prmscore"]
    return figures, overall


def prmbench_file(path: Path, seed: int) -> list[Row]:
    """Some error steps are outside the process, in some traces all of them."""
    rng = random.Random(seed)
    rows = []
    for number in range(150):
        n = rng.randint(2, 8)
        kind = ("circular", "deception", "multi_solutions")[number % 3]
        outside = [n + 2] if rng.random() < 0.2 else []
        inside = [] if rng.random() < 0.3 else rng.sample(range(1, n + 1), rng.randint(1, 2))
        row: Row = {
            "modified_question": f"What is {number}?",
            "modified_process": [f"Step {i}" for i in range(n)],
            "error_steps": [] if kind == "multi_solutions" else [*inside, *outside],
            "idx": f"p_{number}",
            "classification": kind,
        }
        rows.append(row)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_prmbench_on_random_labels(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "rows.jsonl"
    rows = prmbench_file(path, seed)
    ids = {f"{row['classification']}_{row['idx']}": len(row["modified_process"]) for row in rows}
    scores = drawn_scores(ids, seed)
    expected, overall = prmbench_script(rows, scores)
    publish = protocol_named("prmbench").as_published
    assert publish is not None
    found = publish(evaluated("prmbench", path, scores), 0.5)
    same(found, expected, overall)
    assert any("outside the process count as wholly correct" in cause for cause in found.causes)


def test_prmbench_gives_minus_one_where_a_ratio_is_undefined(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = prmbench_file(path, 1)
    for row in rows:
        row["error_steps"] = []
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    scores = {f"{r['classification']}_{r['idx']}": [0.9] * len(r["modified_process"]) for r in rows}
    expected, overall = prmbench_script(rows, scores)
    assert overall == 0.0
    publish = protocol_named("prmbench").as_published
    assert publish is not None
    found = publish(evaluated("prmbench", path, scores), 0.5)
    same(found, expected, overall)
    assert found.overall["f1_negative"] == -1
    assert any("-1" in cause for cause in found.causes)


@pytest.mark.slow
def test_prmbench_on_real_labels(real_data: Path) -> None:
    for kind in ("circular", "deception"):
        path = real_data / "prmbench" / f"prm800k_test_p1_4o_{kind}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        ids = {
            f"{row['classification']}_{row['idx']}": len(row["modified_process"]) for row in rows
        }
        scores = drawn_scores(ids, 2)
        expected, overall = prmbench_script(rows, scores)
        publish = protocol_named("prmbench").as_published
        assert publish is not None
        same(publish(evaluated("prmbench", path, scores), 0.5), expected, overall)


# MR-Ben: per subject, then the plain mean; the error step is the number written in the line.


def mr_ben_script(
    rows: Sequence[Row], traces: Sequence[EvaluatedTrace]
) -> tuple[dict[str, Any], float]:
    predicted = {trace.trace_id: trace for trace in traces}
    by_subject: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_subject[row["Subject"]].append(row)
    figures = {}
    for subject, part in by_subject.items():
        tp = tn = hits = reasons = right = wrong = 0
        for row in part:
            trace = predicted[f"{row['Question_UUID']}:{row['Sampled_Model']}"]
            right += row["Model_Solution_Correctness"] == "correct"
            wrong += row["Model_Solution_Correctness"] == "incorrect"
            if trace.predicted is None:
                continue  # an unread reply matches neither word
            low = [i for i, s in enumerate(trace.predicted.step_labels) if (s.score or 0.0) < 0.5]
            if row["Model_Solution_Correctness"] == "correct":
                tp += not low
            elif low:
                tn += 1
                if str(low[0] + 1) == row["Model_Solution_First_Error_Step"]:
                    hits += 1
                    reasons += bool(trace.predicted.meta["reason_correct"])
        fp, fn = wrong - tn, right - tp
        top, under = tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        mcc = top / under if top and under else 0.0
        step, reason = hits / wrong, reasons / wrong
        score = 0.2 * max(0, mcc) + 0.3 * step + 0.5 * reason
        figures[subject] = {"mr_score": score, "mcc": mcc, "step_accuracy": step, "reason_accuracy": reason}  # fmt: skip
    return figures, sum(each["mr_score"] for each in figures.values()) / len(figures)


def mr_ben_file(path: Path, seed: int) -> list[Row]:
    rng = random.Random(seed)
    found: dict[str, list[Row]] = {}
    for number in range(150):
        n = rng.randint(2, 7)
        error = None if rng.random() < 0.5 else rng.randint(1, n)
        found[f"u{number}"] = [
            {
                "Question_UUID": f"u{number}",
                "Subject": ("biology", "math")[number % 3 == 0],
                "Question": f"What is {number}?",
                "Options": "A: one \nB: two",
                "Ground_Truth_Answer": "A",
                "Sampled_Model": "m",
                "Model_Solution_Steps": [f"Step {i + 1}: {'x' * rng.randint(1, 9)}" for i in range(n)],
                "Model_Solution_Correctness": "correct" if error is None else "incorrect",
                "Model_Solution_First_Error_Step": "N/A" if error is None else str(error),
            }
        ]  # fmt: skip
    path.write_text(json.dumps(found))
    return [row for rows in found.values() for row in rows]


@pytest.mark.parametrize("seed", range(5))
def test_mr_ben_on_random_labels(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "rows.json"
    rows = mr_ben_file(path, seed)
    ids = {f"{row['Question_UUID']}:m": len(row["Model_Solution_Steps"]) for row in rows}
    traces = evaluated("mr-ben", path, drawn_scores(ids, seed), reasons=True)
    expected, overall = mr_ben_script(rows, traces)
    publish = protocol_named("mr-ben").as_published
    assert publish is not None
    found = publish(traces, 0.5)
    same(found, expected, overall)
    assert any("averages over subjects" in cause for cause in found.causes)


def test_mr_ben_without_reasons_is_what_the_script_fails_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = mr_ben_file(path, 0)
    ids = {f"{row['Question_UUID']}:m": len(row["Model_Solution_Steps"]) for row in rows}
    publish = protocol_named("mr-ben").as_published
    assert publish is not None
    found = publish(evaluated("mr-ben", path, drawn_scores(ids, 0)), 0.5)
    assert found.overall["mr_score"] is None
    assert any("reason of a right step was not assessed" in cause for cause in found.causes)


@pytest.mark.slow
def test_mr_ben_on_real_labels(real_data: Path) -> None:
    path = real_data / "mr_ben" / "biology.json"
    rows = [row for part in json.loads(path.read_text()).values() for row in part]
    lengths = {
        row.trace.id: len(row.trace.steps)
        for row in read_file("mr-ben", path)
        if isinstance(row, ImportedTrace)
    }
    traces = evaluated("mr-ben", path, drawn_scores(lengths, 4), reasons=True)
    usable = [t for t in traces if t.gold is not None and t.gold.abstention is None]
    known = {trace.trace_id for trace in usable}
    kept = [row for row in rows if f"{row['Question_UUID']}:{row['Sampled_Model']}" in known]
    expected, overall = mr_ben_script(kept, usable)
    publish = protocol_named("mr-ben").as_published
    assert publish is not None
    same(publish(usable, 0.5), expected, overall)
