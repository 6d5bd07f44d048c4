"""Columns: ids, first errors, verdicts and scores as arrays, a part at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import LabelArrays, Store
from storage.steps import CODES, MARKS, pack_steps, unpack_steps
from tests.storage.builders import GOLD, JUDGE, gold, row, source
from tests.storage.test_store_round_trip import trace_labels
from traces import (
    Abstention,
    AbstentionReason,
    StepLabel,
    TraceLabel,
    Verdict,
    first_error,
)
from traces.errors import InputError

MIXED = (
    StepLabel(Verdict.NEUTRAL, 0.5),
    StepLabel(score=0.25),
    StepLabel(abstention=Abstention(AbstentionReason.NO_EVIDENCE, "none")),
)


def labeled(store: Store, *, traces: int = 25) -> list[str]:
    """Two files; gold and the judge label some of the traces."""
    names = [f"t{number:02}" for number in range(traces)]
    store.traces.import_file("d", source("b.json"), [row(name) for name in names[:15]])
    store.traces.import_file("d", source("a.json"), [row(name) for name in names[15:]])
    store.traces.import_file("other", source(), [row("x")])
    store.labels.declare("d", GOLD)
    store.labels.declare("d", JUDGE)
    store.labels.put("d", "gold", [gold(name, number % 3) for number, name in enumerate(names)])
    store.labels.put("d", "judge", [TraceLabel(name, MIXED) for name in reversed(names[::2])])
    return names


def test_traces_come_in_the_order_of_import_part_by_part(store: Store) -> None:
    names = labeled(store)
    parts = list(store.traces.columns("d", size=4))
    assert [len(part.ids) for part in parts] == [4] * 6 + [1]
    assert [name for part in parts for name in part.ids] == names
    assert [name for part in parts for name in part.problem_ids] == names
    assert {count for part in parts for count in part.n_steps.tolist()} == {3}
    assert list(store.traces.ids("d", subset="default")) == names
    assert list(store.traces.ids("d", subset="none")) == []
    with pytest.raises(InputError, match="no dataset"):
        store.traces.columns("absent").__next__()


def test_labels_come_as_arrays(store: Store) -> None:
    names = labeled(store)
    parts = list(store.labels.columns("d", "judge", size=4))
    assert [len(part.ids) for part in parts] == [2] * 6 + [1]
    found = LabelArrays.join(parts)
    assert found.ids == names[::2]
    assert found.offsets.tolist() == list(range(0, 40, 3))
    assert found.verdicts[:3].tolist() == [CODES[Verdict.NEUTRAL], 0, 0]
    assert found.scored[:3].tolist() == [True, True, False]
    assert found.scores[:2].tolist() == [0.5, 0.25]
    place = list(AbstentionReason).index(AbstentionReason.NO_EVIDENCE) + 1
    assert found.reasons[:3].tolist() == [0, 0, place]
    whole = LabelArrays.join(list(store.labels.columns("d", "gold")))
    assert whole.first_error_index.tolist() == [number % 3 for number in range(25)]
    assert len(whole.marks) == 0


def test_labels_of_given_traces_keep_their_order(store: Store) -> None:
    names = labeled(store)
    for part in store.traces.columns("d", size=10):
        judge = store.labels.columns_of("d", "judge", part)
        here = np.isin(part.keys, judge.keys)
        assert [name for name, has in zip(part.ids, here, strict=True) if has] == judge.ids
        assert judge.ids == [name for name in part.ids if name in names[::2]]


def test_labels_of_some_traces_are_read_without_the_others(store: Store) -> None:
    names = labeled(store)
    some = store.labels.load("d", "judge", [names[20], names[1], names[2]])
    assert list(some) == [names[2], names[20]]
    assert some[names[2]].step_labels == MIXED
    assert list(some.values()) == [
        label for label in store.labels.stream("d", "judge") if label.trace_id in some
    ]


@pytest.mark.slow
@given(st.lists(trace_labels("t", 3), max_size=6), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_first_errors_are_those_of_the_labels(labels: list[TraceLabel], threshold: float) -> None:
    rows = []
    for key, label in enumerate(labels):
        steps = pack_steps(label.step_labels, "t") if label.step_labels else None
        marks, scores = (steps.marks, steps.scores) if steps else (None, None)
        reason = label.abstention.reason.value if label.abstention else None
        first = (label.first_error_given, label.first_error_index)
        rows.append((key, "t", reason, *first, marks, scores))
    for tie in (True, False):
        found = LabelArrays.of(rows).first_errors(threshold, tie_is_correct=tie)
        expected = [first_error(label, threshold, tie_is_correct=tie) for label in labels]
        assert found[0].tolist() == [each.missing for each in expected]
        assert found[1].tolist() == [each.index is not None for each in expected]
        assert found[2].tolist() == [each.index or 0 for each in expected]


def test_characters_of_steps_are_distinct_and_cover_every_word() -> None:
    assert set(MARKS) == {*Verdict, *AbstentionReason}
    letters = [*MARKS.values(), *(MARKS[verdict].upper() for verdict in Verdict), "S"]
    assert len(set(letters)) == len(letters) == 20


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (StepLabel(), "neither"),
        (StepLabel(score=0.5, abstention=Abstention(AbstentionReason.BLOCKED)), "both"),
        (StepLabel(score=float("nan")), "not a finite number"),
        (StepLabel(score=1.5), r"in \[0, 1\]"),
        (StepLabel(Verdict.CORRECT, continuations=-1), "negative"),
    ],
)
def test_a_step_that_cannot_be_stored_is_refused(step: StepLabel, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        pack_steps((StepLabel(Verdict.CORRECT), step), "t")


def test_a_numpy_score_is_stored_as_its_value() -> None:
    score: object = np.float32(0.25)
    packed = pack_steps((StepLabel(score=score),), "t")  # type: ignore[arg-type]
    assert unpack_steps(packed.marks, packed.scores) == (StepLabel(score=0.25),)
