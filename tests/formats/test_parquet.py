"""Parquet: rows of any format out of a table, our rows into one, null for "absent"."""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from formats import ExportRow, read_file, read_scores, source_file, write_file
from formats.files.container import read_rows
from tests.formats.builders import labels_by_name, read
from tests.formats.drawn import rows
from tests.formats.samples import SAMPLES, WANT_LABELER
from traces.errors import InputError, TraceFormatError
from traces.labels import LabelerKind, TraceLabel, first_error

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")


def table(path: Path, records: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


@pytest.mark.parametrize("format", sorted(set(SAMPLES) - {"traces"}))
def test_a_table_reads_as_the_json_lines_do(tmp_path: Path, format: str) -> None:
    from tests.formats.builders import jsonl

    who: dict[str, Any] = {"labeler": "x", "kind": LabelerKind.MC} if format in WANT_LABELER else {}
    sample = SAMPLES[format]
    expected = read(format, jsonl(tmp_path / "a.jsonl", [sample]), **who)
    found = read(format, table(tmp_path / "a.parquet", [sample]), **who)
    # A null of the lines is an absent key of the table; nothing else differs.
    assert [item.labels for item in found[0]] == [item.labels for item in expected[0]]
    assert [item.trace.steps for item in found[0]] == [item.trace.steps for item in expected[0]]
    assert [item.problem for item in found[0]] == [item.problem for item in expected[0]]
    assert len(found[1]) == len(expected[1])


@settings(max_examples=12, deadline=None)
@given(row=rows())
def test_our_rows_come_back_out_of_a_table(
    row: ExportRow, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    assert write_file("parquet", path, [row]).not_carried == {}
    (item,), rejected = read("traces", path)
    assert not rejected
    assert (item.problem, item.trace, item.evidence) == (row.problem, row.trace, row.evidence)
    assert item.labels == ((row.labeler, row.label),)


def test_null_in_a_table_is_absent_but_where_it_is_a_word(tmp_path: Path) -> None:
    bare = {"input": "1 =", "steps": ["1"], "answer": "1", "target": "1"}
    path = table(
        tmp_path / "b.parquet",
        [bare | {"mistake_index": 0, "note": "n"}, bare | {"mistake_index": None}],
    )
    first, second = read("big-bench-mistake", path)[0]
    assert first.trace.meta == {"note": "n"}
    assert second.trace.meta == {}
    assert labels_by_name(second)["gold"].first_error_index is None

    # Struct columns give every row all keys: a first error that nobody stated must not mean "none".
    judge = {"kind": "judge", "verdicts": [1, -1], "first_error": None}
    gold = {"kind": "gold", "verdicts": None, "first_error": None}
    labelled = {"id": "a", "problem": "p", "steps": ["s", "t"], "labels": {"g": gold, "j": judge}}
    (item,), rejected = read("traces", table(tmp_path / "l.parquet", [labelled]))
    assert not rejected
    labels = labels_by_name(item)
    assert first_error(labels["g"]).index is None
    assert labels["g"].first_error_given
    assert first_error(labels["j"]).index == 1


def test_scores_of_two_kinds_in_one_table(tmp_path: Path) -> None:
    path = table(
        tmp_path / "s.parquet",
        [
            {"id": "a", "scores": [0.9, 0.1], "first_error": None},
            {"id": "b", "scores": None, "first_error": None},
            {"id": "c", "scores": None, "first_error": 1},
        ],
    )
    labels = [
        item for item in read_scores(path, {"a": 2, "b": 2, "c": 2}) if isinstance(item, TraceLabel)
    ]
    assert [label.first_error_given for label in labels] == [False, True, True]
    assert [label.first_error_index for label in labels] == [None, None, 1]


def test_ids_take_the_stem_without_its_suffix(tmp_path: Path) -> None:
    (item,), _ = read(
        "big-bench-mistake", table(tmp_path / "w.parquet", [SAMPLES["big-bench-mistake"]])
    )
    assert item.trace.id == "w:0"
    assert source_file(tmp_path / "w.parquet", "x", {}).name == "w.parquet"


def test_values_json_does_not_know_cost_their_row(tmp_path: Path) -> None:
    sound = {"id": "x", "problem": "p", "steps": ["s"], "score": 0.5, "more": b"\x00\x01"}
    records = [
        sound | {"id": "a", "more": None},
        sound | {"id": "b", "score": float("nan"), "more": None},
        sound | {"id": "c"},
        sound | {"id": "d", "problem": "x\x00y", "more": None},
    ]
    traces, rejected = read("traces", table(tmp_path / "t.parquet", records))
    assert [item.trace.id for item in traces] == ["a"]
    assert [row.line for row in rejected] == [2, 3, 4]
    for row, word in zip(rejected, ("nan", "binary data", "NUL"), strict=True):
        assert word in row.reason


def test_text_that_is_not_utf_8_costs_its_row(tmp_path: Path) -> None:
    ids = pyarrow.array([b"a", b"\xe9", b"c"]).cast(pyarrow.binary())
    ids = pyarrow.Array.from_buffers(pyarrow.string(), 3, ids.buffers())
    columns = {"id": ids, "problem": ["p", "q", "r"], "steps": [["s"]] * 3}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    traces, (rejected,) = read("traces", tmp_path / "t.parquet")
    assert [item.trace.id for item in traces] == ["a", "c"]
    assert (rejected.line, "UTF-8" in rejected.reason) == (2, True)


def test_a_damaged_table_is_named_whatever_is_damaged(tmp_path: Path) -> None:
    records = [SAMPLES["processbench"] | {"id": f"t{number}"} for number in range(50)]
    whole = table(tmp_path / "w.parquet", records).read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.randrange(4, len(data))] = rng.randrange(256)
        path = tmp_path / "d.parquet"
        path.write_bytes(bytes(data if rng.random() < 0.7 else data[: rng.randrange(4, len(data))]))
        with suppress(TraceFormatError):
            # Anything else that is raised here fails the test.
            list(read_file("processbench", path))
            refused -= 1
        refused += 1
    assert 10 < refused < 40


def test_without_pyarrow_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(tmp_path / "t.parquet", [SAMPLES["processbench"]])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: list(read_rows(path)), lambda: write_file("parquet", path, [])):
        with pytest.raises(InputError) as caught:
            call()
        assert "stepgold[parquet]" in str(caught.value.remedy)


@pytest.mark.parametrize(("format", "name"), [("trl", "o.parquet"), ("parquet", "o.jsonl")])
def test_format_and_suffix_must_agree(tmp_path: Path, format: str, name: str) -> None:
    with pytest.raises(InputError, match="does not fit"):
        write_file(format, tmp_path / name, [])
    assert not list(tmp_path.iterdir())


def test_an_empty_export_is_a_table_without_rows(tmp_path: Path) -> None:
    write_file("parquet", tmp_path / "o.parquet", [])
    assert pyarrow.parquet.read_table(tmp_path / "o.parquet").num_rows == 0
