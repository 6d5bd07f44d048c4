"""The rendering of a problem and a prefix, to the letter: policies are trained on it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.prompting import (
    ContinuationPrompt,
    continuation_messages,
    prefix_text,
    render_question,
)
from inference.protocol import Message
from traces.errors import InputError
from traces.evidence import Evidence, Passage
from traces.problem import Problem


def evidence(*texts: str) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(Passage("c", "d", i, 0, len(text), text), 0.5, i) for i, text in enumerate(texts)
    )


def test_the_lab_sees_one_document_and_the_question() -> None:
    problem = Problem("p", "Which single dose?")
    assert render_question(problem, evidence("Zentide dose is 6 mg per kg.")) == (
        "Document 1: Zentide dose is 6 mg per kg.\n\nQuestion: Which single dose?"
    )


def test_options_are_lettered_and_documents_numbered_from_one() -> None:
    problem = Problem("p", "Which?", options=("aspirin", "none"))
    assert render_question(problem, evidence("one", "two")) == (
        "Document 1: one\n\nDocument 2: two\n\nQuestion: Which?\n(A) aspirin\n(B) none"
    )


def test_too_many_options_are_refused_instead_of_dropped() -> None:
    with pytest.raises(InputError, match="27 options"):
        render_question(Problem("p", "?", options=("x",) * 27), ())


def test_a_prefix_becomes_the_last_assistant_turn() -> None:
    messages = continuation_messages(
        Problem("p", "Q?"), (), ("s1", "s2"), system="You solve.", separator="\n\n"
    )
    assert messages == (
        Message("system", "You solve."),
        Message("user", "Question: Q?"),
        Message("assistant", "s1\n\ns2\n\n"),
    )


def test_no_prefix_asks_for_a_whole_solution() -> None:
    messages = continuation_messages(
        Problem("p", "Q?"), (), (), system=None, separator=ContinuationPrompt().separator
    )
    assert messages == (Message("user", "Question: Q?"),)


@given(st.lists(st.text(alphabet="ab c", min_size=1), min_size=1, max_size=5), st.integers(1, 5))
def test_a_longer_prefix_starts_with_the_shorter_one(steps: list[str], cut: int) -> None:
    """Shared prefixes are what every cache lives on."""
    assert prefix_text(steps, "\n").startswith(prefix_text(steps[:cut], "\n"))
