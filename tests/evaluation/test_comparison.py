"""Comparison of labelers: columns, coefficients with intervals, first errors, disputes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import frames
from evaluation.comparison import (
    Comparison,
    cohen_kappa,
    compare_labelers,
    comparison_tables,
    krippendorff_alpha,
)
from evaluation.diagnostics import diagnose
from evaluation.disagreements import disagreement_json, disagreement_lines, find_disputes
from evaluation.floors import measure_floors
from evaluation.label_table import KINDS, ComparedTrace, ComparedTraces, first_error_confusion
from tests.evaluation.builders import ABSTAINED, errors, first, scores, verdicts
from traces.evidence import Evidence, Passage
from traces.labels import MISSING_FIRST_ERROR, FirstError, StepLabel, TraceLabel, Verdict
from traces.problem import Problem, Trace, TraceInContext

word = st.none() | st.sampled_from([1, 0, -1])


def traces_of(
    rows: Sequence[dict[str, TraceLabel]], n_steps: int = 3, per_problem: int = 1
) -> list[ComparedTrace]:
    return [
        ComparedTrace(f"t{at}", f"p{at // per_problem}", "default", n_steps, labels)
        for at, labels in enumerate(rows)
    ]


def compared(
    traces: Sequence[ComparedTrace],
    names: Sequence[str],
    gold: str | None = None,
    resamples: int = 50,
) -> Comparison:
    everyone = {*names, *([gold] if gold else [])}
    return compare_labelers(
        traces, names, dict.fromkeys(everyone, 0.5), gold=gold, resamples=resamples
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.tuples(word, word, word)] * 3), min_size=1, max_size=6))
def test_the_coefficients_are_those_of_plain_lists(
    rows: list[tuple[tuple[int | None, ...], ...]],
) -> None:
    names = ("a", "b", "c")
    found = compared(
        traces_of([dict(zip(names, map(verdicts, row), strict=True)) for row in rows]), names
    )
    # Independent of the columns: one flat list per labeler, neutral read as no error.
    said = {
        name: [None if one is None else one < 0 for row in rows for one in row[at]]
        for at, name in enumerate(names)
    }
    for pair in found.pairs:
        both = [
            (x, y)
            for x, y in zip(said[pair.a], said[pair.b], strict=True)
            if x is not None and y is not None
        ]
        assert pair.n_steps == len(both)
        agreed = sum(x == y for x, y in both) / len(both) if both else None
        assert pair.agreement.value == (None if agreed is None else pytest.approx(agreed))
        kappa = cohen_kappa([x for x, _ in both], [y for _, y in both])
        assert pair.cohen_kappa.value == (None if kappa is None else pytest.approx(kappa))
    table = np.array([[np.nan if x is None else float(x) for x in said[name]] for name in names])
    alpha = krippendorff_alpha([said[name] for name in names])
    assert found.krippendorff_alpha.value == (None if alpha is None else pytest.approx(alpha))
    if alpha is not None:
        package = krippendorff.alpha(table, level_of_measurement="nominal", value_domain=[0, 1])
        assert found.krippendorff_alpha.value == pytest.approx(float(package))
    json.dumps(found.as_json(), allow_nan=False)


def test_silence_is_left_out_and_neutral_is_no_error() -> None:
    rows = [
        {"a": verdicts([1, 0, -1]), "b": verdicts([1, 1, None])},
        {"a": verdicts([1, 1, 1])},
        {"a": ABSTAINED, "b": verdicts([1, 1, 1])},
    ]
    (pair,) = compared(traces_of(rows), ("a", "b")).pairs
    assert (pair.n_steps, pair.n_neutral, pair.agreement.value) == (2, 1, 1.0)
    assert (pair.cohen_kappa.value, pair.pearson, pair.n_scored) == (None, None, 0)
    assert (pair.n_first_errors, pair.first_error_agreement.value) == (0, None)


def test_scores_are_read_by_each_labelers_own_threshold_and_correlate() -> None:
    rows = [
        {"a": scores([0.9, 0.5, 0.1]), "b": scores([0.8, 0.4, 0.0])},
        {"a": scores([0.9, None, 0.3]), "b": scores([0.8, 0.1, 0.2])},
    ]
    found = compare_labelers(traces_of(rows), ("a", "b"), {"a": 0.5, "b": 0.4}, resamples=20)
    (pair,) = found.pairs
    assert (pair.n_steps, pair.n_scored) == (5, 5)
    assert pair.agreement.value == 1.0
    assert pair.pearson == pytest.approx(1.0)
    stricter = compare_labelers(traces_of(rows), ("a", "b"), {"a": 0.5, "b": 0.5}, resamples=20)
    assert stricter.pairs[0].agreement.value == 0.8


@pytest.mark.parametrize(
    ("said", "truth", "kind"),
    [
        (2, 2, "exact"),
        (1, 2, "early"),
        (3, 2, "late"),
        (None, 2, "missed"),
        (2, None, "false_alarm"),
        (None, None, "no_error"),
        ("missing", 2, "missing"),
        ("missing", None, "missing"),
        (2, "missing", None),
    ],
)
def test_every_kind_of_first_error(
    said: int | str | None, truth: int | str | None, kind: str | None
) -> None:
    def found(word: int | str | None) -> FirstError:
        return (
            MISSING_FIRST_ERROR if isinstance(word, str) else FirstError(missing=False, index=word)
        )

    counted = first_error_confusion("a", "b", errors(found(said)), errors(found(truth)))
    assert counted.counts == {name: int(name == kind) for name in KINDS}
    assert counted.reference_missing == int(kind is None)
    assert counted.n == int(kind is not None)


def test_gold_is_the_measure_wherever_it_stands() -> None:
    rows = [{"gold": first(1), "judge": first(0)}, {"gold": first(-1), "judge": first(2)}]
    for names in (("gold", "judge"), ("judge", "gold")):
        (pair,) = compared(traces_of(rows), names, "gold").pairs
        assert (pair.first_errors.of, pair.first_errors.against) == ("judge", "gold")
        assert (pair.first_errors.counts["early"], pair.first_errors.counts["false_alarm"]) == (1, 1)  # fmt: skip
        assert pair.paired is None


def test_two_labelers_are_tested_against_gold_on_the_same_problems() -> None:
    rows = [
        {"gold": first(at % 3 - 1), "good": first(at % 3 - 1), "poor": first(0)} for at in range(30)
    ]
    (pair,) = compared(traces_of(rows), ("good", "poor"), "gold", resamples=200).pairs
    assert pair.paired is not None
    head = pair.paired["processbench_f1"].headline
    assert (head.first, head.second) == (1.0, 0.0)
    assert head.p_value is not None
    assert head.p_value < 0.05
    assert compared(traces_of(rows), ("good", "poor")).pairs[0].paired is None


def test_the_interval_moves_problems_not_steps() -> None:
    """One problem with all the disagreement: its steps come and go together."""
    rows = [{"a": verdicts([1] * 3), "b": verdicts([1] * 3)} for _ in range(9)]
    rows.append({"a": verdicts([1] * 3), "b": verdicts([-1] * 3)})
    apart = compared(traces_of(rows), ("a", "b"), resamples=2000).pairs[0].agreement
    together = compared(traces_of(rows, per_problem=10), ("a", "b")).pairs[0].agreement
    assert apart.value == together.value == 0.9
    assert together.ci95 == (0.9, 0.9)
    # Each resample holds the odd problem a whole number of times: binomial(10, 1/10) / 10.
    assert apart.ci95 is not None
    assert apart.ci95 == pytest.approx((0.7, 1.0))


def test_disputes_come_most_divided_first_with_texts_and_evidence() -> None:
    rows = [
        {"a": verdicts([1, 1, 1]), "b": verdicts([1, 1, 1]), "c": verdicts([1, 1, 1])},
        {"a": verdicts([1, -1, 1]), "b": verdicts([1, 1, None])},
        {"a": verdicts([1, -1, 0]), "b": verdicts([1, 1, -1]), "c": scores([0.9, 0.2, 0.8])},
    ]
    table = compared(traces_of(rows), ("a", "b", "c")).table
    disputes = find_disputes(table)
    assert [(one.trace_id, one.steps, one.conflicts) for one in disputes.first(5)] == [
        ("t2", (1, 2), 2),
        ("t1", (1,), 1),
    ]
    assert disputes.steps == 3
    context = TraceInContext(
        Problem("p2", "Which dose?", (), "72"),
        Trace("t2", "p2", ("6 mg", "6 x 12 = 70", "So 70")),
        (Evidence(Passage("g", "z.md", 0, 0, 4, "6 mg", "Z"), 0.5, 0),),
    )
    entry = disagreement_json(disputes.first(1)[0], table, context, rows[2])
    assert [step["text"] for step in entry["steps"]] == ["6 x 12 = 70", "So 70"]
    assert [word["verdict"] for word in entry["steps"][1]["labels"].values()] == ["neutral", "incorrect", "correct"]  # fmt: skip
    assert entry["steps"][0]["labels"]["c"]["score"] == 0.2
    assert entry["first_errors"] == {
        "a": {"missing": False, "index": 1},
        "b": {"missing": False, "index": 2},
        "c": {"missing": False, "index": 1},
    }
    assert entry["evidence"][0]["text"] == "6 mg"
    told = "\n".join(disagreement_lines([entry]))
    assert "step 1: 6 x 12 = 70" in told
    assert "c: incorrect, 0.20" in told


def test_no_steps_at_all_leave_everything_undefined() -> None:
    found = compared([], ("a", "b"), "gold")
    document = found.as_json()
    assert document["krippendorff_alpha"] is None
    (pair,) = document["pairs"]
    assert {pair[key] for key in ("agreement", "cohen_kappa", "pearson", "first_error_agreement")} == {None}  # fmt: skip
    assert len(find_disputes(found.table)) == 0
    assert "-" in comparison_tables(found)[0].rows[0]


def test_figures_do_not_depend_on_how_many_steps_are_worked_on_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = random.Random(5)

    def label(id: str, n: int, name: str) -> TraceLabel | None:
        kind = draw.random()
        if kind < 0.1:
            return None
        if kind < 0.2:
            return TraceLabel(id, abstention=ABSTAINED.abstention)
        if kind < 0.3:
            first = draw.choice([None, *range(n)])
            return TraceLabel(id, first_error_given=True, first_error_index=first)
        scores = name.startswith("prm")
        return TraceLabel(
            id,
            tuple(
                StepLabel(score=round(draw.random(), 1))
                if scores
                else StepLabel(draw.choice(list(Verdict)))
                for _ in range(n)
            ),
        )

    names = ("gold", "judge", "prm", "prm2")
    traces = []
    for number in range(60):
        id, n = f"t{number}", draw.choice([1, 2, 7, 30])
        labels = {name: made for name in names if (made := label(id, n, name)) is not None}
        traces.append(ComparedTrace(id, f"p{number // 3}", draw.choice("ab"), n, labels))

    def figures() -> tuple[list[float | None], tuple[object, ...]]:
        known = ComparedTraces.of(traces, names)
        found = compare_labelers(
            known, names[1:], dict.fromkeys(names, 0.5), gold="gold", resamples=20
        )
        of_prm = known.against("prm", "gold")
        pairs = [pair.as_json() for pair in found.pairs]
        correlations = [pair.pop("pearson") for pair in pairs]
        return correlations, (
            pairs,
            found.krippendorff_alpha,
            find_disputes(found.table).first(9),
            measure_floors(of_prm, ["macro_f1", "processbench_f1"], averaged=True),
            diagnose(of_prm, resamples=20),
        )

    correlations, whole = figures()
    monkeypatch.setattr(frames, "_BLOCK", 8)
    in_blocks, parts = figures()
    assert in_blocks == pytest.approx(correlations, abs=1e-12)
    assert parts == whole
