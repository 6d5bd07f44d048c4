"""Whatever the dataclasses can hold comes back from the database as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import Store
from storage.columns import decode_text, encode_text
from tests.storage.builders import JUDGE, fill, source
from traces import (
    Abstention,
    AbstentionReason,
    Evidence,
    Labeler,
    LabelerKind,
    Passage,
    Problem,
    Quote,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
)
from traces.problem import TraceInContext
from traces.records import Continuation, Failure, ImportedTrace, ModelReply, StoredCall, Usage

PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
"""What a source may hold: everything but NUL and half surrogate pairs."""
WRITTEN = st.text(st.characters(), max_size=12) | PLAIN.map("json:".__add__)
"""What a model may write: everything, and texts that look like our escape."""
NAMES = PLAIN.filter(lambda text: text.strip() and not set(text) & {"\n", "\r"})
COUNTS = st.integers(0, 2**40)
FRACTIONS = st.floats(0, 1)


def json_objects(texts: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Strict JSON objects."""
    numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    leaves = st.none() | st.booleans() | numbers | texts
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    )
    return st.dictionaries(texts, values, max_size=2)


@st.composite
def passages(draw: st.DrawFn) -> Passage:
    text = draw(PLAIN)
    start = draw(COUNTS)
    place = (draw(PLAIN), draw(PLAIN), draw(COUNTS), start, start + len(text))
    return Passage(*place, text, draw(PLAIN))


EVIDENCE = st.lists(
    st.builds(Evidence, passages(), st.none() | st.floats(-1, 1), COUNTS), max_size=3
).map(tuple)
ABSTENTIONS = st.builds(Abstention, st.sampled_from(AbstentionReason), WRITTEN)
QUOTES = st.builds(
    Quote,
    WRITTEN,
    st.none() | COUNTS,
    st.booleans(),
    st.none() | COUNTS,
    st.none() | COUNTS,
    st.none() | st.sampled_from(["exact", "elided", "near"]),
)


@st.composite
def step_labels(draw: st.DrawFn) -> StepLabel:
    word: tuple[Verdict | None, float | None, Abstention | None] = draw(
        st.tuples(st.none(), st.none(), ABSTENTIONS)
        | st.tuples(st.sampled_from(Verdict), st.none() | FRACTIONS, st.none())
        | st.tuples(st.none(), FRACTIONS, st.none())
    )
    verdict, score, abstention = word
    return StepLabel(
        verdict,
        score,
        abstention,
        successes=draw(st.none() | COUNTS),
        continuations=draw(st.none() | COUNTS),
        unparsed=draw(st.none() | COUNTS),
        unfinished=draw(st.none() | COUNTS),
        reasoning=draw(st.none() | WRITTEN),
        quote=draw(st.none() | QUOTES),
    )


@st.composite
def trace_labels(draw: st.DrawFn, trace_id: str, n_steps: int) -> TraceLabel:
    steps = draw(st.just(()) | st.tuples(*[step_labels()] * n_steps))
    given_ = draw(st.booleans())
    index = draw(st.none() | st.integers(0, n_steps - 1)) if given_ else None
    must_abstain = not steps and not given_
    abstention = draw(ABSTENTIONS if must_abstain else st.none() | ABSTENTIONS)
    return TraceLabel(trace_id, steps, given_, index, abstention, draw(json_objects(WRITTEN)))


@st.composite
def imported_traces(draw: st.DrawFn) -> ImportedTrace:
    problem = Problem(
        draw(NAMES),
        draw(PLAIN),
        tuple(draw(st.lists(PLAIN, max_size=3))),
        draw(st.none() | PLAIN),
        tuple(draw(st.lists(PLAIN, max_size=2))),
        draw(json_objects(PLAIN)),
    )
    steps = tuple(draw(st.lists(PLAIN, min_size=1, max_size=4)))
    trace = Trace(
        draw(NAMES),
        problem.id,
        steps,
        draw(NAMES),
        draw(st.none() | PLAIN),
        draw(st.none() | PLAIN),
        draw(st.none() | st.booleans()),
        draw(json_objects(PLAIN)),
    )
    names = draw(st.lists(NAMES, max_size=2, unique=True))
    labels = tuple(
        (
            Labeler(
                name,
                draw(st.sampled_from(LabelerKind)),
                draw(json_objects(PLAIN)),
                draw(st.none() | PLAIN),
            ),
            draw(trace_labels(trace.id, len(steps))),
        )
        for name in names
    )
    return ImportedTrace(problem, trace, labels, draw(EVIDENCE), draw(st.none() | COUNTS))


class RolledBack(Exception):
    """Ends a transaction that leaves nothing behind."""


def rolled_back(store: Store, check: Callable[[], None]) -> None:
    """Run a check on an empty store and leave it empty: opening one per example would be slow."""

    def run() -> None:
        with store.transaction():
            check()
            raise RolledBack

    with pytest.raises(RolledBack):
        run()


@pytest.fixture(scope="module")
def shared() -> Iterator[Store]:
    """One store for all examples."""
    with Store.open("sqlite://") as store:
        yield store


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(imported=imported_traces())
def test_an_imported_trace_comes_back(shared: Store, imported: ImportedTrace) -> None:
    def check() -> None:
        outcome = shared.traces.import_file("d", source(), [imported])
        assert outcome.rejected == ()
        expected = TraceInContext(imported.problem, imported.trace, imported.evidence)
        assert list(shared.traces.contexts("d")) == [expected]
        assert list(shared.traces.problems("d")) == [imported.problem]
        for labeler, label in imported.labels:
            assert shared.labels.labeler("d", labeler.name) == labeler
            assert shared.labels.load("d", labeler.name) == {label.trace_id: label}
        changed = shared.traces.import_file("d", source(content="2"), [imported], replace=True)
        assert (changed.done, changed.unchanged) == (0, 1), "the digest is that of the content"

    rolled_back(shared, check)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(
    label=trace_labels("t0", 3),
    texts=st.lists(
        st.builds(
            Continuation,
            st.just("t0"),
            st.integers(0, 2),
            COUNTS,
            WRITTEN,
            PLAIN,
            st.none() | WRITTEN,
            st.none() | st.booleans(),
            COUNTS,
        ),
        max_size=4,
        unique_by=lambda found: (found.step_index, found.index),
    ),
)
def test_a_label_comes_back_with_its_continuations(
    shared: Store, label: TraceLabel, texts: list[Continuation]
) -> None:
    def check() -> None:
        fill(shared, "t0")
        shared.labels.put("d", JUDGE.name, [label], continuations=texts)
        assert shared.labels.load("d", JUDGE.name) == {"t0": label}
        in_order = sorted(texts, key=lambda found: (found.step_index, found.index))
        assert shared.labels.continuations("d", JUDGE.name, "t0") == in_order

    rolled_back(shared, check)


CALLS = st.builds(
    StoredCall,
    NAMES,
    WRITTEN,
    st.builds(
        ModelReply,
        st.none() | WRITTEN,
        PLAIN,
        PLAIN,
        st.none() | PLAIN,
        st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS),
        st.none() | st.floats(0, 1e6),
        st.none() | PLAIN,
        WRITTEN,
        st.just(False),
    ),
    json_objects(WRITTEN),
)
FAILURES = st.builds(
    Failure, NAMES, NAMES, st.sampled_from(AbstentionReason), st.booleans(), WRITTEN
)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(call=CALLS, failure=FAILURES)
def test_a_call_and_a_failure_come_back(shared: Store, call: StoredCall, failure: Failure) -> None:
    def check() -> None:
        shared.replies.put(call)
        cached = replace(call.reply, cached=True)
        assert shared.replies.get(call.key) == cached
        assert list(shared.replies.calls()) == [replace(call, reply=cached)]
        fill(shared, "t0")
        shared.labels.failures.put("d", [failure])
        assert shared.labels.failures.load() == [("d", failure)]

    rolled_back(shared, check)


@given(WRITTEN)
def test_the_text_of_a_model_is_plain_text_in_the_database(text: str) -> None:
    stored = encode_text(text)
    assert decode_text(stored) == text
    assert "\0" not in stored
    assert stored.encode().decode() == stored


def test_every_field_comes_back(store: Store) -> None:
    """One full example in the fast suite; the slow ones try what nobody thinks of."""
    quote = Quote("5 mg", 2, True, 3, 7, "near")
    step = StepLabel(Verdict.NEUTRAL, 0.25, None, 1, 4, 2, 1, "json: because\0", quote)
    silent = StepLabel(abstention=Abstention(AbstentionReason.UNPARSED, "cut \ud83d"))
    problem = Problem("p", "Q?", ("a", "b"), "B", ("x.png",), {"phi_removed": False, "n": [1.5]})
    trace = Trace("t", "p", ("one", "two"), "sub", "gpt", "10", False, {"k": None})
    label = TraceLabel("t", (step, silent), True, 1, None, {"rule": "strict \ud83d\0"})
    found = (Evidence(Passage("c", "d", 3, 5, 9, "text", "T"), None, 0),)
    labeler = Labeler("mc", LabelerKind.MC, {"k": 4}, "hf:m", "m-1")
    outcome = store.traces.import_file(
        "d", source(), [ImportedTrace(problem, trace, ((labeler, label),), found, 3)]
    )
    assert outcome.rejected == ()
    assert list(store.traces.contexts("d")) == [TraceInContext(problem, trace, found)]
    assert store.labels.load("d", "mc") == {"t": label}
    assert store.labels.labeler("d", "mc") == labeler
    text = Continuation("t", 1, 0, "so\0", "length", None, None, 12)
    store.labels.put("d", "mc", [label], continuations=[text])
    assert store.labels.continuations("d", "mc", "t") == [text]


def test_an_ordinary_text_is_stored_as_it_is() -> None:
    assert encode_text("Give 5 mg; 肝") == "Give 5 mg; 肝"
    assert encode_text("json: x") == 'json:"json: x"'
    assert encode_text("a\0\ud83d") == "json:" + json.dumps("a\0\ud83d")
