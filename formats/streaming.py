"""Reads one long JSON list, or one JSON object of lists, element by element in bounded memory."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import Any

from formats.json_values import ROW_LIMIT, JsonFault, StrictDecoder

CHUNK = 256 * 1024
"""Bytes read at a time."""
SPACE = " \t\r\n"


class JsonStream:
    """A cursor over JSON text that is read as it is needed.

    Args:
        read: returns up to that many bytes, and none at the end.
        row_limit: longest value in characters; what is longer is a `JsonFault`.
    """

    def __init__(self, read: Callable[[int], bytes], *, row_limit: int = ROW_LIMIT) -> None:
        self._read = read
        self._row_limit = row_limit
        # Bad bytes become half characters, so that only the row that holds them is rejected.
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
        """The next character that is no white space; empty at the end."""
        while True:
            while self._position < len(self._buffer):
                if self._buffer[self._position] not in SPACE:
                    return self._buffer[self._position]
                self._position += 1
            if self._ended:
                return ""
            self._fill(0)

    def take(self, allowed: str) -> str:
        """Consume the next character, which must be one of `allowed`."""
        found = self.peek()
        if not found:
            raise JsonFault("the file ends too early", cut=True)
        if found not in allowed:
            raise JsonFault(f"'{found}' stands where one of '{allowed}' was expected")
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
            # Doubling keeps the number of attempts small, and the whole work linear.
            self._fill(min(pending, self._row_limit + 1 - pending))

    def _is_whole(self, end: int) -> bool:
        # Only a number can go on in text that was not read yet: "1" of "1.5".
        return self._buffer[end - 1] in '}]"' or self._buffer[end : end + 1] in set(f"{SPACE},]}}:")

    def require_end(self) -> None:
        """Fail if anything but white space is left."""
        if rest := self.peek():
            raise JsonFault(f"'{rest}' stands behind the end of the JSON document")


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
