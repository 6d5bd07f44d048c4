"""Labelled traces as hypothesis draws them, with the texts that formats stumble over."""

from __future__ import annotations

from hypothesis import strategies as st

from formats import ExportRow
from formats.rows import imported_evidence, question_id
from traces.evidence import Quote
from traces.labels import (
    Abstention,
    AbstentionReason,
    Labeler,
    LabelerKind,
    StepLabel,
    TraceLabel,
    Verdict,
    first_error,
)
from traces.problem import Problem, Trace

TRAPS = (
    "a ки b", "ки", "x<extra_0>y", "<extra_0", "Step 1: so", "Step 2: then\nmore", "see Step 1: above",
    "q?\n\n### Solution Process:\nz", "### Question:\nq", "<image>\nq", " padded ", "A: one\nB: two",
    "Solution: 3", "Is it? Yes. No", "N/A", "two  spaces", "line\nline", '"quoted" \\ é 𝔸',
)  # fmt: skip
texts = st.sampled_from(TRAPS) | st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\x00"),
    min_size=1,
    max_size=12,
).filter(str.strip)
maybe = st.none() | texts
unit = st.floats(0, 1, allow_nan=False)
counts = st.none() | st.integers(0, 16)
quotes = st.builds(
    Quote, texts, st.none() | st.integers(1, 9), st.booleans(), counts, counts, maybe
)
abstentions = st.builds(Abstention, st.sampled_from(AbstentionReason), st.just("") | texts)
metas = st.dictionaries(
    st.sampled_from(
        ("note", "label", "trace_id", "labeler", "idx", "classification", "alternatives", "reason")
    ),
    st.integers() | st.none() | texts | st.lists(st.integers(), max_size=2),
    max_size=2,
)


@st.composite
def step_labels(draw: st.DrawFn) -> StepLabel:
    """A verdict, a score or both with everything behind them, or an abstention."""
    verdict, score = draw(st.none() | st.sampled_from(Verdict)), draw(st.none() | unit)
    if verdict is None and score is None:
        return StepLabel(abstention=draw(abstentions), reasoning=draw(maybe))
    return StepLabel(
        verdict,
        score,
        successes=draw(counts),
        continuations=draw(counts),
        unparsed=draw(counts),
        unfinished=draw(counts),
        reasoning=draw(maybe),
        quote=draw(st.none() | quotes),
    )


verdicts = st.builds(StepLabel, st.sampled_from(Verdict))
scores = st.builds(StepLabel, score=unit)


@st.composite
def labels(draw: st.DrawFn, trace_id: str, n_steps: int) -> TraceLabel:
    """A label of one of the kinds that labelers give, never one that contradicts itself."""
    meta = draw(metas)
    if draw(st.integers(0, 3)) == 0:
        index = draw(st.none() | st.integers(0, n_steps - 1))
        return TraceLabel(trace_id, (), True, index, meta=meta)
    each = draw(st.sampled_from([verdicts, verdicts, scores, step_labels()]))
    steps = tuple(draw(st.lists(each, min_size=n_steps, max_size=n_steps)))
    label = TraceLabel(trace_id, steps, meta=meta)
    found = first_error(label)
    if found.missing or draw(st.booleans()):
        return label
    return TraceLabel(trace_id, steps, True, found.index, meta=meta)


@st.composite
def rows(draw: st.DrawFn) -> ExportRow:
    """A problem, a trace and a label that fits it."""
    steps = tuple(draw(st.lists(texts, min_size=1, max_size=4)))
    if draw(st.booleans()):
        steps = tuple(f"Step {number}: {step}" for number, step in enumerate(steps, 1))
    question, options, answer = draw(texts), tuple(draw(st.lists(texts, max_size=3))), draw(maybe)
    images = tuple(draw(st.lists(st.sampled_from(["a.png", "b/c.dcm"]), max_size=2)))
    problem = Problem(
        question_id(question, options, [answer, *images]), question, options, answer, images
    )
    trace = Trace(
        draw(texts),
        problem.id,
        steps,
        draw(texts),
        draw(maybe),
        draw(maybe),
        draw(st.none() | st.booleans()),
        draw(metas),
    )
    evidence = tuple(
        imported_evidence(source, draw(st.just("") | texts), draw(texts), rank)
        for rank, source in enumerate(draw(st.lists(texts, max_size=2)))
    )
    who = Labeler("who", draw(st.sampled_from(LabelerKind)), {"imported_from": "traces"})
    label = draw(labels(trace.id, len(steps)))
    return ExportRow(problem, trace, label, who, evidence)
