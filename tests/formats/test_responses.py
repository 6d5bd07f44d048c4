"""Unsplit responses: the rule is stored, nothing is lost, and the text can be put together again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats import read_file
from formats.field.responses import join_steps, split_response
from traces import ImportedTrace, InputError, TraceFormatError

NUMBERED = "Let us see.\nStep 1: Add, as in\nStep 7: of the book.\n\nStep 2: Done.\n"
CODE = "First.\n\n```\na = 1\n\nb = 2\n```\n\n$$x\n\ny$$\n\nLast."


def rows(path: Path, *given: dict[str, Any], **options: Any) -> list[ImportedTrace]:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in given))
    found = list(read_file("responses", path, **options))
    return [one for one in found if isinstance(one, ImportedTrace)]


@pytest.mark.parametrize(
    ("text", "rule", "steps"),
    [
        ("One.\n\nTwo.\n \nThree.", "blank-lines", ["One.", "Two.", "Three."]),
        (NUMBERED, "numbered", ["Let us see.", "Step 1: Add, as in\nStep 7: of the book.", "Step 2: Done."]),
        ("As in Step 1: of the text, 2. holds.", "numbered", ["As in Step 1: of the text, 2. holds."]),
        (CODE, "blank-lines", ["First.", "```\na = 1\n\nb = 2\n```", "$$x\n\ny$$", "Last."]),
        ("a ## b\n## c", "markers:^## ", ["a ## b", "## c"]),
        ("1. One\n2. Two", "auto", ["1. One", "2. Two"]),
        ("먼저.\n1단계: 하나.\n2단계: 둘.", "auto", ["먼저.", "1단계: 하나.", "2단계: 둘."]),
        ("단계 1: 하나.\n단계 2: 둘. 2단계: 아님", "numbered", ["단계 1: 하나.", "단계 2: 둘. 2단계: 아님"]),
        ("步骤1：一。\n步骤2：二。", "auto", ["步骤1：一。", "步骤2：二。"]),
        ("第一步，一。\n第二步，二。", "auto", ["第一步，一。", "第二步，二。"]),
        ("ステップ1：一。\nステップ2：二。", "auto", ["ステップ1：一。", "ステップ2：二。"]),
        ("1. One\n\nrest", "auto", ["1. One", "rest"]),
    ],
)  # fmt: skip
def test_rules(text: str, rule: str, steps: list[str]) -> None:
    found, around, _ = split_response(text, rule)
    assert list(found) == steps
    assert join_steps(found, around) == text


@given(
    st.text("ab1.2 \n\t#$`:Step", max_size=60),
    st.sampled_from(["blank-lines", "numbered", "auto", "markers:b"]),
)
def test_the_text_can_be_put_together_again(text: str, rule: str) -> None:
    steps, around, _ = split_response(text, rule)
    assert join_steps(steps, around) == text
    assert all(step.strip() == step != "" for step in steps)
    assert not "".join(around).strip()


def test_the_rule_is_stored_with_the_trace(tmp_path: Path) -> None:
    row = {"id": 7, "problem": "2 + 2?", "answer": 4, "response": NUMBERED, "model": "m"}
    (one,) = rows(tmp_path / "r.jsonl", row)
    assert (one.trace.id, one.problem.answer, one.labels) == ("7", "4", ())
    split = one.trace.meta["split"]
    assert (split["asked"], split["rule"], one.trace.meta["model"]) == ("auto", "numbered", "m")
    assert join_steps(one.trace.steps, split["around"]) == NUMBERED
    (other,) = rows(tmp_path / "r.jsonl", row, split="blank-lines")
    assert len(other.trace.steps) == 2


@pytest.mark.parametrize("rule", ["lines", "markers:", "markers:("])
def test_an_unknown_rule_is_refused(tmp_path: Path, rule: str) -> None:
    with pytest.raises(InputError, match="'"):
        rows(tmp_path / "r.jsonl", {"id": "a", "problem": "p", "response": "r"}, split=rule)


def test_no_format_is_recommended_that_refuses_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": 0, "question": "2+3?", "now_step": "5", "label": 1}]))
    with pytest.raises(TraceFormatError) as fault:
        list(read_file("processbench", path))
    assert "prm800k" not in str(fault.value)
    assert "its first row has the keys" in fault.value.what
    path.write_text(json.dumps([{"id": "a", "problem": "p", "response": "r"}]))
    with pytest.raises(TraceFormatError) as fault:
        list(read_file("processbench", path))
    assert fault.value.remedy == "stepgold import responses ..."
