"""FoVer, Hard2Verify, DeltaBench and AgentProcessBench, as they are published."""

from __future__ import annotations

import base64
import hashlib
import json
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from formats import NeutralPolicy
from tests.formats.builders import jsonl, read
from tests.formats.samples import AGENTPROCESSBENCH, DELTABENCH, FOVER, HARD2VERIFY
from traces import AbstentionReason, LabelerKind

GOOD, BAD, NEUTRAL = "correct", "incorrect", "neutral"


def one(tmp_path: Path, format: str, row: dict[str, Any], **options: Any) -> Any:
    traces, rejected = read(format, jsonl(tmp_path / "f.jsonl", [row]), **options)
    return traces[0] if traces else rejected[0]


def verdicts(item: Any) -> list[str | None]:
    ((_, label),) = item.labels
    return [None if step.verdict is None else step.verdict.value for step in label.step_labels]


def unusable(item: Any) -> bool:
    ((_, label),) = item.labels
    return (
        label.abstention is not None and label.abstention.reason is AbstentionReason.GOLD_UNUSABLE
    )


def test_fover_is_true_for_a_correct_step(tmp_path: Path) -> None:
    item = one(tmp_path, "fover", FOVER)
    assert (item.trace.id, item.trace.subset) == ("f1", "isabelle_all")
    assert item.trace.steps == tuple(FOVER["solution_steps"])
    assert item.trace.meta == {"y_true": "PROVED"}
    assert verdicts(item) == [GOOD, BAD, None]
    ((labeler, _),) = item.labels
    assert (labeler.name, labeler.kind) == ("fover", LabelerKind.JUDGE)


@pytest.mark.parametrize(
    ("format", "row", "key"),
    [("fover", FOVER, "error_labels"), ("hard2verify", HARD2VERIFY, "human_labels")],
)
def test_a_row_without_labels_is_rejected_and_no_defect(
    tmp_path: Path, format: str, row: dict[str, Any], key: str
) -> None:
    without = {name: value for name, value in row.items() if name != key} | {"id": "x"}
    _, (rejected,) = read(format, jsonl(tmp_path / "f.jsonl", [row, without]))
    assert rejected.reason == "the labels are not a list"


@pytest.mark.parametrize("labels", [[1.0, 0.0, None], [1, 0, None]])
def test_numbers_are_verdicts(tmp_path: Path, labels: list[Any]) -> None:
    assert verdicts(one(tmp_path, "fover", FOVER | {"error_labels": labels})) == [GOOD, BAD, None]


def masked(row: dict[str, Any]) -> dict[str, Any]:
    """As the benchmark's authors mask a row."""
    stream = hashlib.sha256(row["canary"].encode()).digest()

    def mask(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value)
        data = bytes(a ^ b for a, b in zip(text.encode(), cycle(stream), strict=False))
        return base64.b64encode(data).decode()

    plain = ("question", "model_response_by_step", "human_labels", "human_labels_first_error_idx")
    return row | {key: mask(row[key]) for key in plain}


@pytest.mark.parametrize("row", [HARD2VERIFY, masked(HARD2VERIFY)])
def test_hard2verify_is_read_masked_and_plain(tmp_path: Path, row: dict[str, Any]) -> None:
    item = one(tmp_path, "hard2verify", row)
    assert (item.trace.id, item.trace.generator) == ("h1", "m")
    assert item.problem.question == "Prove that n + n is even."
    assert item.trace.steps == ("n + n = 2n.", "2n is odd.", "Done.")
    assert verdicts(item) == [GOOD, BAD, BAD]
    assert item.trace.meta == {}


def test_hard2verify_of_another_canary_is_rejected(tmp_path: Path) -> None:
    row = one(tmp_path, "hard2verify", masked(HARD2VERIFY) | {"canary": "c-2"})
    assert (row.id, row.imported) == ("h1", False)


def test_a_contradicting_first_error_is_noted(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "f.jsonl", [HARD2VERIFY | {"human_labels_first_error_idx": 2}])
    (item,), (note,) = read("hard2verify", path)
    assert verdicts(item) == [GOOD, BAD, BAD]
    assert (note.imported, note.harmless) == (True, True)


@pytest.mark.parametrize(
    "row", [FOVER | {"error_labels": [True]}, HARD2VERIFY | {"human_labels": [1]}]
)
def test_another_number_of_labels_keeps_the_trace(tmp_path: Path, row: dict[str, Any]) -> None:
    format = "fover" if "error_labels" in row else "hard2verify"
    (item,), (note,) = read(format, jsonl(tmp_path / "f.jsonl", [row]))
    assert item.labels[0][1].abstention is not None
    assert (note.imported, note.harmless) == (True, None)


def test_deltabench_is_judged_up_to_its_last_error(tmp_path: Path) -> None:
    item = one(tmp_path, "deltabench", DELTABENCH)
    assert item.trace.steps == (
        "2 + 3 = 5.",
        "hmm, wait.\n\nsee section 7:",
        "5 + 4 = 10.",
        "so 10.",
    )
    assert (item.trace.id, item.trace.subset, item.problem.answer) == ("d1", "math", "9")
    assert item.trace.final_answer_correct is False
    assert verdicts(item) == [GOOD, NEUTRAL, BAD, None]
    ((_, label),) = item.labels
    assert label.meta == {"sections": [{"section_number": 3, "explanation": "It is 9."}]}
    official = one(tmp_path, "deltabench", DELTABENCH, neutral=NeutralPolicy.NEGATIVE)
    assert verdicts(official) == [GOOD, BAD, BAD, None]


def test_deltabench_without_errors_is_correct_throughout(tmp_path: Path) -> None:
    empty = {"reason_error_section_numbers": "[]", "reason_unuseful_section_numbers": []}
    row = {key: value for key, value in DELTABENCH.items() if key != "sections_labeled_info"}
    assert verdicts(one(tmp_path, "deltabench", row | empty)) == [GOOD] * 4


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"sections_content": "no sections"}, "section1"),
        ({"sections_content": None}, "not a text"),
    ],
)
def test_a_faulty_row_of_deltabench_is_rejected(
    tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    assert word in one(tmp_path, "deltabench", DELTABENCH | changes).reason


def test_an_error_outside_the_sections_is_unusable(tmp_path: Path) -> None:
    item = one(tmp_path, "deltabench", DELTABENCH | {"reason_error_section_numbers": [9]})
    assert unusable(item)


def test_a_step_of_an_agent_is_an_action_with_its_observation(tmp_path: Path) -> None:
    item = one(tmp_path, "agentprocessbench", AGENTPROCESSBENCH)
    assert item.trace.id == "3"
    assert item.problem.question == "Use the tools.\n\nWho wrote it?"
    assert item.problem.answer == "Ann"
    assert item.trace.steps == (
        'I search.\nsearch({"q": "it"})\n[search] It was written by Ann.',
        "Let me think.",
        "Bob wrote it.",
    )
    assert verdicts(item) == [GOOD, NEUTRAL, BAD]
    assert (item.trace.final_answer, item.trace.final_answer_correct) == ("Bob", False)
    assert item.trace.subset == "made"


def test_a_judge_may_omit_keys_but_not_invent_them(tmp_path: Path) -> None:
    omitted = one(tmp_path, "agentprocessbench", AGENTPROCESSBENCH | {"step_labels": {"2": 1.0}})
    assert verdicts(omitted) == [GOOD, None, None]
    assert unusable(
        one(tmp_path, "agentprocessbench", AGENTPROCESSBENCH | {"step_labels": {"3": 1}})
    )


def test_a_silent_agent_has_a_step(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": None}]
    row = AGENTPROCESSBENCH | {"messages": messages, "step_labels": {"1": -1}}
    item = one(tmp_path, "agentprocessbench", row)
    assert item.trace.steps == ("(empty message)",)
    assert verdicts(item) == [BAD]
