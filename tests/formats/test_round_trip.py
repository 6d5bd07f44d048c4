"""What is written is what is read back, for every format: a part that is not, is counted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from formats import ExportRow, WriteOutcome, export_formats, import_formats, write_file
from formats.field.training import asked
from formats.registry import built_in_formats
from formats.rows import Part
from tests.formats.builders import read
from tests.formats.drawn import rows
from traces.labels import LabelerKind, TraceLabel, Verdict, first_error
from traces.records import ImportedTrace

BOTH_WAYS = sorted({*export_formats()} & {*import_formats()} - {"traces", "medprm"})
TRAINING = {"trl", "openrlhf", "qwen-prm", "sharegpt", "math-shepherd", "critique"}
OWN_KEYS = {"prmbench": {"classification", "idx"}}
"""Meta keys that a format always has, so that a trace from elsewhere gains them."""


def there_and_back(
    format: str, row: ExportRow, suffix: str = ".jsonl"
) -> tuple[ImportedTrace | None, WriteOutcome]:
    """The trace after an export and an import; None if the export refused it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"out{suffix}"
        outcome = write_file(format, path, [row])
        if not outcome.written:
            assert len(outcome.skipped) == 1
            assert outcome.skipped[0].detail
            return None, outcome
        wants = built_in_formats()[format].needs_labeler
        traces, rejected = read(
            format,
            path,
            labeler=row.labeler.name if wants else None,
            kind=row.labeler.kind if wants else None,
        )
        # PRMBench lists what it keeps of gold that points outside.
        assert all(entry.imported for entry in rejected)
        assert len(traces) == 1
        return traces[0], outcome


def words(label: TraceLabel, n_steps: int) -> list[Verdict | None]:
    """What a label says of every step; a stated first error implies the verdicts up to it."""
    said = [step.verdict for step in label.step_labels] or [None] * n_steps
    said += [None] * (n_steps - len(said))
    if label.first_error_given:
        error = label.first_error_index
        implied: list[Verdict | None] = [Verdict.CORRECT] * (n_steps if error is None else error)
        implied += [] if error is None else [Verdict.INCORRECT]
        implied += [None] * (n_steps - len(implied))
        said = [word or meant for word, meant in zip(said, implied, strict=True)]
    return said


def scores(label: TraceLabel) -> list[float | None]:
    return [step.score for step in label.step_labels]


def same_scores(back: TraceLabel, label: TraceLabel) -> bool:
    """Whether all scores came back; steps without any may be cut off after the first error."""
    length = len(scores(back))
    return scores(back) == scores(label)[:length] and not any(scores(label)[length:])


def meta_of(format: str, item: ImportedTrace | ExportRow) -> dict[str, object]:
    hidden = OWN_KEYS.get(format, set())
    return {key: value for key, value in item.trace.meta.items() if key not in hidden}


# One check a part: the row, what came back, the format's name.
SAME: dict[Part, Callable[[ExportRow, ImportedTrace, str], bool]] = {
    Part.OPTIONS: lambda row, item, _: item.problem.options == row.problem.options,
    Part.ANSWER: lambda row, item, _: item.problem.answer == row.problem.answer,
    Part.IMAGES: lambda row, item, _: item.problem.images == row.problem.images,
    Part.SUBSET: lambda row, item, _: item.trace.subset == row.trace.subset,
    Part.GENERATOR: lambda row, item, _: item.trace.generator == row.trace.generator,
    Part.FINAL_ANSWER: lambda row, item, _: item.trace.final_answer == row.trace.final_answer,
    Part.OUTCOME: lambda row, item, _: (
        item.trace.final_answer_correct is row.trace.final_answer_correct
    ),
    Part.TRACE_META: lambda row, item, name: meta_of(name, item) == meta_of(name, row),
    Part.EVIDENCE: lambda row, item, _: item.evidence == row.evidence,
    Part.SCORES: lambda row, item, _: (
        same_scores(item.labels[0][1], row.label) or not any(scores(row.label))
    ),
    Part.LABEL_META: lambda row, item, _: (
        {**item.labels[0][1].meta, **row.label.meta} == item.labels[0][1].meta
    ),
}


@pytest.mark.parametrize("format", BOTH_WAYS)
@settings(max_examples=40, deadline=None)
@given(row=rows())
def test_every_part_comes_back_or_is_counted(format: str, row: ExportRow) -> None:
    item, outcome = there_and_back(format, row)
    event("refused" if item is None else "written")
    if item is None:
        return
    lost, label = set(outcome.not_carried), item.labels[0][1]
    length = len(item.trace.steps)
    assert item.trace.id == row.trace.id
    assert length == len(row.trace.steps) or outcome.shortened == 1
    if Part.TEXT not in lost:
        assert item.trace.steps == row.trace.steps[:length]
        whole = asked(row.problem) if format in TRAINING else row.problem.question
        assert item.problem.question == whole
    for part, same in SAME.items():
        if part not in lost and not (part is Part.OPTIONS and format in TRAINING):
            assert same(row, item, format), part
    who = item.labels[0][0]
    assert (who.name, who.kind) == (row.labeler.name, row.labeler.kind)
    assert first_error(label) == first_error(row.label)
    said, back = words(row.label, len(row.trace.steps)), words(label, len(row.trace.steps))
    if Part.NEUTRAL in lost:
        said = [Verdict.CORRECT if word is Verdict.NEUTRAL else word for word in said]
    error = first_error(row.label)
    if Part.LATER_VERDICTS in lost and not error.missing and error.index is not None:
        said, back = said[: error.index + 1], back[: error.index + 1]
    if not (Part.SCORES in parts(format) and any(score is not None for score in scores(label))):
        assert back == said


def parts(format: str) -> frozenset[Part]:
    return built_in_formats()[format].carries


@settings(max_examples=40, deadline=None)
@given(rows(), st.sampled_from([".json", ".jsonl", ".json.gz", ".jsonl.gz"]))
def test_our_own_format_gives_everything_back(row: ExportRow, suffix: str) -> None:
    item, outcome = there_and_back("traces", row, suffix)
    assert item is not None
    assert outcome.not_carried == {}
    assert (item.problem, item.trace, item.evidence) == (row.problem, row.trace, row.evidence)
    assert item.labels == ((row.labeler, row.label),)


@settings(max_examples=40, deadline=None)
@given(rows())
def test_medprm_gives_back_steps_scores_and_verdicts(row: ExportRow) -> None:
    item, outcome = there_and_back("medprm", row, ".json")
    if item is None:
        return
    lost = set(outcome.not_carried)
    assert item.problem.options == row.problem.options
    if Part.TEXT not in lost:
        assert item.trace.steps == row.trace.steps[: len(item.trace.steps)]
    assert [found.passage.text for found in item.evidence] == [
        found.passage.text for found in row.evidence
    ]
    labels = {labeler.name: label for labeler, label in item.labels}
    if Part.SCORES not in lost and any(score is not None for score in scores(row.label)):
        assert scores(labels["prm_soft_label"]) == scores(row.label)
    hard = "prm_hard_label" if row.labeler.kind is LabelerKind.MC else "prm_gemini_label"
    if hard in labels:
        assert first_error(labels[hard]) == first_error(row.label)


BENCHMARKS = {
    "processbench": "processbench/gsm8k.json",
    "mr-ben": "mr_ben/biology.json",
    "big-bench-mistake": "big_bench_mistake/multistep_arithmetic.jsonl",
    "prmbench": "prmbench/prm800k_test_p1_4o_circular.jsonl",
}


@pytest.mark.slow
@pytest.mark.parametrize(("format", "name"), BENCHMARKS.items())
@pytest.mark.parametrize("through", ["traces", "same"])
def test_the_real_files_survive(
    real_data: Path, tmp_path: Path, format: str, name: str, through: str
) -> None:
    traces, _ = read(format, real_data / name)
    usable = [item for item in traces if item.labels[0][1].abstention is None]
    exported = [
        ExportRow(item.problem, item.trace, item.labels[0][1], item.labels[0][0], item.evidence)
        for item in usable
    ]
    to = "traces" if through == "traces" else format
    outcome = write_file(to, tmp_path / "all.jsonl", exported)
    assert outcome.skipped == ()
    assert outcome.not_carried == {}
    again, _ = read(to, tmp_path / "all.jsonl")
    assert [item.trace for item in again] == [
        item.trace if to == format else _with_problem(item, found)
        for item, found in zip(usable, again, strict=True)
    ]
    assert [item.labels[0][1] for item in again] == [item.labels[0][1] for item in usable]
    assert [item.problem.question for item in again] == [item.problem.question for item in usable]


def _with_problem(item: ImportedTrace, found: ImportedTrace) -> object:
    from dataclasses import replace

    return replace(item.trace, problem_id=found.trace.problem_id)
