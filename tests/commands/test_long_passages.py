"""Passages beyond the encoder's window are named."""

from __future__ import annotations

from commands.long_passages import over_window
from tests.retrieval.guidelines import WordHashEncoder
from traces.evidence import Passage


class Narrow(WordHashEncoder):
    max_tokens = 40


def passage(number: int, words: int) -> Passage:
    text = " ".join(["dose"] * words)
    return Passage("c", "long.md", number, 0, len(text), text)


def test_only_the_long_ones_are_counted_and_the_first_ones_listed() -> None:
    some = [passage(0, 40), passage(1, 41), passage(2, 5), *(passage(n, 50) for n in range(3, 33))]
    count, listed = over_window(some, Narrow())
    assert count == 31
    assert len(listed) == 20
    assert listed[0] == {"corpus": "c", "document": "long.md", "passage": 1, "tokens": 41}
    assert over_window([], Narrow()) == (0, [])
