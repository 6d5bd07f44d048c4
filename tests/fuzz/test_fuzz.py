"""Damaged inputs for every reader: read, rejected or refused, never a defect (`make fuzz`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import attempt, fuzz, inputs, table
from tests.fuzz.targets import Target, all_targets
from traces import InputError, record_defect

TARGETS = all_targets()
REFUSED = frozenset({"config", "gemini", "openai", "prm-server"})
"""Targets of which some seeds are errors of their own."""


@pytest.mark.slow
@pytest.mark.parametrize("part", ["rows", "rest"])
def test_no_damaged_input_ends_in_a_defect(part: str) -> None:
    """Under a minute for each half; how many inputs that is depends on the machine."""
    report = fuzz(
        [target for target in TARGETS if target.rows == (part == "rows")],
        seed=0,
        most=25_000,
        seconds=40,
    )
    assert not report.broken, table(report)
    assert report.inputs


def test_the_same_seed_makes_the_same_inputs() -> None:
    def drawn(seed: int) -> list[tuple[int, str, bytes]]:
        found = inputs(TARGETS, seed)
        return [
            (n, target.name, data) for (n, target, data), _ in zip(found, range(50), strict=False)
        ]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


@pytest.mark.parametrize(
    ("fault", "broken"), [(InputError("no"), 0), (ValueError("no"), 1), (SystemExit(3), 1)]
)
def test_only_errors_for_the_user_may_leave_a_reader(fault: BaseException, broken: int) -> None:
    def reader(*_: object) -> None:
        raise fault

    report = fuzz([Target("t", reader, (b"x",))], seed=0, most=20, seconds=60)
    assert len(report.broken) == broken
    assert report.inputs["t"] == 20


def test_a_defect_that_was_counted_is_a_failure_too() -> None:
    def reader(*_: object) -> None:
        record_defect(ValueError("no"), "row 1")

    report = fuzz([Target("t", reader, (b"x",))], seed=0, most=3, seconds=60)
    assert len(report.broken) == 1
    assert "a defect was recorded: row 1" in table(report)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_seeds_are_sound(target: Target, tmp_path: Path) -> None:
    """Mutations of what is refused at once would test nothing."""
    for seed in target.seeds:
        what, refused = attempt(target, seed, tmp_path)
        assert what is None
        assert not refused or target.name in REFUSED
