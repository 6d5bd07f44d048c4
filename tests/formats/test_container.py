"""Rows out of every container, and a clear word for every file that is none."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.files.container import is_object_of_lists, read_mapped_rows, read_rows
from formats.files.json import CHUNK, JsonStream, list_elements
from traces.errors import TraceFormatError

ROWS = [{"id": f"t{i}", "text": "é" * i, "deep": {"n": [i, None, -0.5]}} for i in range(5)]


def written(path: Path, data: bytes, *, zipped: bool = False) -> Path:
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def values(path: Path, **options: int) -> list[dict[str, Any]]:
    return [row.value for row in read_rows(path, **options)]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=1, ensure_ascii=False),
        "\n".join(json.dumps(row) for row in ROWS),
        "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\r\n",
    ],
)
def test_reads_every_container_whatever_its_suffix(
    tmp_path: Path, text: str, bom: bytes, zipped: bool
) -> None:
    path = written(tmp_path / "misleading.txt", bom + text.encode(), zipped=zipped)
    assert values(path) == ROWS
    assert [row.index for row in read_rows(path)] == list(range(5))


def test_lines_are_counted_with_blank_ones_and_rows_without(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"a":1}\n\n  \n{"a":2}\n')
    assert [(row.line, row.index) for row in read_rows(path)] == [(1, 0), (4, 1)]


def test_reads_an_object_of_lists(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.json",
        json.dumps({"u1": ROWS[:2], "u2": [], "u3": ROWS[2:]}, indent=1).encode(),
    )
    assert is_object_of_lists(path)
    assert [row.value for row in read_mapped_rows(path)] == ROWS
    assert not is_object_of_lists(written(tmp_path / "b.jsonl", b'{"a": "[{"}\n'))


def test_bad_rows_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        b'{"a":1}',
        b"{broken}",
        "{'é'}".encode("latin-1"),
        b'{"a":"\x00"}',
        b"[1]",
        b'{"s":NaN}',
        b'{"a":2}',
    ]
    rows = list(read_rows(written(tmp_path / "a.jsonl", b"\n".join(lines) + b"\n")))
    assert [row.line for row in rows if row.fault] == [2, 3, 4, 5, 6]
    faults = [row.fault or "" for row in rows[1:6]]
    for fault, word in zip(
        faults, ["not JSON", "UTF-8 (byte 0xe9", "NUL", "object", "NaN"], strict=True
    ):
        assert word in fault
    assert [row.value for row in rows if not row.fault] == [{"a": 1}, {"a": 2}]


def test_a_bad_byte_in_a_list_costs_its_row_only(tmp_path: Path) -> None:
    data = json.dumps([{"a": "x"}, {"a": "@"}, {"a": "y"}]).encode().replace(b"@", b"\xe9")
    rows = list(read_rows(written(tmp_path / "a.json", data)))
    assert [row.fault is None for row in rows] == [True, False, True]
    assert "UTF-8" in str(rows[1].fault)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (gzip.compress(json.dumps(ROWS).encode(), mtime=0)[:-9], "cut off or damaged"),
        (
            gzip.compress(json.dumps(ROWS).encode(), mtime=0)[:40] + b"\x00" * 40,
            "cut off or damaged",
        ),
        (json.dumps(ROWS).encode()[:-30], "cut off"),
        (json.dumps(ROWS).encode()[:-1], "cut off"),
        (b'{"a":1}\n{"a":', "cut off"),
        (b'[{"a":1}, nope, {"a":2}]', "cannot be read to its end"),
        (b'[{"a":1}] [', "follows the end"),
        (b"[{}" + b",,", "cannot be read to its end"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "binary"),
        (b"PAR1\x15\x04", "damaged or cut off"),
        ('{"a":1}'.encode("utf-16"), "UTF-16"),
        ('{"a":1}'.encode("utf-16-le"), "UTF-16"),
        (b"id,steps\n1,2\n", "neither a JSON list nor JSON lines"),
        (b'{\n "a": 1,\n "b": 2\n}\n', "spread over several lines"),
        (b'{\n "u1": [\n  {"a": 2}\n ]\n}\n', "looks like mr-ben"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_a_file_that_is_unreadable_as_a_whole_says_why(
    tmp_path: Path, data: bytes, words: str
) -> None:
    path = written(tmp_path / "file.json", data)
    with pytest.raises(TraceFormatError) as caught:
        list(read_rows(path))
    assert words in caught.value.what
    assert "file.json" in caught.value.what
    assert len(str(caught.value).splitlines()) <= 3


def test_a_missing_file_and_a_folder_are_clear(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="not found"):
        list(read_rows(tmp_path / "absent.json"))
    with pytest.raises(TraceFormatError, match="directory"):
        list(read_rows(tmp_path))


def test_a_line_over_the_limit_is_rejected_and_the_rest_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"a":1}\n{"a":"' + b"x" * 300_000 + b'"}\n{"a":2}\n')
    rows = list(read_rows(path, row_limit=1000))
    assert [row.line for row in rows] == [1, 2, 3]
    assert rows[1].fault == "is longer than 1000 bytes"
    assert rows[2].value == {"a": 2}


def test_an_element_over_the_limit_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps([{"a": 1}, {"a": "x" * (3 * CHUNK)}]).encode())
    with pytest.raises(TraceFormatError, match=f"row 2 is longer than {CHUNK} characters"):
        list(read_rows(path, row_limit=CHUNK))


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["line", "list"])
def test_a_line_of_100_megabytes_is_refused_in_bounded_memory(tmp_path: Path, shape: str) -> None:
    begin, end = (b'{"a":"', b'"}\n{"a":2}\n') if shape == "line" else (b'[{"a":"', b'"}, {"a":2}]')
    path = tmp_path / "big"
    with path.open("wb") as out:
        out.write(begin)
        for _ in range(100):
            out.write(b"x" * 1_000_000)
        out.write(end)
    tracemalloc.start()
    try:
        if shape == "line":
            first, second = read_rows(path)
            assert first.fault == "is longer than 67108864 bytes"
            assert second.value == {"a": 2}
        else:
            with pytest.raises(TraceFormatError, match="row 1 is longer than"):
                list(read_rows(path))
        assert tracemalloc.get_traced_memory()[1] < 600_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_long_list_on_one_line_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    row = json.dumps({"text": "x" * 1000})
    path.write_text("[" + ", ".join([row] * 30_000) + "]")
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(path)) == 30_000
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


class DripRead:
    """Hands out a few bytes at a time, whatever is asked for."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = data, size

    def __call__(self, _: int) -> bytes:
        piece, self.data = self.data[: self.size], self.data[self.size :]
        return piece


elements = st.lists(
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.booleans()
    | st.none()
    | st.dictionaries(
        st.text("ab", max_size=2), st.lists(st.text(max_size=3), max_size=3), max_size=2
    ),
    max_size=6,
)


@pytest.mark.slow
@settings(deadline=None)
@given(elements, st.integers(1, 7), st.booleans())
def test_the_stream_reads_a_list_cut_at_any_place(
    rows: list[Any], size: int, ascii_only: bool
) -> None:
    text = json.dumps(rows, ensure_ascii=ascii_only, indent=1 if size % 2 else None)
    stream = JsonStream(DripRead(text.encode(), size))
    read = [value for value, fault in list_elements(stream) if fault is None]
    assert read == [row for row in rows if "\\u0000" not in json.dumps(row)]
    stream.require_end()
