"""Corrupted rows: a seeded fuzzer that breaks one thing of a sound row at a time."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]
ROWS = 200
ID_KEYS = {
    "case": "case_id",
    "traces": "id", "processbench": "id", "mr-ben": "Question_UUID", "mr-gsm8k": "uuid",
    "prmbench": "idx", "medprm": "question_id",
}  # fmt: skip
"""The key that holds a row's id, for formats that have one."""


def numbered(format: str, row: Row, number: int) -> Row:
    """The row under an id of its own."""
    key = ID_KEYS.get(format)
    return copy.deepcopy(row) | ({key: f"id-{number}"} if key else {})


def line(row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All (container, key) pairs inside a row."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def replaced(rng: random.Random, row: Row, *values: Any) -> bytes:
    container, key = rng.choice(list(places(row)))
    container[key] = rng.choice(values)
    return line(row)


def without(rng: random.Random, row: Row) -> bytes:
    container, key = rng.choice(list(places(row)))
    del container[key]
    return line(row)


def longer(rng: random.Random, row: Row) -> bytes:
    lists = [c[k] for c, k in places(row) if isinstance(c[k], list) and c[k]]
    if lists:
        chosen = rng.choice(lists)
        chosen.append(copy.deepcopy(chosen[0]))
    return line(row)


def nested(rng: random.Random, row: Row) -> bytes:
    container, key = rng.choice(list(places(row)))
    depth = rng.choice([1, 2, 60, 400, 900])
    value = container[key]
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"x": value}
    container[key] = value
    return line(row)


def far_away(rng: random.Random, row: Row) -> bytes:
    """Numbers, and texts that are numbers, point outside."""
    for container, key in list(places(row)):
        value = container[key]
        if isinstance(value, int) and not isinstance(value, bool):
            container[key] = rng.choice([99, -7, 10**6])
        elif isinstance(value, str) and value.isdecimal():
            container[key] = "99"
    return line(row)


def torn(rng: random.Random, row: Row) -> bytes:
    whole = line(row)
    return whole[: rng.randrange(1, len(whole))]


def spliced(*pieces: bytes) -> Callable[[random.Random, Row], bytes]:
    """One of the raw pieces in place of a value, as JSON text that `json` would not write."""

    def corrupt(rng: random.Random, row: Row) -> bytes:
        container, key = rng.choice(list(places(row)))
        container[key] = "@@"
        return line(row).replace(b'"@@"', rng.choice(pieces), 1)

    return corrupt


def encoded(rng: random.Random, row: Row) -> bytes:
    text = line(row)
    half = len(text.decode()) // 2
    return rng.choice(
        [
            text.replace(b"e", b"\xe9", 1),
            text.replace(b"e", b"\xc0\xaf", 1),
            b"\xef\xbb\xbf" + text,
            text.replace(b'"', '"ü'.encode("cp1252"), 1),
            text.decode()[:half].encode() + text.decode()[half:].encode("utf-16-be"),
        ]
    ).replace(b"\n", b" ")


CORRUPTIONS: dict[str, Callable[[random.Random, Row], bytes]] = {
    "torn": torn,
    "types": lambda rng, row: replaced(rng, row, None, True, 7, 1.5, "text", "", " ", [], {}, [[]]),
    "nul": spliced(b'"a\\u0000b"', b'"a\x00b"'),
    "huge": spliced(b"1" * 400, b"-" + b"9" * 30, b"1" * 5000, b"1e400", b"1e-400"),
    "not a number": spliced(b"NaN", b"Infinity", b"-Infinity"),
    "surrogate": spliced(b'"\\ud800"', b'"\\udc00x"'),
    "without": without,
    "longer": longer,
    "nested": nested,
    "far away": far_away,
    "encoded": encoded,
    "no row": lambda rng, row: rng.choice([b"{}", b"[]", b"null", b"3", b'"text"', b"}", b"\x00"]),
    "twice the key": lambda rng, row: line(row)[:-1] + b', "id": "again", "steps": []}',
    "bottomless": lambda rng, row: b'{"id": ' + b"[" * 100_000,
}


def corrupted_file(format: str, row: Row, seed: int = 0) -> list[bytes]:
    """Lines of a file: a sound row, `ROWS` corrupted ones of every kind, a row twice, a sound row."""
    rng = random.Random(f"{format}/{seed}")
    kinds = [CORRUPTIONS[name] for name in CORRUPTIONS]
    lines = [line(numbered(format, row, 0))]
    for number in range(1, ROWS + 1):
        lines.append(kinds[number % len(kinds)](rng, numbered(format, row, number)))
    return [*lines, lines[0], line(numbered(format, row, ROWS + 1))]
