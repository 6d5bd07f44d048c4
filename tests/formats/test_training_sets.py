"""Training sets: what they hold to the letter, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from formats import ExportRow, write_file
from formats.rows import FormatLimit
from tests.formats.builders import jsonl, labels_by_name, read
from tests.formats.samples import OPENRLHF, QWEN_PRM, SHAREGPT
from tests.formats.test_writing import row
from traces.errors import InputError
from traces.labels import AbstentionReason, LabelerKind, Verdict
from traces.problem import Problem

C, N, I = Verdict.CORRECT, Verdict.NEUTRAL, Verdict.INCORRECT  # noqa: E741
WHO: dict[str, Any] = {"labeler": "mine", "kind": LabelerKind.MC}
ASKED = "What?\n(A) x\n(B) y"
NAMED = {"trace_id": "t1", "labeler": {"name": "consensus", "kind": "consensus"}}


def written(tmp_path: Path, format: str, exported: ExportRow) -> Any:
    assert write_file(format, tmp_path / "o.jsonl", [exported]).written == 1
    return json.loads((tmp_path / "o.jsonl").read_text())


def test_openrlhf_marks_every_step_and_lists_its_label(tmp_path: Path) -> None:
    assert written(tmp_path, "openrlhf", row([C, I], steps=("one", "Step 2: two"))) == {
        "input": f"{ASKED} Step 1: one ки\nStep 2: two ки",
        "value": ["+", "-"],
        **NAMED,
    }
    assert written(tmp_path, "openrlhf", row([0.75, 0.0]))["value"] == [0.75, 0.0]


def test_qwen_prm_puts_the_steps_into_the_assistants_turn(tmp_path: Path) -> None:
    assert written(tmp_path, "qwen-prm", row([C, I])) == {
        "messages": [
            {
                "role": "system",
                "content": "Please reason step by step, and put your final answer within \\boxed{}.",
            },
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": "step 0<extra_0>step 1<extra_0>"},
        ],
        "labels": [True, False],
        **NAMED,
    }


def test_sharegpt_asks_step_by_step_and_places_the_images(tmp_path: Path) -> None:
    exported = row([C, I])
    exported = replace(exported, problem=Problem("q", "Which?", images=("a.png", "b.png")))
    turns = written(tmp_path, "sharegpt", exported)
    assert turns["image"] == ["a.png", "b.png"]
    assert turns["conversations"] == [
        {
            "from": "human",
            "value": "### Question:\n<image>\n<image>\nWhich?\n\n### Solution Process:\nstep 0",
        },
        {"from": "gpt", "value": "+"},
        {"from": "human", "value": "step 1"},
        {"from": "gpt", "value": "-"},
    ]


@pytest.mark.parametrize(
    ("format", "sample", "question", "steps"),
    [
        ("openrlhf", OPENRLHF, "How many?", 2),
        ("qwen-prm", QWEN_PRM, "What is 2 + 3?", 2),
        ("sharegpt", SHAREGPT, "How many?", 2),
    ],
)
def test_a_training_set_is_read_back(
    tmp_path: Path, format: str, sample: dict[str, Any], question: str, steps: int
) -> None:
    path = jsonl(tmp_path / "set.jsonl", [sample, sample | {"trace_id": "mine-7"}])
    (first, second), rejected = read(format, path, **WHO)
    assert not rejected
    assert (first.trace.id, second.trace.id) == ("set:0", "mine-7")
    assert (first.problem.question, len(first.trace.steps)) == (question, steps)
    assert [each.verdict for each in labels_by_name(first)["mine"].step_labels] == [C, I]
    with pytest.raises(InputError, match="do not name their labeler"):
        read(format, path)


@pytest.mark.parametrize(
    ("format", "sample", "key"),
    [("openrlhf", OPENRLHF, "value"), ("qwen-prm", QWEN_PRM, "labels")],
)
def test_labels_of_another_number_of_steps_are_listed(
    tmp_path: Path, format: str, sample: dict[str, Any], key: str
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [sample | {key: [True]}])
    (item,), (listed,) = read(format, path, **WHO)
    abstention = labels_by_name(item)["mine"].abstention
    assert abstention is not None
    assert abstention.reason is AbstentionReason.UNREADABLE
    assert (listed.imported, "1 labels for 2 steps" in listed.reason) == (True, True)


@pytest.mark.parametrize(
    ("format", "changes", "word"),
    [
        ("openrlhf", {"value": ["+", "?"]}, "'?'"),
        ("openrlhf", {"value": [2, 0]}, "a label is 2"),
        ("qwen-prm", {"messages": "hi"}, "not a list"),
        ("qwen-prm", {"messages": [{"role": "user", "content": "a"}]}, "one turn of the user"),
        ("qwen-prm", {"messages": [{"role": "user", "content": "a"}] * 2}, "two turns"),
        (
            "qwen-prm",
            {"messages": [*QWEN_PRM["messages"][:2], {"role": "assistant", "content": "no mark"}]},
            "does not end with",
        ),
        ("sharegpt", {"conversations": []}, "not a list of turns"),
        ("sharegpt", {"conversations": SHAREGPT["conversations"][:3]}, "do not alternate"),
        ("sharegpt", {"conversations": SHAREGPT["conversations"][2:]}, "lacks the headings"),
    ],
)
def test_a_wrong_field_rejects_the_row(
    tmp_path: Path, format: str, changes: dict[str, Any], word: str
) -> None:
    sample = {"openrlhf": OPENRLHF, "qwen-prm": QWEN_PRM, "sharegpt": SHAREGPT}[format]
    traces, (rejected,) = read(format, jsonl(tmp_path / "a.jsonl", [sample | changes]), **WHO)
    assert not traces
    assert word in rejected.reason


@pytest.mark.parametrize(
    ("format", "question", "step"),
    [
        ("openrlhf", "What?", "a ки"),
        ("qwen-prm", "What?", "a<extra_0>"),
        ("qwen-prm", "Is <extra_0>?", "a"),
        ("sharegpt", "Q\n\n### Solution Process:\nx", "a"),
        ("sharegpt", "<image>\nQ", "a"),
    ],
)
def test_a_text_that_would_shift_the_labels_is_not_written(
    tmp_path: Path, format: str, question: str, step: str
) -> None:
    exported = replace(row([C, I], steps=(step, "b")), problem=Problem("q", question))
    outcome = write_file(format, tmp_path / "o", [exported])
    assert [skipped.reason for skipped in outcome.skipped] == [FormatLimit.NOT_CARRIED]


def test_what_a_training_set_has_no_place_for_is_counted_by_name(tmp_path: Path) -> None:
    outcome = write_file(
        "trl", tmp_path / "o.jsonl", [row([C, N, I]), row([C, C], subset="default")]
    )
    assert outcome.not_carried == {
        "answer": 2, "evidence": 2, "final_answer": 2, "final_answer_correct": 2, "neutral": 1, "subset": 1,
    }  # fmt: skip


def test_a_judges_words_never_come_back_as_human_gold(tmp_path: Path) -> None:
    for format in (
        "processbench",
        "big-bench-mistake",
        "prmbench",
        "prm800k",
        "visualprocessbench",
    ):
        path = tmp_path / f"{format}.jsonl"
        assert write_file(format, path, [row([C, I])]).written == 1
        (item,), _ = read(format, path)
        assert [(who.name, who.kind) for who, _ in item.labels] == [
            ("consensus", LabelerKind.CONSENSUS)
        ]
