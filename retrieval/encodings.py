"""The bytes of a text file as text: told by its marks and its own words, never guessed."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

_SNIFFED = 1 << 16
"""Bytes that are looked at before a file is read whole."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks; UTF-32's begin with UTF-16's."""
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)


def read_text(path: Path, *, max_bytes: int, html: bool = False) -> str:
    """A file as text, without byte-order mark.

    UTF-8, UTF-16 and UTF-32 are known by their marks; without one the text must be UTF-8, or an
    HTML page that names its charset.

    Args:
        path: the file.
        max_bytes: a larger file is not read.
        html: whether the file may name its charset.

    Raises:
        ValueError: too large, binary, or of an encoding that nothing tells; the message says which.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(_SNIFFED)
        mark = next((encoding for bom, encoding in _MARKS if start.startswith(bom)), None)
        if mark is None and b"\x00" in start:
            raise ValueError("is a binary file (NUL bytes)")
        if size > max_bytes:
            raise ValueError(
                f"has {size:,} bytes, more than {max_bytes:,}: split it, or raise --max-file-mb"
            )
        content = start + stream.read()
    if mark is not None:
        return _decoded(content, mark, "names itself")
    if b"\x00" in content:
        raise ValueError("is a binary file (NUL bytes)")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as fault:
        named = _CHARSET.search(start) if html else None
        if named is not None:
            return _decoded(content, named[1].decode("ascii"), "says it is")
        byte = f"byte 0x{content[fault.start]:02x} at offset {fault.start}"
        raise ValueError(f"is not UTF-8 ({byte}): convert it to UTF-8") from fault


def _decoded(content: bytes, encoding: str, told: str) -> str:
    try:
        return content.decode(encoding)
    except LookupError as fault:
        raise ValueError(
            f"{told} '{encoding}', which is no encoding: convert it to UTF-8"
        ) from fault
    except UnicodeError as fault:
        raise ValueError(f"{told} '{encoding}' and is not: convert it to UTF-8") from fault
