"""What is learned at which step, and how traces share a row."""

from __future__ import annotations

import pytest

from traces import Abstention, AbstentionReason, StepLabel, TraceLabel, Verdict, abstained
from training import Example, TrainConfig, balance, packed, step_targets

RIGHT, WRONG = StepLabel(Verdict.CORRECT), StepLabel(Verdict.INCORRECT)
NEUTRAL = StepLabel(Verdict.NEUTRAL)
OPEN = StepLabel(abstention=Abstention(AbstentionReason.NO_EVIDENCE))


def mc(successes: int, score: float) -> StepLabel:
    return StepLabel(score=score, successes=successes, continuations=4)


def first_error(index: int | None) -> TraceLabel:
    return TraceLabel("t", first_error_given=True, first_error_index=index)


@pytest.mark.parametrize(
    ("label", "options", "expected"),
    [
        (TraceLabel("t", (RIGHT, WRONG, RIGHT)), {}, (1, 0, None)),
        (TraceLabel("t", (RIGHT, WRONG, RIGHT)), {"after_error": "keep"}, (1, 0, 1)),
        (TraceLabel("t", (NEUTRAL, OPEN, RIGHT)), {}, (1, None, 1)),
        (first_error(1), {}, (1, 0, None)),
        (first_error(None), {}, (1, 1, 1)),
        (TraceLabel("t", (mc(4, 1.0), mc(1, 0.25), mc(0, 0.0))), {}, (1, 1, 0)),
        (
            TraceLabel("t", (mc(4, 1.0), mc(1, 0.25), mc(2, 0.5))),
            {"hard_threshold": 1},
            (1, 0, None),
        ),
        (TraceLabel("t", (mc(4, 1.0), mc(1, 0.25), mc(0, 0.0))), {"targets": "soft"}, (1, 0.25, 0)),
        (TraceLabel("t", (RIGHT, RIGHT, WRONG)), {"targets": "soft"}, (1, 1, 0)),
        (abstained("t", AbstentionReason.FILTERED), {}, (None, None, None)),
    ],
)
def test_targets(label: TraceLabel, options: dict[str, str], expected: tuple[float, ...]) -> None:
    config = TrainConfig(base="b", out="o", **options)  # type: ignore[arg-type]
    assert step_targets(label, 3, config) == expected


def example(name: str, size: int, *targets: float | None) -> Example:
    return Example(name, tuple(range(size)), tuple(range(len(targets))), targets)


def test_packing_keeps_every_trace_whole_and_once() -> None:
    rows = [example(f"t{at}", 3 + at % 7, 1.0) for at in range(50)] + [example("long", 40, 1.0)]
    bins = packed(rows, tokens=16, seed=3)
    assert sorted(one.trace_id for row in bins for one in row) == sorted(r.trace_id for r in rows)
    over = [row for row in bins if sum(len(one.ids) for one in row) > 16]
    assert [[one.trace_id for one in row] for row in over] == [["long"]]
    assert len(bins) < 30
    assert bins == packed(rows, tokens=16, seed=3)
    assert bins != packed(rows, tokens=16, seed=4)


def test_balanced_classes_weigh_the_same() -> None:
    wrong, right = balance([example("a", 9, 1.0, 1.0, 0.0), example("b", 9, 1.0, None)])
    assert wrong * 1 == pytest.approx(right * 3)
    assert wrong * 1 + right * 3 == pytest.approx(4)
    assert balance([example("a", 9, 1.0)]) == (1.0, 1.0)
