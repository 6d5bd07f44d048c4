"""Counts on columns equal those of a plain loop over the labels of each trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.diagnostics import minimum_position
from evaluation.discrimination import scored_steps
from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces
from evaluation.frames import REASON_KEY, KeyedFrame, step_calls
from evaluation.measures import (
    first_error_rows,
    kept_step_rows,
    solution_rows,
    step_rows,
)
from storage import LabelArrays, TraceColumns
from tests.evaluation.builders import SILENT
from traces import (
    Abstention,
    AbstentionReason,
    FirstError,
    StepLabel,
    TraceLabel,
    Verdict,
    first_error,
    is_incorrect,
)

Counts = list[int]
THRESHOLDS = (0.0, 0.25, 0.5, 1.0)


@st.composite
def labels(draw: st.DrawFn, n_steps: int) -> TraceLabel | None:
    kind = draw(st.sampled_from(["none", "abstained", "first", "steps", "both"]))
    if kind == "none":
        return None
    if kind == "abstained":
        return TraceLabel("t", abstention=Abstention(AbstentionReason.BLOCKED))
    steps: tuple[StepLabel, ...] = ()
    if kind != "first":
        verdicts = st.none() | st.sampled_from(Verdict)
        scores = st.none() | st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.9, 1.0])
        drawn = [(draw(verdicts), draw(scores)) for _ in range(n_steps)]
        steps = tuple(SILENT if one == (None, None) else StepLabel(*one) for one in drawn)
    given_one = kind != "steps"
    index = draw(st.none() | st.integers(0, n_steps - 1)) if given_one else None
    assessed = draw(st.sampled_from([None, True, False]))
    meta = {} if assessed is None else {REASON_KEY: assessed}
    return TraceLabel("t", steps, first_error_given=given_one, first_error_index=index, meta=meta)


@st.composite
def traces(draw: st.DrawFn) -> list[EvaluatedTrace]:
    made = []
    for number in range(draw(st.integers(0, 12))):
        n_steps = draw(st.integers(1, 5))
        made.append(
            EvaluatedTrace(
                trace_id=f"t{number}",
                problem_id=f"p{draw(st.integers(0, 4))}",
                subset=draw(st.sampled_from("ab")),
                n_steps=n_steps,
                gold=draw(labels(n_steps)),
                predicted=draw(labels(n_steps)),
                final_answer_correct=draw(st.sampled_from([None, True, False])),
            )
        )
    return made


def plain_error(label: TraceLabel | None, threshold: float) -> FirstError:
    return FirstError(missing=True) if label is None else first_error(label, threshold)


def plain_calls(trace: EvaluatedTrace, label: TraceLabel | None, threshold: float, *, tie: bool = True) -> list[bool | None]:  # fmt: skip
    calls: list[bool | None] = [None] * trace.n_steps
    if label is None or label.abstention is not None:
        return calls
    for index in range(trace.n_steps):
        first = label.first_error_index
        if label.first_error_given and (first is None or index <= first):
            calls[index] = index == first
        if label.step_labels:
            called = is_incorrect(label.step_labels[index], threshold, tie_is_correct=tie)
            calls[index] = calls[index] if called is None else called
    return calls


def is_neutral(trace: EvaluatedTrace, index: int) -> bool:
    steps = () if trace.gold is None else trace.gold.step_labels
    return bool(steps) and steps[index].verdict is Verdict.NEUTRAL


def plain_first_errors(trace: EvaluatedTrace, threshold: float) -> Counts:
    gold, found = (plain_error(one, threshold) for one in (trace.gold, trace.predicted))
    if gold.missing:
        return [0] * 6
    hit, error = found == gold, gold.index is not None
    return [error, error and hit, not error, not error and hit, not found.missing, hit]


def plain_steps(trace: EvaluatedTrace, threshold: float, *, kept: bool) -> Counts:
    counts = [0] * 6
    if trace.gold is None:
        return counts
    truth = plain_calls(trace, trace.gold, threshold)
    calls = plain_calls(trace, trace.predicted, threshold, tie=not kept)
    for index, (incorrect, called) in enumerate(zip(truth, calls, strict=True)):
        if is_neutral(trace, index):
            counts[4] += 1
        elif incorrect is not None:
            counts[5] += called is None
            if called is not None or not kept:
                counts[2 * incorrect + (not incorrect if called is None else called)] += 1
    return counts


def plain_solution(trace: EvaluatedTrace, threshold: float) -> Counts:
    gold, found = (plain_error(one, threshold) for one in (trace.gold, trace.predicted))
    if gold.missing:
        return [0] * 6
    incorrect = gold.index is not None
    called = not incorrect if found.missing else found.index is not None
    hit = incorrect and found == gold
    right = trace.predicted is not None and trace.predicted.meta.get(REASON_KEY) is True
    counts = [0, 0, 0, 0, hit, hit and right]
    counts[2 * incorrect + called] = 1
    return counts


@pytest.mark.slow
@given(traces(), st.sampled_from(THRESHOLDS))
def test_the_counts_of_every_measure(made: list[EvaluatedTrace], threshold: float) -> None:
    known = EvaluatedTraces.of(made)
    expected = {
        first_error_rows: [plain_first_errors(one, threshold) for one in made],
        step_rows: [plain_steps(one, threshold, kept=False) for one in made],
        kept_step_rows: [plain_steps(one, threshold, kept=True) for one in made],
        solution_rows: [plain_solution(one, threshold) for one in made],
    }
    for rows, counts in expected.items():
        np.testing.assert_array_equal(rows(known, threshold), np.array(counts).reshape(-1, 6))


@given(traces(), st.sampled_from(THRESHOLDS))
def test_first_errors_and_calls(made: list[EvaluatedTrace], threshold: float) -> None:
    known = EvaluatedTraces.of(made)
    found = known.found_errors(threshold)
    assert [found[at] for at in range(len(made))] == [
        plain_error(one.predicted, threshold) for one in made
    ]
    said, incorrect = step_calls(known.frame, known.predicted, threshold)
    calls = [call for one in made for call in plain_calls(one, one.predicted, threshold)]
    assert [
        bool(bad) if known else None for known, bad in zip(said, incorrect, strict=True)
    ] == calls


@pytest.mark.slow
@given(traces())
def test_scored_steps_and_lowest_scores(made: list[EvaluatedTrace]) -> None:
    expected, lowest = [], []
    for trace in made:
        given_steps = trace.predicted.step_labels if trace.predicted else ()
        scores = [step.score for step in given_steps]
        if scores and None not in scores:
            lowest.append(scores.index(min(one for one in scores if one is not None)) == len(scores) - 1)  # fmt: skip
        if trace.gold is None or trace.gold.abstention is not None:
            continue
        for index, incorrect in enumerate(plain_calls(trace, trace.gold, 0.5)):
            score = scores[index] if scores else None
            if incorrect is not None and not is_neutral(trace, index) and score is not None:
                expected.append((score, not incorrect, trace.problem_id))
    steps = scored_steps(made)
    assert list(zip(steps.score, steps.correct, strict=True)) == [one[:2] for one in expected]
    numbers: dict[str, int] = {}
    assert steps.problem.tolist() == [
        numbers.setdefault(problem, len(numbers)) for *_, problem in expected
    ]
    share = minimum_position(made, resamples=10).share_at_last.value
    assert share == (sum(lowest) / len(lowest) if lowest else None)


def test_a_sequence_gives_the_labels_back() -> None:
    label = TraceLabel("t", (StepLabel(Verdict.NEUTRAL), StepLabel(score=0.25), SILENT), meta={REASON_KEY: True})  # fmt: skip
    trace = EvaluatedTrace("t", "p", "s", 3, TraceLabel("t", first_error_given=True), label, True)
    known = EvaluatedTraces.of([trace])
    assert list(known) == [trace]
    assert known[0] == known[-1] == trace
    assert list(known[:1]) == [trace]
    with pytest.raises(IndexError):
        known[1]


def test_labels_of_the_store_are_put_at_their_traces() -> None:
    rows: list[list[Any]] = [
        [7, "b", "p", "one", 2, None, True],
        [3, "a", "p", "two", 1, None, None],
        [5, "c", "q", "one", 3, None, False],
    ]
    keyed = KeyedFrame.of([TraceColumns.of(rows[:1]), TraceColumns.of(rows[1:])], ["one"])
    assert (keyed.frame.ids, keyed.frame.n_steps.tolist()) == (["b", "c"], [2, 3])
    assert [keyed.frame.subsets[at] for at in keyed.frame.subset] == ["one", "one"]
    scores = np.array([0.25, 0.75]).tobytes()
    parts = [
        LabelArrays.of([[3, "a", None, False, None, "c", None]]),
        LabelArrays.of([[5, "c", None, True, 1, None, None]]),
        LabelArrays.of([[7, "b", None, False, None, "SI", scores]]),
    ]
    labels_of = keyed.labels(parts, {5: False, 3: True})
    made = EvaluatedTraces(keyed.frame, labels_of, labels_of)
    assert [one.gold for one in made] == [
        TraceLabel("b", (StepLabel(score=0.25), StepLabel(Verdict.INCORRECT, 0.75))),
        TraceLabel("c", first_error_given=True, first_error_index=1, meta={REASON_KEY: False}),
    ]
