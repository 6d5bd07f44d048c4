"""Passages beyond the encoder's window are named."""

from __future__ import annotations

import pytest

from stepgold.searching import over_window, say_over_window
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


def test_a_person_is_told_and_the_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    told = say_over_window([passage(7, 41)], Narrow())
    assert (told["over_window"], told["over_window_passages"][0]["passage"]) == (1, 7)
    assert "c/long.md #7" in " ".join(capsys.readouterr().err.split())
    assert say_over_window([passage(7, 4)], Narrow())["over_window"] == 0
    assert capsys.readouterr().err == ""
