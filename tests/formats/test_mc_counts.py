"""Files with Monte Carlo labels of steps: VisualPRM400K's raw counts, and OpenR's prefixes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats.builders import jsonl, read
from tests.formats.samples import OPENR, VISUALPRM_RAW
from traces import AbstentionReason, LabelerKind, Verdict

WHO: dict[str, Any] = {"labeler": "aps", "kind": LabelerKind.MC}


def test_counts_are_kept_and_0_of_0_is_not_measured(tmp_path: Path) -> None:
    row = VISUALPRM_RAW | {"question_orig": "3 squared?", "num_mc_sequences": 16}
    (found,), rejected = read("visualprm-raw", jsonl(tmp_path / "r.jsonl", [row]))
    assert not rejected
    assert (found.problem.question, found.problem.answer, found.problem.images) == (
        "3 squared?",
        "9",
        ("a.png",),
    )
    assert found.trace.steps == ("Square it.", "It is 9.")
    assert found.trace.meta == {"num_mc_sequences": 16}
    ((labeler, label),) = found.labels
    assert (labeler.name, labeler.kind) == ("visualprm", LabelerKind.MC)
    first, second = label.step_labels
    assert (first.score, first.successes, first.continuations) == (0.75, 12, 16)
    assert (second.score, second.successes, second.continuations) == (None, 0, 0)
    assert second.abstention is not None
    assert second.abstention.reason is AbstentionReason.NOT_MEASURED


@pytest.mark.parametrize(
    "step",
    [
        {"step": "a", "num_mc_correct": 2, "num_mc_total": 1},
        {"step": "a", "num_mc_correct": -1, "num_mc_total": 1},
        {"step": "a", "num_mc_correct": "1", "num_mc_total": 1},
        {"step": "a", "score": 0.5},
        {"step": " ", "num_mc_correct": 1, "num_mc_total": 1},
        "a",
    ],
)
def test_what_is_no_count_rejects_the_row(tmp_path: Path, step: Any) -> None:
    path = jsonl(tmp_path / "r.jsonl", [VISUALPRM_RAW | {"steps_with_score": [step]}])
    traces, (rejected,) = read("visualprm-raw", path)
    assert not traces
    assert rejected.id == "r:0"


def test_openr_steps_end_with_line_breaks_or_the_mark(tmp_path: Path) -> None:
    marked = {"question": "2 + 3?", "process": "2 + 3 = 5. ки So 6. ки", "labels": [0.75, 0]}
    path = jsonl(tmp_path / "o.jsonl", [OPENR, marked])
    (first, second), rejected = read("openr", path, **WHO)
    assert not rejected
    assert first.trace.steps == second.trace.steps == ("2 + 3 = 5.", "So 6.")
    label = first.labels[0][1]
    assert [step.verdict for step in label.step_labels] == [Verdict.CORRECT, Verdict.INCORRECT]
    label = second.labels[0][1]
    assert (label.step_labels[0].score, label.step_labels[1].verdict) == (0.75, Verdict.INCORRECT)


def test_openr_s_single_label_belongs_to_the_last_step(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "o.jsonl", [OPENR | {"label": ["-"]}])
    (found,), rejected = read("openr", path, **WHO)
    assert not rejected
    first, last = found.labels[0][1].step_labels
    assert (first.verdict, last.verdict) == (None, Verdict.INCORRECT)
    assert first.abstention is not None
    assert first.abstention.reason is AbstentionReason.NOT_MEASURED
    path = jsonl(tmp_path / "o.jsonl", [OPENR | {"label": ["+", "-", "+"]}])
    (found,), (note,) = read("openr", path, **WHO)
    assert note.imported
    assert "3 labels for 2 steps" in note.reason
