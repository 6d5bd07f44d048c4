"""What is written is what is read back, for every format and as far as it reaches."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import ExportRow, write_file
from formats.fields import imported_evidence, question_id
from tests.formats.builders import labels_by_name, read
from traces.abstention import Abstention, AbstentionReason
from traces.evidence import Quote
from traces.first_error import first_error
from traces.labels import Labeler, LabelerKind, StepLabel, TraceLabel, Verdict
from traces.problem import Problem, Trace
from traces.records import ImportedTrace

texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\x00"),
    min_size=1,
    max_size=12,
).filter(str.strip)
plain = st.text("abc 12.?", min_size=1, max_size=12).filter(str.strip)
maybe = st.none() | texts
unit = st.floats(0, 1, allow_nan=False)
counts = st.none() | st.integers(0, 16)
quotes = st.builds(
    Quote, texts, st.none() | st.integers(1, 9), st.booleans(), counts, counts, maybe
)
abstentions = st.builds(Abstention, st.sampled_from(AbstentionReason), st.just("") | texts)


@st.composite
def step_labels(draw: st.DrawFn) -> StepLabel:
    """A verdict, a score or both with everything behind them, or an abstention."""
    verdict, score = draw(st.none() | st.sampled_from(Verdict)), draw(st.none() | unit)
    if verdict is None and score is None:
        return StepLabel(abstention=draw(abstentions), reasoning=draw(maybe))
    return StepLabel(
        verdict,
        score,
        None,
        draw(counts),
        draw(counts),
        draw(counts),
        draw(counts),
        draw(maybe),
        draw(st.none() | quotes),
    )


@st.composite
def rows(
    draw: st.DrawFn,
    text: st.SearchStrategy[str] = texts,
    labels: st.SearchStrategy[StepLabel] | None = None,
) -> ExportRow:
    """A problem, a trace and a label that fits it."""
    steps = tuple(draw(st.lists(text, min_size=1, max_size=5)))
    question, options, answer = draw(text), tuple(draw(st.lists(text, max_size=3))), draw(maybe)
    problem = Problem(question_id(question, options, answer), question, options, answer)
    meta = draw(
        st.dictionaries(
            plain.filter(lambda key: key not in ("id", "meta")),
            st.integers() | st.none(),
            max_size=2,
        )
    )
    trace = Trace(
        draw(texts),
        problem.id,
        steps,
        draw(texts),
        draw(maybe),
        draw(maybe),
        draw(st.none() | st.booleans()),
        meta,
    )
    given_first = labels is None and draw(st.booleans())
    found = draw(
        st.lists(
            step_labels() if labels is None else labels, min_size=len(steps), max_size=len(steps)
        )
    )
    label = TraceLabel(
        trace.id,
        () if given_first and draw(st.booleans()) else tuple(found),
        given_first,
        draw(st.none() | st.integers(0, len(steps) - 1)) if given_first else None,
    )
    evidence = tuple(
        imported_evidence(source, draw(st.just("") | texts), draw(texts), rank)
        for rank, source in enumerate(draw(st.lists(texts, max_size=2)))
    )
    return ExportRow(
        problem,
        trace,
        label,
        Labeler("who", draw(st.sampled_from(LabelerKind)), {"imported_from": "traces"}),
        evidence,
    )


def there_and_back(
    format: str, exported: list[ExportRow], suffix: str
) -> tuple[list[ImportedTrace], int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"out{suffix}"
        outcome = write_file(format, path, exported)
        who = (
            {"labeler": "who", "kind": LabelerKind.MC}
            if format == "trl" and outcome.written
            else {}
        )
        if not outcome.written:
            return [], len(outcome.skipped)
        traces, rejected = read(format, path, **who)  # type: ignore[arg-type]
        assert not rejected
        assert len(traces) == outcome.written
        return traces, len(outcome.skipped)


@settings(max_examples=15, deadline=None)
@given(rows(), st.sampled_from([".json", ".jsonl", ".json.gz", ".jsonl.gz"]))
def test_our_own_format_gives_everything_back(exported: ExportRow, suffix: str) -> None:
    (item,), skipped = there_and_back("traces", [exported], suffix)
    assert skipped == 0
    assert (item.problem, item.trace, item.evidence) == (
        exported.problem,
        exported.trace,
        exported.evidence,
    )
    assert item.labels == ((exported.labeler, exported.label),)


@settings(max_examples=15, deadline=None)
@given(rows())
def test_processbench_gives_back_steps_and_first_error(exported: ExportRow) -> None:
    traces, skipped = there_and_back("processbench", [exported], ".json")
    if skipped:
        return
    item = traces[0]
    assert (item.trace.id, item.trace.steps, item.problem.question) == (
        exported.trace.id, exported.trace.steps, exported.problem.question,
    )  # fmt: skip
    assert first_error(labels_by_name(item)["gold"]) == first_error(exported.label)


verdicts = st.builds(StepLabel, st.sampled_from([Verdict.CORRECT, Verdict.INCORRECT]))


@settings(max_examples=15, deadline=None)
@given(rows(labels=verdicts))
def test_trl_gives_back_steps_and_verdicts(exported: ExportRow) -> None:
    (item,), _ = there_and_back("trl", [exported], ".jsonl")
    assert item.trace.steps == exported.trace.steps
    assert labels_by_name(item)["who"].step_labels == exported.label.step_labels


@settings(max_examples=15, deadline=None)
@given(rows(plain, verdicts))
def test_math_shepherd_gives_back_numbered_steps_and_verdicts(exported: ExportRow) -> None:
    (item,), _ = there_and_back("math-shepherd", [exported], ".jsonl")
    assert item.problem.question == exported.problem.question.strip()
    assert [step.split(":", 1)[1].strip() for step in item.trace.steps] == [
        step.strip() for step in exported.trace.steps
    ]
    assert labels_by_name(item)["math_shepherd"].step_labels == exported.label.step_labels


scored_verdicts = st.builds(StepLabel, st.sampled_from([Verdict.CORRECT, Verdict.INCORRECT]), unit)


@settings(max_examples=15, deadline=None)
@given(rows(texts, scored_verdicts))
def test_medprm_gives_back_steps_scores_and_verdicts(exported: ExportRow) -> None:
    (item,), _ = there_and_back("medprm", [exported], ".json")
    assert item.problem.options == exported.problem.options
    assert item.trace.steps == tuple(" ".join(step.split()) for step in exported.trace.steps)
    assert [found.passage.text for found in item.evidence] == [
        found.passage.text for found in exported.evidence
    ]
    labels = labels_by_name(item)
    assert [step.score for step in labels["prm_soft_label"].step_labels] == [
        step.score for step in exported.label.step_labels
    ]
    hard = "prm_hard_label" if exported.labeler.kind is LabelerKind.MC else "prm_gemini_label"
    assert [step.verdict for step in labels[hard].step_labels] == [
        step.verdict for step in exported.label.step_labels
    ]


@pytest.mark.slow
def test_the_real_files_survive_our_own_format(real_data: Path, tmp_path: Path) -> None:
    for format, name in (
        ("processbench", "processbench/gsm8k.json"),
        ("mr-ben", "mr_ben/biology.json"),
    ):
        traces, _ = read(format, real_data / name)
        usable = [item for item in traces if item.labels[0][1].abstention is None]
        exported = [
            ExportRow(item.problem, item.trace, item.labels[0][1], item.labels[0][0], item.evidence)
            for item in usable
        ]
        assert write_file("traces", tmp_path / "all.jsonl", exported).written == len(usable)
        again, rejected = read("traces", tmp_path / "all.jsonl")
        assert not rejected
        assert [item.trace.steps for item in again] == [item.trace.steps for item in usable]
        assert [item.labels[0][1] for item in again] == [item.labels[0][1] for item in usable]
