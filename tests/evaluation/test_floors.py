"""Floors: what labelers that read nothing reach, beside every figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation import FLOORS, EvaluatedTrace, floor_traces, protocol_named
from formats import read_file
from stepgold.evaluating import FLOOR_NAMES
from tests.evaluation.builders import first, first_errors, trace, verdicts
from traces import ImportedTrace


def test_the_help_lists_all_floors() -> None:
    assert FLOOR_NAMES == FLOORS


def test_floors_by_hand() -> None:
    """Two traces of four steps: the error is in step 3 of one (index 2), the other has none."""
    traces = [
        trace(verdicts([1, 1, -1, 1]), None, id="a"),
        trace(verdicts([1, 1, 1, 1]), None, id="b"),
    ]
    found = {one.name: one for one in protocol_named("processbench").floors(traces).floors}
    assert list(found) == list(FLOORS)
    assert found["no-error"].overall["processbench_f1"] == 0.0
    assert found["no-error"].overall["correct_accuracy"] == 1.0
    assert found["last-step"].overall["error_accuracy"] == 0.0
    # 1 - i/4 is below 0.5 first at i = 3.
    assert found["position"].overall["error_accuracy"] == 0.0
    steps = {one.name: one for one in protocol_named("macro-f1").floors(traces).floors}
    # Of 7 correct steps 5 are found; the incorrect one is missed.
    assert steps["position"].overall["macro_f1"] == pytest.approx((2 * 5 / (2 * 5 + 2 + 1)) / 2)


def test_the_position_hits_an_error_in_the_second_half() -> None:
    traces = [trace(first(6), None, id="a", n_steps=10), trace(first(None), None, id="b")]
    found = {one.name: one for one in protocol_named("mistake").floors(traces).floors}
    assert found["position"].overall["location_accuracy"] == 0.5
    assert found["no-error"].overall["location_accuracy"] == 0.5


def test_the_average_over_subsets_and_each_subset() -> None:
    traces = [
        *first_errors([9, -1], [None, None], subset="x"),
        *first_errors([2, -1], [None, None], subset="y"),
    ]
    found = {one.name: one for one in protocol_named("processbench").floors(traces).floors}
    last = found["last-step"]
    assert last.subsets["x"]["error_accuracy"] == 1.0
    assert last.subsets["y"]["error_accuracy"] == 0.0
    assert last.overall["error_accuracy"] == 0.5


def test_chance_does_not_depend_on_the_order_of_the_traces() -> None:
    traces = [trace(first(i % 10), None, id=f"t{i}") for i in range(50)]
    forward = {t.trace_id: t.predicted for t in floor_traces(traces, "chance")}
    backward = {t.trace_id: t.predicted for t in floor_traces(traces[::-1], "chance")}
    assert forward == backward
    other = {t.trace_id: t.predicted for t in floor_traces(traces, "chance", seed=1)}
    assert forward != other


def test_a_labeler_that_is_not_above_the_floor_is_named() -> None:
    labeled = first_errors([3, -1, 4, -1], [None, -1, None, -1])
    report = protocol_named("mistake").floors(labeled)
    assert report.own == 0.5
    warned = report.warning("judge", report.own)
    assert warned is not None
    assert "judge (0.500) is not above the floor" in warned
    assert report.warning("judge", 1.0) is None
    assert report.warning("judge", None) is None


def _real(format: str, path: Path) -> list[EvaluatedTrace]:
    rows = [row for row in read_file(format, path) if isinstance(row, ImportedTrace)]
    return [
        EvaluatedTrace(
            row.trace.id, row.problem.id, "s", len(row.trace.steps), row.labels[0][1], None
        )
        for row in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "file", "macro_f1"),
    [("processbench", "processbench/gsm8k.json", 0.482), ("mr-ben", "mr_ben/biology.json", 0.450)],
)
def test_the_position_on_real_benchmarks(
    format: str, file: str, macro_f1: float, real_data: Path
) -> None:
    found = protocol_named("macro-f1").floors(_real(format, real_data / file)).floors
    position = next(one for one in found if one.name == "position")
    assert position.overall["macro_f1"] == pytest.approx(macro_f1, abs=0.002)
