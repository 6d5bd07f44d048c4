"""Steps of a solution: numbered lines, blank lines, a delimiter; never inside prose, nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.candidates import split_steps
from traces.errors import InputError


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Step 1: a\nStep 2: b", ("Step 1: a", "Step 2: b")),
        ("## Step 1: a\n\nmore\n\n## Step 2: b", ("## Step 1: a\n\nmore", "## Step 2: b")),
        ("**Step 1:** a\n**Step 2:** b", ("**Step 1:** a", "**Step 2:** b")),
        ("We begin.\nStep 1: a\nStep 2: b", ("We begin.\nStep 1: a", "Step 2: b")),
        ("Step 1: see Step 2: later\nStep 2: b", ("Step 1: see Step 2: later", "Step 2: b")),
        ("Step 1: a\nStep 2: b\nStep 1: again", ("Step 1: a", "Step 2: b\nStep 1: again")),
        ("Step 1. a\nSTEP 2) b", ("Step 1. a", "STEP 2) b")),
        ("a\n\nb\n \n\nc", ("a", "b", "c")),
        ("one line\nand another", ("one line\nand another",)),
        ("Step 1: alone", ("Step 1: alone",)),
        ("In Step 2: of the plan\n\nwe stop", ("In Step 2: of the plan", "we stop")),
        ("Stepping 1: a\nStepping 2: b", ("Stepping 1: a\nStepping 2: b",)),
        ("", ()),
        (" \n\n ", ()),
    ],
)
def test_steps(text: str, steps: tuple[str, ...]) -> None:
    assert split_steps(text) == steps


def test_given_delimiter_is_taken_to_the_letter() -> None:
    assert split_steps("a ки b ки", " ки") == ("a", "b")
    assert split_steps("Step 1: a\nStep 2: b\n", "\n") == ("Step 1: a", "Step 2: b")
    assert split_steps("Step 1: a\nStep 2: b", "|") == ("Step 1: a\nStep 2: b",)
    with pytest.raises(InputError, match="empty"):
        split_steps("a", "")


@given(st.text(alphabet="Step 12:\n.#*ab ", max_size=80))
def test_no_character_is_lost(text: str) -> None:
    for delimiter in (None, "\n"):
        kept = "".join("".join(split_steps(text, delimiter)).split())
        assert kept == "".join(text.split())
