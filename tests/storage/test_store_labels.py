"""Labelers and labels."""

from __future__ import annotations

import math
from typing import Any

import pytest
from sqlalchemy import exc

from storage import LabelerSummary, Store
from tests.storage.builders import GOLD, JUDGE, fill, gold, judged, refused, row, source
from traces import (
    Abstention,
    AbstentionReason,
    Labeler,
    LabelerKind,
    Problem,
    Quote,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
)
from traces.errors import InputError
from traces.records import Continuation, Failure

FAIR = StepLabel(Verdict.CORRECT)
NONE = StepLabel(abstention=Abstention(AbstentionReason.NO_EVIDENCE))


def drawn(trace_id: str, text: str = "So 10 mg.", index: int = 0) -> Continuation:
    """A continuation after the first step."""
    return Continuation(trace_id, 0, index, text, "stop", "10", True, 4)


def test_labels_are_stored_and_read_in_the_order_of_import(store: Store) -> None:
    fill(store)
    assert store.labels.put("d", "judge", [judged("t2"), refused("t0")]) == 2
    assert store.labels.load("d", "judge") == {"t0": refused("t0"), "t2": judged("t2")}
    assert list(store.labels.load("d", "judge")) == ["t0", "t2"]
    assert store.labels.unlabeled_trace_ids("d", "judge") == ["t1"]


def test_putting_the_same_labels_again_changes_nothing(store: Store) -> None:
    fill(store)
    for _ in range(2):
        store.labels.put("d", "judge", [judged("t0")], continuations=[drawn("t0")])
    assert store.labels.load("d", "judge") == {"t0": judged("t0")}
    assert store.labels.continuations("d", "judge", "t0") == [drawn("t0")]
    [summary] = store.labels.labelers("d")
    assert (summary.traces, summary.steps) == (1, 3)


def test_a_new_label_takes_the_place_of_the_old_one_with_its_continuations(store: Store) -> None:
    fill(store)
    quote = Quote("5 mg", 1, True, 0, 4, "exact")
    quoted = TraceLabel("t0", (FAIR, StepLabel(Verdict.INCORRECT, quote=quote), FAIR))
    store.labels.put("d", "judge", [quoted], continuations=[drawn("t0"), drawn("t0", index=1)])
    store.labels.put("d", "judge", [refused("t0")], continuations=[drawn("t0", "Other.")])
    assert store.labels.load("d", "judge") == {"t0": refused("t0")}
    assert store.labels.continuations("d", "judge", "t0") == [drawn("t0", "Other.")]


def test_labelers_of_one_name_in_two_datasets_are_apart(store: Store) -> None:
    fill(store, dataset="d")
    fill(store, dataset="e")
    store.labels.put("d", "judge", [judged("t0")])
    assert store.labels.load("e", "judge") == {}
    store.labels.remove_labeler("e", "judge")
    assert list(store.labels.load("d", "judge")) == ["t0"]


def test_one_bad_label_keeps_all_of_its_call_out(store: Store) -> None:
    fill(store)
    store.labels.put("d", "judge", [refused("t0")])
    with pytest.raises(InputError):
        store.labels.put("d", "judge", [judged("t0"), judged("t1", n_steps=2)])
    assert store.labels.load("d", "judge") == {"t0": refused("t0")}


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (judged("t0", n_steps=2), "2 step labels, but the trace has 3 steps"),
        (TraceLabel("t0"), "is empty"),
        (gold("t0", 3), "names step 3"),
        (gold("t0", -1), "negative"),
        (TraceLabel("t0", (FAIR,) * 3, first_error_index=1), "none was given"),
        (TraceLabel("t0", (StepLabel(), FAIR, FAIR)), "neither"),
        (TraceLabel("t0", (FAIR, StepLabel(score=0.5, abstention=NONE.abstention), FAIR)), "both"),
        (TraceLabel("t0", (StepLabel(score=math.nan), FAIR, FAIR)), "nan"),
        (TraceLabel("t0", (StepLabel(score=math.inf), FAIR, FAIR)), "inf"),
        (TraceLabel("t0", (StepLabel(score=-0.01), FAIR, FAIR)), "in [0, 1]"),
        (TraceLabel("t0", (StepLabel(score=1.01), FAIR, FAIR)), "in [0, 1]"),
        (TraceLabel("t0", (StepLabel(score=0.5, successes=-1), FAIR, FAIR)), "negative"),
        (TraceLabel("t0", (FAIR,) * 3, meta={"x": math.nan}), "nan"),
        (TraceLabel("t0", (FAIR,) * 3, meta={"x": {1, 2}}), "set"),
        (TraceLabel("t0", (FAIR,) * 3, meta={"x": {1: 2}}), "key 1"),
    ],
)
def test_a_label_that_cannot_be_right_is_refused(
    store: Store, label: TraceLabel, said: str
) -> None:
    fill(store)
    with pytest.raises(InputError) as caught:
        store.labels.put("d", "judge", [label])
    assert said in caught.value.what
    assert "t0" in caught.value.what
    assert store.labels.load("d", "judge") == {}


@pytest.mark.parametrize("score", [0, 0.0, 1, 1.0, 0.30000000000000004])
def test_scores_at_the_bounds_are_kept_exactly(store: Store, score: float) -> None:
    fill(store, "t0")
    store.labels.put("d", "judge", [TraceLabel("t0", (StepLabel(score=score), FAIR, NONE))])
    stored = store.labels.load("d", "judge")["t0"].step_labels
    assert stored == (StepLabel(score=score), FAIR, NONE)


def test_numbers_of_numpy_are_stored_as_numbers(store: Store) -> None:
    numpy: Any = pytest.importorskip("numpy")
    fill(store, "t0")
    step = StepLabel(score=numpy.float32(0.25), successes=numpy.int64(3))
    store.labels.put("d", "judge", [TraceLabel("t0", (step, FAIR, FAIR))])
    assert store.labels.load("d", "judge")["t0"].step_labels[0] == StepLabel(
        score=0.25, successes=3
    )


def test_unknown_traces_and_two_labels_for_one_are_refused(store: Store) -> None:
    fill(store)
    with pytest.raises(InputError, match="'x' and 1 more"):
        store.labels.put("d", "judge", [judged("y"), judged("t0"), judged("x")])
    with pytest.raises(InputError, match="two labels for trace 't0'"):
        store.labels.put("d", "judge", [judged("t0"), refused("t0")])


def test_continuations_need_their_label_in_the_same_call(store: Store) -> None:
    fill(store)
    store.labels.put("d", "judge", [judged("t1")])
    with pytest.raises(InputError, match="'t1'"):
        store.labels.put("d", "judge", [judged("t0")], continuations=[drawn("t1")])
    late = Continuation("t0", 3, 0, "x", "stop", None, None)
    with pytest.raises(InputError, match="step 3"):
        store.labels.put("d", "judge", [judged("t0")], continuations=[late])
    assert store.labels.unlabeled_trace_ids("d", "judge") == ["t0", "t2"]


def test_continuations_come_by_step_and_number(store: Store) -> None:
    fill(store)
    two = [drawn("t0", index=index) for index in (2, 0, 1)]
    store.labels.put("d", "judge", [judged("t0"), judged("t1")], continuations=two)
    assert [found.index for found in store.labels.continuations("d", "judge", "t0")] == [0, 1, 2]
    assert store.labels.continuations("d", "judge", "t1") == []


def test_every_name_that_can_be_mistyped_is_answered_with_the_known_ones(store: Store) -> None:
    with pytest.raises(InputError, match="no dataset 'x'") as caught:
        store.traces.require_dataset("x")
    assert "stepgold import" in str(caught.value.remedy)
    fill(store, dataset="gsm8k")
    for ask in (
        store.traces.require_dataset,
        store.traces.contexts,
        store.traces.problems,
        store.traces.import_summary,
        store.traces.remove_dataset,
        store.labels.labelers,
        store.evidence.missing_problems,
        store.labels.failures.load,
    ):
        with pytest.raises(InputError) as caught:
            ask("gms8k")
        assert caught.value.remedy == "did you mean 'gsm8k'? Known: gsm8k"
    for ask_labeler in (
        store.labels.labeler,
        store.labels.load,
        store.labels.remove_labeler,
        store.labels.unlabeled_trace_ids,
    ):
        with pytest.raises(InputError, match="no labeler 'mc'") as caught:
            ask_labeler("gsm8k", "mc")
        assert caught.value.remedy == "known: judge"
    with pytest.raises(InputError, match="no trace 'x'"):
        store.traces.contexts("gsm8k", trace_ids=["x"])
    with pytest.raises(InputError, match="no trace 'x'"):
        store.labels.continuations("gsm8k", "judge", "x")
    with pytest.raises(InputError, match="no labeler 'mc'"):
        store.labels.put("gsm8k", "mc", [])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Labeler("judge", LabelerKind.MC, {"votes": 1}, "gemini:m"), 'kind was "judge", now "mc"'),
        (Labeler("judge", LabelerKind.JUDGE, {"votes": 3}, "gemini:m"), "votes was 1, now 3"),
        (Labeler("judge", LabelerKind.JUDGE, {}, "gemini:m"), "votes was 1, now not set"),
        (Labeler("judge", LabelerKind.JUDGE, {"votes": 1}), 'model was "gemini:m", now null'),
        (
            Labeler("judge", LabelerKind.JUDGE, {"votes": 1, "model": "gemini:m"}),
            'model was "gemini:m", now null',
        ),
    ],
)
def test_the_same_name_with_another_configuration_is_refused_unless_replaced(
    store: Store, other: Labeler, said: str
) -> None:
    fill(store)
    store.labels.put("d", "judge", [judged("t0")])
    with pytest.raises(InputError) as caught:
        store.labels.declare("d", other)
    assert said in caught.value.what
    assert "--replace" in str(caught.value.remedy)
    assert list(store.labels.load("d", "judge")) == ["t0"]

    store.labels.declare("d", other, replace=True)
    assert store.labels.load("d", "judge") == {}
    assert store.labels.labeler("d", "judge") == other


@pytest.mark.parametrize("replace", [False, True])
def test_the_same_labeler_again_keeps_its_labels(store: Store, replace: bool) -> None:
    fill(store)
    store.labels.put("d", "judge", [judged("t0")])
    store.labels.declare("d", JUDGE, replace=replace)
    assert list(store.labels.load("d", "judge")) == ["t0"]


def test_every_model_version_that_answered_stays_visible(store: Store) -> None:
    fill(store)
    assert store.labels.labeler("d", "judge").resolved_model is None
    store.labels.put("d", "judge", [judged("t0")], resolved_model="m-002")
    assert store.labels.labeler("d", "judge").resolved_model == "m-002"
    store.labels.put("d", "judge", [judged("t1")], resolved_model="m-001")
    store.labels.put("d", "judge", [judged("t2")], resolved_model="m-002")
    store.labels.put("d", "judge", [judged("t2")])
    assert store.labels.labeler("d", "judge").resolved_model == "m-001, m-002"
    store.labels.declare("d", JUDGE)
    assert store.labels.labelers()[0].labeler.resolved_model == "m-001, m-002"


def test_the_summary_of_labelers(store: Store) -> None:
    store.traces.import_file("d", source(), [row("t0", labels=[(GOLD, gold("t0"))]), row("t1")])
    store.labels.declare("d", JUDGE)
    store.labels.put(
        "d", "judge", [TraceLabel("t0", (FAIR, NONE, StepLabel(score=0.1))), refused("t1")]
    )
    fill(store, dataset="e")
    assert store.labels.labelers() == [
        LabelerSummary("d", GOLD, traces=1, steps=0, abstained=0),
        LabelerSummary("d", JUDGE, traces=2, steps=2, abstained=1),
        LabelerSummary("e", JUDGE, traces=0, steps=0, abstained=0),
    ]
    assert [summary.dataset for summary in store.labels.labelers("e")] == ["e"]


def test_removing_a_labeler_removes_its_labels_only(store: Store) -> None:
    store.traces.import_file("d", source(), [row("t0", labels=[(GOLD, gold("t0"))])])
    store.labels.declare("d", JUDGE)
    store.labels.put("d", "judge", [judged("t0")], continuations=[drawn("t0")])
    store.labels.remove_labeler("d", "judge")
    assert [summary.labeler.name for summary in store.labels.labelers()] == ["gold"]
    assert list(store.labels.load("d", "gold")) == ["t0"]
    with store._connections.read() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM continuations").scalar()
    assert left == 0


def test_failures_are_what_was_put_and_where_working_labelers_abstained(store: Store) -> None:
    words = [row("t0", labels=[(GOLD, refused("t0", AbstentionReason.GOLD_UNUSABLE))]), row("t1")]
    store.traces.import_file("d", source(), words)
    store.labels.declare("d", JUDGE)
    store.labels.declare("d", Labeler("consensus", LabelerKind.CONSENSUS))
    store.labels.put("d", "judge", [refused("t1", AbstentionReason.TRUNCATED), judged("t0")])
    store.labels.put("d", "consensus", [refused("t0", AbstentionReason.DISAGREEMENT)])
    lost = Failure("t0", "retrieve", AbstentionReason.MODEL_ERROR, True, "down")
    store.labels.failures.put("d", [lost])
    store.labels.failures.put(
        "d", [Failure("t0", "gold", AbstentionReason.GOLD_UNUSABLE, False, "2")]
    )

    assert store.labels.failures.load() == [
        ("d", Failure("t0", "gold", AbstentionReason.GOLD_UNUSABLE, False, "no")),
        ("d", Failure("t1", "judge", AbstentionReason.TRUNCATED, True, "no")),
        ("d", lost),
    ]


def test_a_failure_is_cleared_by_the_label_or_the_evidence_that_was_missing(store: Store) -> None:
    fill(store)
    for stage in ("judge", "mc", "retrieve"):
        store.labels.failures.put(
            "d", [Failure("t0", stage, AbstentionReason.MODEL_ERROR, True, "1")]
        )
        again = Failure("t0", stage, AbstentionReason.MODEL_ERROR, True, "2")
        assert store.labels.failures.put("d", [again]) == 1
    assert [failure.detail for _, failure in store.labels.failures.load("d")] == ["2"] * 3
    store.labels.put("d", "judge", [judged("t0")])
    store.evidence.put("d", [("t0", ())])
    assert [failure.stage for _, failure in store.labels.failures.load("d")] == ["mc"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE labelers SET kind = 'oracle'",
        "UPDATE step_labels SET marks = 'c?c'",
        "UPDATE step_labels SET marks = ''",
        "UPDATE step_labels SET scores = CAST('ab' AS bytea)",
        "UPDATE step_labels SET labeled = 4",
        "UPDATE trace_labels SET abstention = 'tired'",
        "UPDATE trace_labels SET first_error_index = 1",
        "UPDATE traces SET n_steps = 0",
        "INSERT INTO steps VALUES (999, 0, 'x')",
    ],
)
def test_the_database_itself_refuses_what_the_checks_refuse(store: Store, statement: str) -> None:
    fill(store)
    store.labels.put("d", "judge", [judged("t0")])
    with pytest.raises(exc.IntegrityError), store._connections.write() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize("kind", [LabelerKind.JUDGE, LabelerKind.MC, LabelerKind.PRM])
def test_only_human_annotation_is_called_gold(store: Store, kind: LabelerKind) -> None:
    """A judge under that name would be the truth that judges are measured by."""
    fill(store)
    store.labels.declare("d", GOLD)
    store.labels.put("d", "gold", [gold("t0", 1)])
    for replace in (False, True):
        with pytest.raises(InputError, match="human annotation"):
            store.labels.declare("d", Labeler("gold", kind, {}), replace=replace)
    assert store.labels.load("d", "gold") == {"t0": gold("t0", 1)}


def test_candidates_of_a_problem_clear_its_failure(store: Store) -> None:
    problem = Problem("p", "2+2?")
    store.traces.sampled.declare("d", "drawn", {"n": 1})
    for stage in ("drawn", "other"):
        store.labels.failures.put(
            "d", [Failure("p", stage, AbstentionReason.MODEL_ERROR, retryable=True, detail="")]
        )
    store.traces.sampled.add(
        "d", "drawn", problem, kept=[Trace("p:drawn:0", "p", ("four",))], refused=[]
    )
    assert [failure.stage for _, failure in store.labels.failures.load()] == ["other"]
