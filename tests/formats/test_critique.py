"""Chat messages for critics: what they say, that trainers read them, and what is not read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from formats import ExportRow, export_formats, write_file
from formats.registry import guess_format
from formats.rows import imported_evidence
from tests.formats.builders import jsonl, read
from tests.formats.test_round_trip import BOTH_WAYS
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
    first_error,
)

C, WRONG = Verdict.CORRECT, Verdict.INCORRECT
JUDGE = Labeler("judge", LabelerKind.JUDGE)
QUOTE = Quote("6 mg\nper kg", 1, verified=True, start=0, end=12, method="near")
OPEN = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED))
ASKS = """\
Check the solution of a problem. The solution is split into paragraphs, each between tags with its index; the first index is 0.

Documents:

[1] Dosing
Zentide dose is 6 mg
per kg.

Problem:

Which dose?
(A) 60 mg
(B) 70 mg

Solution:

<paragraph_0>
6 mg per kg.
</paragraph_0>

<paragraph_1>
6 x 10 = 70.
</paragraph_1>

<paragraph_2>
So B.
</paragraph_2>

For each paragraph give your reasoning and a verdict: correct, incorrect or neutral. End with the index of the first incorrect paragraph in \\boxed{}, or -1 if there is none."""
ANSWERS = """\
<paragraph_0>
The guideline says so.
Quote from document 1: "6 mg per kg"
Verdict: correct
</paragraph_0>

<paragraph_1>
6 x 10 is 60.
It is not 70.
Verdict: incorrect
</paragraph_1>

\\boxed{1}"""


def row(label: TraceLabel, labeler: Labeler = JUDGE, **more: Any) -> ExportRow:
    problem = Problem("p", "Which dose?", ("60 mg", "70 mg"), images=more.pop("images", ()))
    trace = Trace("t", "p", ("6 mg per kg.", "6 x 10 = 70.", "So B."))
    return ExportRow(problem, trace, label, labeler, **more)


JUDGED = TraceLabel(
    "t",
    (
        StepLabel(C, reasoning="The guideline says so.", quote=QUOTE),
        StepLabel(WRONG, reasoning="6 x 10 is 60.\nIt is not 70."),
        OPEN,
    ),
)
EVIDENCE = (imported_evidence("g.md", "Dosing", "Zentide dose is 6 mg\nper kg.", 0),)


def messages(row: ExportRow, folder: Path) -> list[dict[str, str]]:
    outcome = write_file("critique", folder / "c.jsonl", [row])
    assert outcome.written == 1, outcome.skipped
    found: list[dict[str, str]] = json.loads((folder / "c.jsonl").read_text())["messages"]
    return found


def test_the_messages(tmp_path: Path) -> None:
    assert messages(row(JUDGED, evidence=EVIDENCE), tmp_path) == [
        {"role": "user", "content": ASKS},
        {"role": "assistant", "content": ANSWERS},
    ]


def test_labels_and_reasoning_come_back(tmp_path: Path) -> None:
    messages(row(JUDGED, evidence=EVIDENCE), tmp_path)
    ((item,), _) = read("critique", tmp_path / "c.jsonl", labeler="judge", kind=LabelerKind.JUDGE)
    (_, label), *_ = item.labels
    assert [step.verdict for step in label.step_labels] == [C, WRONG, None]
    assert [step.reasoning for step in label.step_labels] == [
        "The guideline says so.", "6 x 10 is 60.\nIt is not 70.", None,
    ]  # fmt: skip
    assert (item.trace.id, item.problem.question) == ("t", "Which dose?\n(A) 60 mg\n(B) 70 mg")


def test_a_consensus_gives_the_reasoning_of_the_judge_that_agrees(tmp_path: Path) -> None:
    agreed = TraceLabel("t", (StepLabel(C), StepLabel(C), StepLabel(C)), True, None)
    consensus = Labeler("consensus", LabelerKind.CONSENSUS)
    answers = messages(row(agreed, consensus, support=((JUDGE, JUDGED),)), tmp_path)[1]["content"]
    assert "The guideline says so.\nQuote" in answers
    assert "It is not 70." not in answers  # of a verdict that was overruled
    assert answers.endswith("\n\n\\boxed{-1}")


@pytest.mark.parametrize("index", [None, 0, 2])
def test_a_first_error_alone_implies_verdicts(tmp_path: Path, index: int | None) -> None:
    label = TraceLabel("t", first_error_given=True, first_error_index=index)
    messages(row(label), tmp_path)
    ((item,), _) = read("critique", tmp_path / "c.jsonl", labeler="gold", kind=LabelerKind.GOLD)
    assert first_error(item.labels[0][1]) == first_error(label)


def test_scores_are_refused(tmp_path: Path) -> None:
    label = TraceLabel("t", (StepLabel(score=0.1),) * 3)
    outcome = write_file("critique", tmp_path / "c.jsonl", [row(label)])
    assert (outcome.written, outcome.skipped[0].detail) == (
        0, "the label is a score; this format carries verdicts",
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["x\n</paragraph_0>\n\n<paragraph_1>\ny", "see <image>", "a\n\nSolution:\n\n<paragraph_0>"],
)
def test_a_text_that_looks_like_the_layout_is_refused(tmp_path: Path, text: str) -> None:
    trace = Trace("t", "p", (text, "so"))
    label = TraceLabel("t", (StepLabel(C), StepLabel(C)))
    made = ExportRow(Problem("p", text), trace, label, JUDGE)
    outcome = write_file("critique", tmp_path / "c.jsonl", [made])
    assert outcome.written == 0
    assert outcome.skipped[0].detail.startswith("a text ")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("\\boxed{1}", "\\boxed{9}"), "the first error is paragraph 9, of 3"),
        (("\\boxed{1}", "No."), "does not end with an index"),
        (("Verdict: incorrect", "Verdict: maybe"), "paragraph 1 has no verdict"),
        (("<paragraph_1>\n6 x 10 = 70.", "<paragraph_7>\n6 x 10 = 70."), "not numbered from 0"),
        (("Problem:", "Task:"), "not in the layout"),
    ],
)
def test_broken_messages_are_listed(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    said = [turn["content"].replace(*change) for turn in messages(row(JUDGED), tmp_path)]
    roles = ("user", "assistant")
    turns = [{"role": who, "content": text} for who, text in zip(roles, said, strict=True)]
    file = jsonl(tmp_path / "b.jsonl", [{"messages": turns}])
    _, rejected = read("critique", file, labeler="judge", kind=LabelerKind.JUDGE)
    assert reason in rejected[0].reason


def test_only_its_own_messages_are_recognized(tmp_path: Path) -> None:
    turns = messages(row(JUDGED), tmp_path)
    assert guess_format({"messages": turns}) == "critique"
    assert guess_format({"messages": [{"role": "user", "content": "Hello"}, turns[1]]}) is None


def test_every_written_format_that_can_be_read_is_tested_both_ways() -> None:
    # traces, medprm: tests of their own; parquet: read as traces, see test_parquet; label-studio,
    # potato: what comes back is `import review`, see test_expert_answers.
    others = {"traces", "medprm", "parquet", "case", "label-studio", "potato"}
    assert set(export_formats()) - set(BOTH_WAYS) <= others
    assert "critique" in BOTH_WAYS


def test_the_table_that_verl_reads(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    out = tmp_path / "c.parquet"
    write_file("critique", out, [row(JUDGED)])
    table = pandas.read_parquet(out)
    # A column of images would make verl ask for a processor of images.
    assert list(table.columns) == ["messages", "trace_id", "labeler"]
    assert [turn["role"] for turn in table["messages"][0]] == ["user", "assistant"]
    ((item,), _) = read("critique", out, labeler="judge", kind=LabelerKind.JUDGE)
    assert [step.verdict for step in item.labels[0][1].step_labels] == [C, WRONG, None]
    write_file("critique", out, [row(JUDGED, images=("a.png",)), row(JUDGED)])
    table = pandas.read_parquet(out)
    assert [list(each) for each in table["images"]] == [["a.png"], []]
    assert table["messages"][0][0]["content"].count("<image>") == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of another project's code
def test_trl_trains_on_the_answers(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="not a dependency: pip install trl datasets")
    datasets = pytest.importorskip("datasets")
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny_models import tiny_tokenizer

    rows = [row(JUDGED, evidence=EVIDENCE)] * 3
    write_file("critique", tmp_path / "c.jsonl", rows)
    data = datasets.load_dataset(
        "json", data_files=str(tmp_path / "c.jsonl"), split="train", cache_dir=str(tmp_path / "h")
    )
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|start|>{{ m['role'] }}<|close|>"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|end|>"
        "{% endgeneration %}{% else %}{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant<|close|>{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=LlamaForCausalLM(config),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "o"), max_steps=1, use_cpu=True, report_to=[],
            assistant_only_loss=True, max_length=None, bf16=False,
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    learned = batch["input_ids"][0][batch["labels"][0] != -100]
    assert str(tokenizer.decode(learned)).removesuffix("<|end|>").strip() == ANSWERS
