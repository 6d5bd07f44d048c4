"""Strict JSON in bounded memory: NaN, 1e999, NUL and lone surrogates are faults, unlike in
`json`."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

ROW_LIMIT = 64 * 1024 * 1024
"""Longest row: bytes of a JSONL line, characters of an element of a JSON list."""
DEPTH_LIMIT = 100
"""Deepest nesting of a row: code that stores and writes it recurses."""
LONGEST_ESCAPE = len(r"\ud83d\ude00")
"""A shorter rest after a bad escape may be the beginning of a good one."""
_BEGUN = re.compile(
    r"|t(ru?)?|f(a(ls?)?)?|n(ul?)?|Na?|-|-?I(n(f(i(n(it?)?)?)?)?)?|\.|\.?[0-9]*[eE][+-]?"
)
"""What a cut leaves of a literal or a number: nothing, or a proper prefix."""


INFINITE_KEYS = frozenset({"PRM_min_score", "PRM_score", "PRM_score_list"})
"""Keys of Med-PRM's published scoring script, which writes -Infinity for a skipped solution: read
as null under these keys, a fault anywhere else."""


class _MinusInfinity:
    """Where a text has -Infinity."""


_MINUS_INFINITY = _MinusInfinity()


class JsonFault(ValueError):
    """Text that is not strict JSON.

    Args:
        reason: what is wrong, as a clause that can follow "the row".
        cut: whether the text ends too early, so that more text might complete it.
    """

    def __init__(self, reason: str, *, cut: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cut = cut


class StrictDecoder:
    """Decodes JSON values and notes what strict JSON forbids: NaN, 1e999, a duplicate key.

    -Infinity is null under the keys of `INFINITE_KEYS`.
    """

    def __init__(self) -> None:
        self._odd: list[str] = []
        self._infinite = 0
        self._decoder = json.JSONDecoder(
            parse_constant=self._constant,
            parse_float=self._float,
            object_pairs_hook=self._object,
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # Of a duplicate key, Python would silently keep the last value.
        value = dict(pairs)
        if len(value) != len(pairs):
            ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
            self._odd.append(f"the key '{twice:.40}' twice")
        if self._infinite:
            for key in INFINITE_KEYS & value.keys():
                value[key] = self._without_infinity(value[key])
        return value

    def _without_infinity(self, value: Any) -> Any:
        if value is _MINUS_INFINITY:
            self._infinite -= 1
            return None
        if isinstance(value, list):
            return [self._without_infinity(part) for part in value]
        return value

    def _constant(self, word: str) -> Any:
        if word == "-Infinity":
            self._infinite += 1
            return _MINUS_INFINITY
        self._odd.append(f"{word}, which is not a JSON number: write null")
        return None

    def _float(self, digits: str) -> float | None:
        number = float(digits)
        if math.isinf(number):
            self._odd.append(f"{digits[:20]}, which is not a JSON number: write null")
            return None
        return number

    def decode_at(self, text: str, start: int) -> tuple[Any, int, str | None]:
        """Decode the value that begins at `start`.

        Returns:
            The value, the offset after it, and why it cannot be used (None if it can).

        Raises:
            JsonFault: there is no JSON value at `start`.
        """
        self._odd.clear()
        self._infinite = 0
        try:
            value, end = self._decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            raise JsonFault(_clause(error), cut=_is_cut(error)) from error
        except RecursionError as error:
            raise JsonFault("is nested too deeply") from error
        except ValueError as error:  # an integer of more digits than Python converts
            raise JsonFault(f"contains a number that cannot be read ({error})") from error
        if self._infinite:
            self._odd.append("-Infinity, which is not a JSON number: write null")
        if self._odd:
            return value, end, f"contains {self._odd[0]}"
        return value, end, None if _is_plain(text[start:end]) else text_fault(value)

    def decode(self, text: str) -> tuple[Any, str | None]:
        """Decode a text that is one JSON value and nothing else.

        Returns:
            The value, and why it cannot be used (None if it can).

        Raises:
            JsonFault: it is not one JSON value.
        """
        stripped = text.strip(" \t\r\n")
        value, end, fault = self.decode_at(stripped, 0)
        if end != len(stripped):
            raise JsonFault(f"has text after its end (column {end + 1})")
        return value, fault


def text_fault(value: Any) -> str | None:
    """Why the texts inside a JSON value cannot be stored; None if they can."""
    pending = [(value, 0)]
    while pending:
        part, depth = pending.pop()
        if isinstance(part, dict | list):
            if depth > DEPTH_LIMIT:
                return f"is nested deeper than {DEPTH_LIMIT} levels"
            inner = [*part.keys(), *part.values()] if isinstance(part, dict) else part
            pending.extend((one, depth + 1) for one in inner)
        elif isinstance(part, str):
            if "\x00" in part:
                return "contains a NUL character"
            if not part.isascii() and not _encodes(part):
                return "contains text that is not UTF-8 (a bad byte or a lone surrogate)"
    return None


def _is_plain(text: str) -> bool:
    """Whether `text_fault` cannot apply to JSON text, which saves walking the value."""
    flat = text.count("[") + text.count("{") <= DEPTH_LIMIT
    return flat and "\\u" not in text and "\x00" not in text and _encodes(text)


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_cut(error: json.JSONDecodeError) -> bool:
    if error.msg.startswith("Unterminated string"):
        return True
    rest = error.doc[error.pos :].rstrip(" \t\r\n")
    if error.msg.startswith("Invalid \\"):
        return len(rest) < LONGEST_ESCAPE
    return _BEGUN.fullmatch(rest) is not None


def _clause(error: json.JSONDecodeError) -> str:
    if error.msg.startswith("Invalid control character") and error.doc[error.pos] == "\x00":
        return "contains a NUL byte"
    return f"is not JSON ({error.msg[0].lower()}{error.msg[1:]}, column {error.colno})"


CHUNK = 256 * 1024
"""Bytes read at a time."""
SPACE = " \t\r\n"
_VISIBLE = re.compile(f"[^{SPACE}]")


class JsonStream:
    """A cursor over JSON text that is read as needed.

    Args:
        read: returns up to that many bytes, and none at the end.
        row_limit: longest value in characters; a longer one is a `JsonFault`.
    """

    def __init__(self, read: Callable[[int], bytes], *, row_limit: int = ROW_LIMIT) -> None:
        self._read = read
        self._row_limit = row_limit
        # Bad bytes become lone surrogates, so that only the row with them is rejected.
        self._text = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._decoder = StrictDecoder()
        self._buffer = ""
        self._position = 0
        self._ended = False

    def _fill(self, wanted: int) -> None:
        data = self._read(max(CHUNK, wanted))
        self._ended = not data
        self._buffer = self._buffer[self._position :] + self._text.decode(data, final=self._ended)
        self._position = 0

    def peek(self) -> str:
        """The next character other than white space; empty at the end."""
        blanks = 0
        while True:
            found = _VISIBLE.search(self._buffer, self._position)
            end = found.start() if found else len(self._buffer)
            blanks += end - self._position
            self._position = end
            if blanks > self._row_limit:
                raise JsonFault(f"has more than {self._row_limit} blanks in a row")
            if found or self._ended:
                return found[0] if found else ""
            self._fill(0)

    def take(self, allowed: str) -> str:
        """Consume the next character, which must be one of `allowed`."""
        found = self.peek()
        if not found:
            raise JsonFault("the file ends too early", cut=True)
        if found not in allowed:
            raise JsonFault(f"found '{found}' where one of '{allowed}' was expected")
        self._position += 1
        return found

    def value(self) -> tuple[Any, str | None]:
        """Consume one value; the second part says why it cannot be used (None if it can)."""
        self.peek()
        while True:
            try:
                value, end, fault = self._decoder.decode_at(self._buffer, self._position)
                if self._ended or self._is_whole(end):
                    self._position = end
                    return value, fault
            except JsonFault as error:
                if self._ended or not error.cut:
                    raise
            pending = len(self._buffer) - self._position
            if pending > self._row_limit:
                raise JsonFault(f"is longer than {self._row_limit} characters")
            # Doubling keeps the total work linear.
            self._fill(min(pending, self._row_limit + 1 - pending))

    def _is_whole(self, end: int) -> bool:
        # Only a number can continue in text not read yet: "1" of "1.5".
        return self._buffer[end - 1] in '}]"' or self._buffer[end : end + 1] in set(f"{SPACE},]}}:")

    def require_end(self) -> None:
        """Fail if anything but white space is left."""
        if rest := self.peek():
            raise JsonFault(f"'{rest}' follows the end of the JSON document")


def list_elements(stream: JsonStream) -> Iterator[tuple[Any, str | None]]:
    """The elements of a JSON list that begins at the cursor, each with its fault or None."""
    stream.take("[")
    if stream.peek() == "]":
        stream.take("]")
        return
    while True:
        yield stream.value()
        if stream.take(",]") == "]":
            return


def mapped_lists(stream: JsonStream) -> Iterator[tuple[Any, str | None]]:
    """The elements of all lists of a JSON object of lists, in order."""
    stream.take("{")
    if stream.peek() == "}":
        stream.take("}")
        return
    while True:
        if stream.peek() != '"':
            raise JsonFault("a key of the JSON object is missing")
        stream.value()
        stream.take(":")
        yield from list_elements(stream)
        if stream.take(",}") == "}":
            return
