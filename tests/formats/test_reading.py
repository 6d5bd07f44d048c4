"""What holds for every format: ids, wrong formats, sources of a re-import."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from formats import export_formats, import_formats, read_file, source_file
from tests.formats.builders import jsonl, read
from tests.formats.samples import SAMPLES, WANT_LABELER
from tests.formats.test_mr_ben import ROW as MR_BEN
from tests.formats.test_processbench import ROW as PROCESSBENCH
from tests.formats.test_traces_jsonl import ROW as TRACES
from tests.formats.test_trl import ROW as TRL
from traces.errors import InputError, TraceFormatError
from traces.labels import LabelerKind


def test_the_formats_are_the_ones_of_the_contract() -> None:
    contract = {
        "traces", "processbench", "mr-ben", "mr-gsm8k", "big-bench-mistake", "prmbench", "prm800k",
        "math-shepherd", "medprm", "visualprocessbench", "trl",
    }  # fmt: skip
    training = {"openrlhf", "qwen-prm", "sharegpt", "critique"}
    only_read = {"openr", "responses", "visualprm-raw", "fover", "hard2verify", "deltabench"}
    only_read.add("agentprocessbench")
    assert set(import_formats()) == set(SAMPLES) == contract | training | only_read | {"case"}
    reviewed = {"case", "potato", "label-studio"}
    assert set(export_formats()) == contract | training | {"parquet"} | reviewed


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="math-shepherd"):
        read_file("csv", tmp_path / "a.csv")


@pytest.mark.parametrize("asked", sorted(SAMPLES))
@pytest.mark.parametrize("given", sorted(SAMPLES))
def test_a_file_of_another_format_is_named(tmp_path: Path, asked: str, given: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", [SAMPLES[given]])
    who = {"labeler": "x", "kind": LabelerKind.MC} if asked in WANT_LABELER else {}
    if asked == given:
        assert len(list(read_file(asked, path, **who))) == 1  # type: ignore[arg-type]
        return
    with pytest.raises(TraceFormatError) as caught:
        list(read_file(asked, path, **who))  # type: ignore[arg-type]
    assert f"looks like {given}" in caught.value.what
    assert caught.value.remedy == f"stepgold import {given} ..."


def test_a_single_line_object_of_lists_is_recognised_too(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"u1": [MR_BEN]}))
    with pytest.raises(TraceFormatError, match="looks like mr-ben"):
        read("traces", path)


def test_wrong_keys_are_shown(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="'foo', 'bar'"):
        read("traces", jsonl(tmp_path / "a.jsonl", [{"foo": 1, "bar": 2}] * 9))


def test_one_row_with_wrong_keys_is_only_that_row(tmp_path: Path) -> None:
    traces, (rejected,) = read("traces", jsonl(tmp_path / "a.jsonl", [{"id": "odd"}, TRACES]))
    assert [item.trace.id for item in traces] == ["t1"]
    assert (rejected.line, rejected.id) == (1, "odd")


def test_bad_rows_are_listed_with_line_and_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(TRACES).encode()
    path.write_bytes(
        b"\n".join([b'{"id": "caf\xe9"}', good, b"nonsense", b'{"id":"x\x00"}', good, b""])
    )
    traces, rejected = read("traces", path)
    assert len(traces) == 1
    assert [row.line for row in rejected] == [1, 3, 4, 5]
    assert {row.file for row in rejected} == {str(path)}
    assert (rejected[3].id, rejected[3].reason) == ("t1", "the id occurs twice in the file")


def test_a_duplicate_whose_gold_is_unusable_is_listed_once(tmp_path: Path) -> None:
    bad = PROCESSBENCH | {"label": 9}
    traces, rejected = read("processbench", jsonl(tmp_path / "a.jsonl", [bad, bad]))
    assert len(traces) == 1
    assert [row.imported for row in rejected] == [True, False]


def test_generated_ids_take_stem_and_0_based_row(tmp_path: Path) -> None:
    path = tmp_path / "v1.train.jsonl.gz"
    path.write_bytes(
        gzip.compress(b"\n\n".join(json.dumps(row).encode() for row in [TRL, {"x": 1}, TRL]))
    )
    traces, rejected = read("trl", path, labeler="x", kind=LabelerKind.JUDGE)
    assert [item.trace.id for item in traces] == ["v1.train:0", "v1.train:2"]
    assert [(row.id, row.line) for row in rejected] == [("v1.train:1", 3)]


def test_a_file_cut_in_the_middle_fails_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([PROCESSBENCH | {"id": str(i)} for i in range(30)])[:-40])
    rows = read_file("processbench", path)
    next(rows)
    with pytest.raises(TraceFormatError, match="cut off"):
        list(rows)


def test_source_file_is_name_hash_and_options(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"{}")
    source = source_file(path, "traces", {"subset": "s"})
    assert (source.name, source.format, source.options) == ("a.jsonl", "traces", {"subset": "s"})
    assert source.sha256 == hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(TraceFormatError, match="not found"):
        source_file(tmp_path / "absent", "traces", {})


def test_a_whole_number_is_an_id_as_its_text(tmp_path: Path) -> None:
    for format, sample in (("traces", TRACES), ("processbench", PROCESSBENCH)):
        traces, rejected = read(format, jsonl(tmp_path / "a.jsonl", [sample | {"id": 7}]))
        assert [item.trace.id for item in traces] == ["7"]
        assert not rejected
    _, rejected = read("traces", jsonl(tmp_path / "a.jsonl", [TRACES | {"id": True}]))
    assert [row.id for row in rejected] == [None]


def test_a_whole_number_written_as_a_float_is_a_label(tmp_path: Path) -> None:
    rows = [PROCESSBENCH | {"id": f"{label}", "label": label} for label in (1.0, -1.0)]
    traces, rejected = read("processbench", jsonl(tmp_path / "a.jsonl", rows))
    assert not rejected
    labels = [item.labels[0][1] for item in traces]
    assert [label.first_error_index for label in labels] == [1, None]
    assert all(label.first_error_given for label in labels)
