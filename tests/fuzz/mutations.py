"""Seeded mutations of bytes: the same seed makes the same inputs on every machine."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from tests.formats.fuzz import CORRUPTIONS

TOKENS: tuple[bytes, ...] = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\r\n", b"\x1b[2J",
    b'"', b"'", b"\\", b"\\\\", b"\\\"", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN",
    b"-Infinity", b"1e999", b"-1", b"0", b"0.5", b"9" * 30, b"9" * 5000, b"1e-400", b"[" * 2000,
    b'{"a":' * 2000, b"(" * 2000, b"<a>" * 500, b"</", b"<!--", b"<![CDATA[", b"&#x0;", b"&#1114112;",
    b"--- user ---\n", b"{documents}", b"{x}", b"[judge]\n", b"[[import]]\n", b'votes = "x"\n', b"= 1979-05-27\n",
    b"\\boxed{", b"\\frac{1}{0}", b"\\frac{", b"$", b"$$", b"```", b"<think>", b"<answer>", b"#### ",
    b"The answer is ", b"Answer: ", b"Step 1: ", b"\nStep " + b"9" * 5000, b"10^9^9^9", b"2**9999999", b"1/0",
    b"\\sqrt{", b"%", b" mg/dL", b"1,000,000", b"(A)", b"[5, 10)", b"\\le", b"x=", b"\\text{", b"\\cup",
    b"\xec\xa0\x95\xeb\x8b\xb5\xec\x9d\x80 ", b"\xe7\xad\x94\xe6\xa1\x88\xe6\x98\xaf", b"\xcc\x81" * 40,
    b"\xe2\x80\xae", b"\xef\xbc\x9c", b"...", b" \xe2\x80\xa6 ", b"-" * 300, b"\t" * 300, b"%PDF-1.7", b"PK\x03\x04",
    b"\x1f\x8b", b"PAR1", b"DICM",
)  # fmt: skip
"""What breaks readers: ends of strings, deep nesting, huge numbers, marks of formats."""
_MOST = 200_000
"""Longest input in bytes."""


def mutate(rng: random.Random, seeds: Sequence[bytes], *, rows: bool) -> bytes:
    """A damaged copy of one of the seeds.

    Args:
        rng: decides everything.
        seeds: sound inputs.
        rows: whether the seeds are JSON lines, whose values are replaced too.
    """
    data = rng.choice(seeds)
    if rows and rng.random() < 0.6:
        data = _with_a_bad_row(rng, data)
        if rng.random() < 0.7:
            return data[:_MOST]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(_STEPS)(rng, data, rng.choice(seeds))
    return data[:_MOST]


def _with_a_bad_row(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines() or [b"{}"]
    number = rng.randrange(len(lines))
    try:
        row = json.loads(lines[number])
    except ValueError:
        return data
    if isinstance(row, dict) and row:
        lines[number] = CORRUPTIONS[rng.choice(list(CORRUPTIONS))](rng, row)
    return b"\n".join(lines) + b"\n"


def _insert(rng: random.Random, data: bytes, _: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(TOKENS) + data[at:]


def _overwrite(rng: random.Random, data: bytes, _: bytes) -> bytes:
    at, token = rng.randint(0, len(data)), rng.choice(TOKENS)
    return data[:at] + token + data[at + len(token) :]


def _flip(rng: random.Random, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data)
    for _unused in range(rng.choice((1, 2, 8)) if data else 0):
        changed[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(changed)


def _delete(rng: random.Random, data: bytes, _: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + data[at + rng.choice((1, 2, 4, 16, 64)) :]


def _cut(rng: random.Random, data: bytes, _: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _repeat(rng: random.Random, data: bytes, _: bytes) -> bytes:
    at = rng.randint(0, len(data))
    piece = data[at : at + rng.choice((1, 4, 16, 64))]
    return data[:at] + piece * rng.choice((2, 3, 50)) + data[at:]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


_STEPS = (_insert, _insert, _overwrite, _flip, _flip, _delete, _cut, _repeat, _splice)
