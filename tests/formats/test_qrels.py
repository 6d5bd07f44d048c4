"""Relevance judgements: TREC and JSONL, and the lines that are neither."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from formats.auxiliary import read_qrels
from traces.errors import TraceFormatError
from traces.evidence import Relevance


def test_trec_lines_and_rows_may_stand_in_one_file(tmp_path: Path) -> None:
    rows = [
        "q1 0 dosing.md 2",
        "q1\tQ0\tother.md\t-1",
        "",
        json.dumps({"problem_id": "q 2", "document": "a b.md#7"}),
        json.dumps({"problem": "Which dose?", "document": "d", "relevance": 3, "decisive": "6 mg"}),
        json.dumps({"problem": "Line\u2028break?", "document": "d"}, ensure_ascii=False),
        "q1 0 dosing.md 2",
    ]
    path = tmp_path / "qrels"
    path.write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    expected = [
        Relevance("q1", "dosing.md", 2),
        Relevance("q1", "other.md", 0),
        Relevance("q 2", "a b.md#7", 1),
        Relevance("Which dose?", "d", 3, "6 mg", by_text=True),
        Relevance("Line\u2028break?", "d", 1, by_text=True),
    ]
    assert read_qrels(path) == expected
    packed = tmp_path / "qrels.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_qrels(packed) == expected


@pytest.mark.parametrize(
    "line",
    [
        "q1 0 dosing.md",
        "q1 0 dosing.md high",
        "q1 0 dosing.md 1 extra",
        "[1]",
        "{broken",
        '{"problem_id": 1.5, "document": "d"}',
        '{"document": "d"}',
        '{"problem_id": "q", "document": "d", "relevance": true}',
        '{"problem_id": "q", "document": "d", "relevance": 0.5}',
        '{"problem_id": "q", "document": "d", "decisive": " "}',
        pytest.param("q1 0 d 2", id="judged otherwise in line 1"),
    ],
)
def test_a_line_that_is_no_judgement_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "q").write_text(f"q1 0 d 1\n{line}\n")
    with pytest.raises(TraceFormatError) as caught:
        read_qrels(tmp_path / "q")
    assert str(caught.value.where).endswith("line 2")


@pytest.mark.parametrize("content", [b"", b"\n \n", b"q 0 \xff 1", None])
def test_a_file_without_judgements_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "q"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TraceFormatError):
        read_qrels(path)
    (tmp_path / "q.gz").write_bytes(b"no gzip")
    with pytest.raises(TraceFormatError):
        read_qrels(tmp_path / "q.gz")
