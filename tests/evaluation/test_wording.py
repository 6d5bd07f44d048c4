"""Tables line up and undefined figures are visible."""

from __future__ import annotations

import doctest

from evaluation import wording
from evaluation.measures import Estimate
from evaluation.protocols.processbench import evaluate_processbench
from evaluation.wording import plain_table, with_interval
from tests.evaluation.builders import first_errors


def test_a_table_lines_up() -> None:
    assert (
        plain_table(("a", "b"), [("long name", "1"), ("x", "22")])
        == "a           b\nlong name   1\nx          22"
    )


def test_an_estimate_without_interval_is_its_value() -> None:
    assert with_interval(Estimate(0.25, None)) == "0.250"


def test_the_table_of_a_report_shows_every_subset_and_the_average() -> None:
    traces = first_errors([0, -1], [0, None], subset="gsm8k") + first_errors(
        [-1], [-1], subset="math"
    )
    lines = evaluate_processbench(traces).table("judge").splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["gsm8k", "math", "average"]
    assert "1.000 [1.000, 1.000]" in lines[2]
    assert " - " in lines[4]


def test_docstring_examples() -> None:
    found = doctest.testmod(wording)
    assert found.attempted > 0
    assert found.failed == 0
