"""The checks before every row, and the words for what SQLite refuses."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import checks
from storage.database import store_error, translated
from traces.errors import InputError, StoreError


class Fault(sqlite3.OperationalError):
    """An error as sqlite3 raises it, with its result code by name."""

    def __init__(self, name: str) -> None:
        super().__init__("said SQLite")
        self.sqlite_errorname = name


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checks.name, ""),
        (checks.name, " \t"),
        (checks.name, "two\nlines"),
        (checks.name, "a\0"),
        (checks.plain_text, "\udfff"),
        (checks.plain_text, 7),
        (checks.plain_json, {"a": [{"b": "\0"}]}),
        (checks.plain_json, {"\0": 1}),
        (checks.plain_json, ["\ud83d"]),
        (checks.json_value, [1, (2, {"a": math.nan})]),
        (checks.json_value, -math.inf),
        (checks.json_value, {None: 1}),
        (checks.json_value, b"bytes"),
        (checks.json_value, object()),
        (checks.fraction, "0.5"),
        (checks.fraction, True),
        (checks.fraction, 1.0000000001),
        (checks.similarity, 1.001),
        (checks.amount, math.inf),
        (checks.amount, -0.01),
        (checks.count, 1.5),
        (checks.count, -1),
        (checks.count, "3"),
    ],
)
def test_what_no_database_should_hold_is_refused(
    check: Callable[[Any, str], Any], value: Any
) -> None:
    with pytest.raises(InputError, match="The thing"):
        check(value, "The thing")


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checks.name, "UUID-1:Claude 2"),
        (checks.plain_text, "肝 \\u0000 \r\n"),
        (checks.plain_json, {"a": [1, 1.5, None, True, "\\u0000"]}),
        (checks.json_value, {"a": "\0\ud83d"}),
        (checks.fraction, 1),
        (checks.similarity, -1.0),
        (checks.amount, 1e9),
        (checks.count, 2**40),
        (checks.fraction, None),
        (checks.count, None),
        (checks.optional_text, None),
    ],
)
def test_the_rest_is_taken_as_it_is(check: Callable[[Any, str], Any], value: Any) -> None:
    assert check(value, "The thing") == value


def test_tuples_and_mappings_become_what_json_gives_back() -> None:
    assert checks.json_value({"a": (1, ("b",))}, "x") == {"a": [1, ["b"]]}


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=5))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert checks.digest(value) == checks.digest(turned)
    assert checks.digest(value) != checks.digest({**value, "more": 1.5})


def test_parts_of_a_digest_do_not_run_together() -> None:
    assert checks.digest("ab", "c") != checks.digest("a", "bc")
    assert checks.digest(["a"], []) != checks.digest([], ["a"])
    assert checks.digest(None) != checks.digest("null")


def test_differences_name_what_changed_and_count_the_rest() -> None:
    assert checks.differences({"k": 4, "s": 1}, {"k": 8, "s": 1}) == "k was 4, now 8"
    assert checks.differences({"k": None}, {}) == "k was null, now not set"
    assert checks.differences({}, {"p": "x" * 99}) == f'p was not set, now "{"x" * 56}...'
    many = checks.differences({}, dict.fromkeys("abcde", 1))
    assert many.endswith("c was not set, now 1; 2 more")


def test_an_unknown_name_is_answered_with_at_most_twenty_known_ones() -> None:
    error = checks.known("dataset", "zzz", (f"d{n:02}" for n in range(25)), make="import one")
    assert str(error.remedy).endswith("d18, d19 and more")
    assert "d20" not in str(error.remedy)
    assert checks.known("dataset", "x", [], make="import one").remedy == (
        "there is none yet: import one"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SQLITE_FULL", "disk is full"),
        ("SQLITE_READONLY_DBMOVED", "read-only"),
        ("SQLITE_CANTOPEN", "cannot be opened"),
        ("SQLITE_PERM", "may not be accessed"),
        ("SQLITE_BUSY_SNAPSHOT", "another process"),
        ("SQLITE_LOCKED", "another part"),
        ("SQLITE_NOTADB", "not a SQLite database"),
        ("SQLITE_CORRUPT_INDEX", "damaged"),
        ("SQLITE_IOERR_WRITE", "operating system"),
    ],
)
def test_what_the_world_does_to_a_database_has_words_and_a_remedy(name: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught, translated("x.db"):
        raise Fault(name)
    assert caught.value.where == "x.db"
    assert caught.value.remedy
    assert "said SQLite" in caught.value.what
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("name", ["SQLITE_ERROR", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_MISUSE", ""])
def test_our_own_defects_stay_defects(name: str) -> None:
    assert store_error(Fault(name), "x.db") is None
    with pytest.raises(Fault), translated("x.db"):
        raise Fault(name)
