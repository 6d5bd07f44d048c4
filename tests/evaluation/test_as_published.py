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
from sklearn.metrics import recall_score  # type: ignore[import-untyped]

from evaluation import EvaluatedTrace, Published, protocol_named
from formats import read_file
from traces import Abstention, AbstentionReason, ImportedTrace, StepLabel, TraceLabel, Verdict

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
    rows = [row | {"subset": "gsm8k"} for row in json.loads(path.read_text())]
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


# Socratic-PRMBench has PRMBench's rows and its PRM-Score: 0.5 F1 + 0.5 F1 of wrong steps.

PATTERNS = (
    "Transformation Inconsistency",
    "Decomposition Redundancy",
    "Regather Imprecision",
    "Conclusion Invalidity",
    "Detection Error",
    "Integration Incompleteness",
)


def socratic_rows(path: Path, seed: int) -> list[Row]:
    rng = random.Random(seed)
    rows: list[Row] = []
    for number in range(120):
        n = rng.randint(4, 14)
        rows.append(
            {
                "original_question": f"What is {number}?",
                "modified_question": f"What is {number}?",
                "modified_process": [f"<Deduction>: step {i}" for i in range(n)],
                "error_steps": sorted(rng.sample(range(1, n + 1), rng.randint(1, 4))),
                "reason": "made",
                "idx": f"gsm8k_test#{number}",
                "classification": PATTERNS[number % 6],
            }
        )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_socratic_prmbench_on_random_and_position_labels(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "rows.jsonl"
    rows = socratic_rows(path, seed)
    ids = {f"{row['classification']}_{row['idx']}": len(row["modified_process"]) for row in rows}
    position = {id: [1 - i / n for i in range(n)] for id, n in ids.items()}
    publish = protocol_named("prmbench").as_published
    assert publish is not None
    for scores in (drawn_scores(ids, seed), position):
        expected, overall = prmbench_script(rows, scores)
        same(publish(evaluated("prmbench", path, scores), 0.5), expected, overall)
        assert set(expected) == set(PATTERNS)


# Hard2Verify: recalls by scikit-learn over steps and over responses, padded as its script pads.


def hard2verify_script(rows: Sequence[Row], scores: Scores) -> dict[str, float]:
    labels: list[int] = []
    predictions: list[int] = []
    whole: list[tuple[int, int]] = []
    for row in rows:
        truth = row["human_labels"]
        given = scores[row["unique_id"]]
        said = [-2] if given is None else [int(score >= 0.5) for score in given]
        said = [1 - truth[i] if value == -2 else value for i, value in enumerate(said)]
        whole.append((int(0 not in truth), int(0 not in said)))
        said += [1 - value for value in truth[len(said) :]]
        labels += truth
        predictions += said
    figures = {}
    for name, (gold, called) in {
        "": (labels, predictions),
        "response_": tuple(zip(*whole, strict=True)),
    }.items():
        tpr, tnr = (float(recall_score(gold, called, pos_label=kind)) for kind in (1, 0))
        figures[f"{name}balanced_f1"] = 2 * tpr * tnr / (tpr + tnr)
        if not name:
            figures |= {"correct_recall": tpr, "incorrect_recall": tnr}
            figures["balanced_accuracy"] = (tpr + tnr) / 2
    return figures


@pytest.mark.parametrize("seed", range(5))
def test_hard2verify_on_random_labels(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    rows: list[Row] = []
    for number in range(60):
        labels = [int(rng.random() < 0.8) for _ in range(rng.randint(1, 12))]
        rows.append(
            {
                "unique_id": f"h{number}",
                "question": f"Prove {number}.",
                "model_response_by_step": [f"Step {i}" for i in range(len(labels))],
                "human_labels": labels,
                "human_labels_first_error_idx": labels.index(0) if 0 in labels else -1,
            }
        )
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    scores = drawn_scores({row["unique_id"]: len(row["human_labels"]) for row in rows}, seed)
    expected = hard2verify_script(rows, scores)
    protocol = protocol_named("balanced-f1")
    assert protocol.as_published is not None
    traces = evaluated("hard2verify", path, scores)
    found = protocol.as_published(traces, 0.5)
    assert dict(found.overall) == pytest.approx(expected, abs=CLOSE)
    assert dict(found.subsets["default"]) == pytest.approx(expected, abs=CLOSE)
    strict = protocol.evaluate(traces, resamples=20).as_json(dataset="d", labeler="l", gold="gold")
    for name in ("balanced_f1", "balanced_accuracy", "correct_recall", "incorrect_recall"):
        assert strict["overall"][name] == pytest.approx(expected[name], abs=CLOSE)
    first = protocol_named("processbench").evaluate(traces, resamples=20)
    average = first.as_json(dataset="d", labeler="l", gold="gold")["average"]
    assert strict["overall"]["processbench_f1"] == average["processbench_f1"]
    missing = sum(scores[row["unique_id"]] is None for row in rows)
    assert (strict["overall"]["missing"] > 0) == (missing > 0)


def test_balanced_f1_without_a_class_is_undefined() -> None:
    gold = TraceLabel("t", (StepLabel(Verdict.CORRECT),))
    trace = EvaluatedTrace("t", "p", "s", 1, gold, gold)
    report = protocol_named("balanced-f1").evaluate([trace], resamples=20)
    figures = report.as_json(dataset="d", labeler="l", gold="gold")["overall"]
    assert (figures["correct_recall"], figures["balanced_f1"]) == (1.0, None)


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


def test_mr_ben_counts_the_reasons_of_programs_and_ignores_their_lines() -> None:
    def program(id: str, gold: TraceLabel, wrong: int | None, right: bool | None) -> EvaluatedTrace:
        meta = {} if right is None else {"reason_correct": right}
        said = TraceLabel(id, first_error_given=True, first_error_index=wrong, meta=meta)
        return EvaluatedTrace(id, id, "coding", 3, gold, said)

    def first(id: str, index: int | None) -> TraceLabel:
        return TraceLabel(id, first_error_given=True, first_error_index=index)

    ambiguous = Abstention(AbstentionReason.GOLD_UNUSABLE, "the line occurs twice")
    traces = [
        program("a", first("a", None), None, None),
        program("b", first("b", 1), 2, True),  # another line, the right reason
        program("c", first("c", 1), 1, False),
        program("d", TraceLabel("d", abstention=ambiguous), 0, True),
        program("e", first("e", 0), None, None),
    ]
    publish = protocol_named("mr-ben").as_published
    assert publish is not None
    figures = publish(traces, 0.5).subsets["coding"]
    # 4 incorrect solutions, 3 called incorrect, 2 with the right reason; tp 1, fn 0, fp 1, tn 3.
    mcc = (1 * 3 - 1 * 0) / math.sqrt(2 * 1 * 4 * 3)
    assert figures["step_accuracy"] == figures["reason_accuracy"] == 0.5
    assert figures["mcc"] == pytest.approx(mcc, abs=CLOSE)
    assert figures["mr_score"] == pytest.approx(0.2 * mcc + 0.8 * 0.5, abs=CLOSE)
