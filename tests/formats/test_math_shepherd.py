"""Math-Shepherd: two texts that must match mark by mark."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.builders import jsonl, labels_by_name, read
from traces.labels import Verdict

INPUT = "How many? Step 1: 2 + 2 = 4. ки\nStep 2: So 5. The answer is: 5 ки"
LABEL = "How many? Step 1: 2 + 2 = 4. +\nStep 2: So 5. The answer is: 5 -"


def test_reads_a_row_to_the_letter(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "ms.jsonl", [{"input": INPUT, "label": LABEL, "task": "GSM8K"}] * 2)
    first, second = read("math-shepherd", path)[0]
    assert (first.trace.id, second.trace.id) == ("ms:0", "ms:1")
    assert first.problem.question == "How many?"
    assert first.problem == second.problem
    assert first.trace.steps == ("Step 1: 2 + 2 = 4.", "Step 2: So 5. The answer is: 5")
    assert first.trace.subset == "GSM8K"
    label = labels_by_name(first)["math_shepherd"]
    assert [step.verdict for step in label.step_labels] == [Verdict.CORRECT, Verdict.INCORRECT]
    assert first.labels[0][0].kind == "mc"


@pytest.mark.parametrize(
    ("input", "label", "word"),
    [
        (INPUT, LABEL.replace("+\n", "?\n"), "mark 1 of 2"),
        (INPUT, LABEL.replace("So 5", "So 6"), "mark 2 of 2"),
        (INPUT, LABEL + " more", "continues after"),
        (INPUT, LABEL[:-2], "mark 2 of 2"),
        (INPUT + " tail", LABEL, "after its last"),
        ("Step 1: a", "Step 1: a", "no step mark"),
        ("no question ки", "no question +", "Step 1"),
        ("Q? Step 1: a ки ки", "Q? Step 1: a + -", "blank"),
    ],
)
def test_texts_that_do_not_match_are_quarantined(
    tmp_path: Path, input: str, label: str, word: str
) -> None:
    traces, (rejected,) = read(
        "math-shepherd", jsonl(tmp_path / "ms.jsonl", [{"input": input, "label": label}])
    )
    assert not traces
    assert word in rejected.reason
    assert rejected.id == "ms:0"


def test_the_first_step_is_found_behind_the_question_mark_too(tmp_path: Path) -> None:
    (item,), _ = read(
        "math-shepherd",
        jsonl(tmp_path / "m.jsonl", [{"input": "Is it? It is. ки", "label": "Is it? It is. +"}]),
    )
    assert (item.problem.question, item.trace.steps) == ("Is it?", ("It is.",))
