"""Where labelers look, and what right answers hide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.diagnostics import (
    LAST_INDEX,
    diagnose,
    false_positive_slice,
    minimum_position,
    step_index_rows,
)
from evaluation.evaluated import EvaluatedTrace
from tests.evaluation.builders import ABSTAINED, first, scores, trace, verdicts
from traces.labels import TraceLabel


def ending(
    right: bool | None, gold: TraceLabel, said: TraceLabel | None, id: str
) -> EvaluatedTrace:
    made = trace(gold, said, id=id)
    return EvaluatedTrace(
        made.trace_id, made.problem_id, made.subset, made.n_steps, gold, said, right
    )


def test_the_lowest_score_of_a_trace() -> None:
    found = minimum_position(
        [
            trace(None, scores([0.9, 0.2, 0.1]), id="a"),
            trace(None, scores([0.9, 0.1, 0.1, 0.8]), id="b"),
            trace(None, scores([0.5]), id="c"),
            trace(None, scores([0.5, None]), id="d"),
            trace(None, verdicts([1, -1]), id="e"),
            trace(None, None, id="f"),
        ]
    )
    assert (found.n, found.incomplete) == (3, 3)
    assert found.share_at_last.value == pytest.approx(2 / 3)
    assert found.mean_depth == pytest.approx((1 + 2 / 4 + 1) / 3)
    # 2 of 4 lies on an edge, which belongs to the lower bin: (0.4, 0.5].
    assert found.depths == (0, 0, 0, 0, 1, 0, 0, 0, 0, 2)
    nothing = minimum_position([])
    assert (nothing.share_at_last.value, nothing.mean_depth) == (None, None)


def test_calls_by_step_index() -> None:
    rows = step_index_rows(
        [
            trace(verdicts([1, -1, 1]), scores([0.9, 0.8, 0.4]), id="a"),
            trace(verdicts([-1, 1]), scores([0.1, 0.6]), id="b"),
            trace(first(1), None, id="c", n_steps=4),
            trace(ABSTAINED, scores([0.1]), id="d"),
        ]
    )
    assert [row.n for row in rows] == [3, 3, 1]
    assert rows[0].gold_incorrect == pytest.approx(1 / 3)
    assert (rows[0].n_called, rows[0].called_incorrect, rows[0].mean_score) == (2, 0.5, 0.5)
    assert rows[1].gold_incorrect == pytest.approx(2 / 3)
    assert [row.gold_first for row in rows] == [1, 2, 0]
    assert [row.called_first for row in rows] == [1, 0, 1]


def test_late_steps_share_a_row() -> None:
    long = LAST_INDEX + 5
    rows = step_index_rows([trace(verdicts([1] * long), scores([0.5] * long))])
    assert (len(rows), rows[-1].index, rows[-1].open_ended, rows[-1].n) == (LAST_INDEX + 1, LAST_INDEX, True, 5)  # fmt: skip
    assert sum(row.n for row in rows) == long
    assert not rows[0].open_ended


def test_right_answers_with_a_wrong_process() -> None:
    found = false_positive_slice(
        [
            ending(True, first(1), first(1), "named"),
            ending(True, first(1), first(0), "seen"),
            ending(True, first(1), first(-1), "not seen"),
            ending(True, first(1), None, "missing"),
            ending(True, first(-1), first(-1), "right"),
            ending(False, first(1), first(1), "wrong answer"),
            ending(None, first(1), first(1), "unknown"),
            ending(True, ABSTAINED, first(1), "no gold"),
        ]
    )
    assert (found.n, found.n_right_answer, found.answer_unknown, found.missing) == (4, 5, 1, 1)
    assert (found.error_accuracy.value, found.detected.value) == (0.25, 0.5)
    empty = false_positive_slice([])
    assert (empty.n, empty.error_accuracy.value, empty.detected.value) == (0, None, None)


def test_processbench_holds_seven_right_answers_with_a_wrong_process(real_data: Path) -> None:
    rows = json.loads((real_data / "processbench" / "gsm8k.json").read_text())
    traces = [
        EvaluatedTrace(
            row["id"], row["id"], "gsm8k", len(row["steps"]), first(row["label"]), None,
            row["final_answer_correct"],
        )
        for row in rows
    ]  # fmt: skip
    assert false_positive_slice(traces).n == 7


def test_the_diagnostics_are_strict_json_with_and_without_scores() -> None:
    scored = [
        ending(True, verdicts([1, -1]), scores([0.9, 0.2]), "a"),
        ending(False, verdicts([1, 1]), scores([0.7, 0.8]), "b"),
    ]
    found = diagnose(scored, resamples=20)
    document = found.as_json()
    assert document["minimum_position"]["answer_right"]["share_at_last"] == 1.0
    assert document["minimum_position"]["answer_wrong"]["share_at_last"] == 0.0
    assert "answer_unknown" not in document["minimum_position"]
    assert document["right_answer_wrong_process"]["subsets"]["default"]["n"] == 1
    assert document["step_scores"]["auroc"] == 1.0
    assert [line.split(":")[0] for line in found.lines()] == [
        "step scores",
        "lowest score on the last step",
        "right answer, wrong process",
    ]
    json.dumps(document, allow_nan=False)
    judged = diagnose([ending(None, first(0), first(0), "a")], resamples=20)
    assert judged.as_json()["step_scores"] is judged.as_json()["minimum_position"] is None
    assert judged.lines() == []
    json.dumps(judged.as_json(), allow_nan=False)
    json.dumps(diagnose([], resamples=20).as_json(), allow_nan=False)
