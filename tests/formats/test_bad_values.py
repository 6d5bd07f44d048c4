"""One bad value costs one row: what a reader did not expect never ends the import."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli import execute
from formats import import_formats
from formats.auxiliary import (
    read_pool,
    read_pool_scores,
    read_problems,
    read_qrels,
    read_row_texts,
    read_scores,
)
from formats.files.container import read_rows
from formats.registry import format_named
from formats.rows import object_of
from formats.trace_files import read_file
from retrieval.documents import DocumentProblem, read_documents
from scoring.families.generic_layout import GenericLayout
from stepgold.workspace import read_toml
from traces import (
    ImportedTrace,
    LabelerKind,
    RejectedRow,
    StoredDocument,
    ToolkitError,
    watch_defects,
    whole_or_nothing,
)

GOOD: dict[str, Any] = {"id": "t", "problem": "1 + 1?", "answer": "2", "steps": ["It is 2."]}
LONG = "9" * 5000


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, format: str = "traces") -> tuple[list[str], list[RejectedRow]]:
    found = list(read_file(format, path))
    kept = [one.trace.id for one in found if isinstance(one, ImportedTrace)]
    return kept, [one for one in found if isinstance(one, RejectedRow)]


@pytest.mark.parametrize("kind", [[], {}, 7, None, ["gold"]])
def test_a_kind_of_any_type_costs_its_row(tmp_path: Path, kind: Any) -> None:
    labeled = {**GOOD, "id": "bad", "labels": {"gold": {"kind": kind, "verdicts": ["correct"]}}}
    kept, rejected = read(write(tmp_path / "t.jsonl", GOOD, labeled))
    assert kept == ["t"]
    assert rejected[0].line == 2
    assert "'kind' is" in rejected[0].reason


def test_a_labeler_of_an_unhashable_kind_costs_its_row(tmp_path: Path) -> None:
    row = {"id": "a", "problem": "q", "steps": ["s"], "label": -1, "final_answer_correct": True}
    rows = (row, {**row, "id": "b", "labeler": {"name": "x", "kind": ["gold"]}})
    kept, rejected = read(write(tmp_path / "p.jsonl", *rows), "processbench")
    assert kept == ["a"]
    assert [one.line for one in rejected] == [2]


def test_step_numbers_of_5000_digits_cost_their_row(tmp_path: Path) -> None:
    row = {
        "Question_UUID": "u",
        "Question": "q",
        "Sampled_Model": "m",
        "Options": "A: 1",
        "Ground_Truth_Answer": "A",
        "Model_Solution_Steps": [f"Step {LONG}: a"],
        "Model_Solution_Correctness": "incorrect",
        "Model_Solution_First_Error_Step": LONG,
    }
    good = {**row, "Question_UUID": "g", "Model_Solution_Steps": ["Step 1: a"]}
    good["Model_Solution_First_Error_Step"] = "1"
    kept, rejected = read(write(tmp_path / "m.jsonl", good, row), "mr-ben")
    assert len(kept) == 1
    assert [one.line for one in rejected] == [2]


def test_a_defect_is_counted_and_logged_under_debug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader that fails on one row in a way that nobody foresaw."""

    def failing(row: Any, key: str) -> Any:
        if row.get("id") == "bad":
            raise ZeroDivisionError("boom")
        return object_of(row, key)

    monkeypatch.setattr("formats.field.traces_jsonl.object_of", failing)
    bad = {**GOOD, "id": "bad", "labels": {"x": {"kind": "gold", "verdicts": ["correct"]}}}
    file = write(tmp_path / "t.jsonl", GOOD, bad)
    given = ["--workspace", str(tmp_path), "import", "traces", str(file), "--dataset", "d"]
    assert execute([*given, "--json"]) in (0, 1)
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["traces"] == 1
    assert "ZeroDivisionError: boom" in document["rejected"][0]["reason"]
    assert "1 rows or replies met a defect" in told.err
    assert "Traceback" not in told.err
    execute(["--debug", *given[:-1], "e", "--json"])
    assert "Traceback" in capsys.readouterr().err
    assert not logging.getLogger("stepgold.defects").handlers


ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
    | st.sampled_from([LONG, 10**400, "\x00", "gold"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("format", sorted(import_formats()))
@given(data=st.data())
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_of_any_values_are_kept_or_rejected(
    tmp_path: Path, format: str, data: st.DataObject
) -> None:
    known = format_named(format, import_formats())
    keys = sorted(known.required | {*GOOD, "labels", "label", "labeler", "rating"})
    row = data.draw(st.dictionaries(st.sampled_from(keys), ANY, min_size=1))
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps(row) + "\n")
    options: dict[str, Any] = {}
    if known.needs_labeler:
        options = {"labeler": "l", "kind": LabelerKind.GOLD}
    with contextlib.suppress(ToolkitError):
        list(read_file(format, file, **options))


def test_score_rows_of_odd_values_are_rejected(tmp_path: Path) -> None:
    rows = ({"id": [], "scores": [0.5]}, {"id": "t", "scores": {"a": 1}})
    found = list(read_scores(write(tmp_path / "s.jsonl", *rows), {"t": 1}))
    assert all(isinstance(one, RejectedRow) for one in found)


@pytest.mark.parametrize("blank", [" ", "\n", "\t\n", "\r\n"])
def test_a_file_of_blanks_ends_quickly(tmp_path: Path, blank: str) -> None:
    plain, packed = tmp_path / "b.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_text(blank * (3_000_000 // len(blank)))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for file in (plain, packed):
        before = time.process_time()
        with pytest.raises(ToolkitError):
            list(read_rows(file))
        assert time.process_time() - before < 10  # quadratic: an hour


class Unforeseen(Exception):
    """What nobody expects of a reader."""


def fails(*_: object, **__: object) -> None:
    raise Unforeseen("boom")


WHOLE_FILES: dict[str, tuple[Callable[[Path], object], str, dict[str, Any]]] = {
    "pool": (
        read_pool,
        "_pool_row",
        {"problem_id": "p", "candidate_index": 0, "answer": "1", "is_correct": True},
    ),
    "pool scores": (
        read_pool_scores,
        "_score_row",
        {"problem_id": "p", "candidate_index": 0, "step_scores": [0.5]},
    ),
    "problems": (read_problems, "_problem", {"id": "p", "problem": "q"}),
    "qrels": (read_qrels, "_from_json", {"problem_id": "p", "document": "d"}),
    "texts": (lambda path: list(read_row_texts(path)), "_gather", GOOD),
    "traces": (lambda path: list(read_file("traces", path)), "is_object_of_lists", GOOD),
}


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_a_defect_in_a_file_read_as_a_whole_is_bad_input(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole file is refused by name (exit 2), and the defect is counted."""
    read_whole, part, row = WHOLE_FILES[name]
    file = write(tmp_path / "f.jsonl", row)
    assert read_whole(file)
    module = "formats.trace_files.checked_rows" if name == "traces" else f"formats.auxiliary.{part}"
    monkeypatch.setattr(module, fails)
    with watch_defects() as met, pytest.raises(ToolkitError, match=r"Unforeseen: boom") as refused:
        read_whole(file)
    assert str(file) in str(refused.value.where)
    assert len(met) == 1


def test_a_defect_in_a_document_costs_that_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.html").write_text("<p>a</p>")
    (tmp_path / "b.txt").write_text("b")
    monkeypatch.setattr("retrieval.documents.reading.html_to_text", fails)
    with watch_defects() as met:
        bad, good = read_documents([tmp_path])
    assert isinstance(bad, DocumentProblem)
    assert "Unforeseen: boom" in bad.reason
    assert isinstance(good, StoredDocument)
    assert len(met) == 1


@pytest.mark.parametrize("value", [LONG, "[" * 3000, '"\\ud800"', "1e999", "\x00"])
@pytest.mark.parametrize("read_config", [read_toml, GenericLayout.from_file])
def test_no_value_of_a_toml_file_ends_a_run(
    tmp_path: Path, value: str, read_config: Callable[[Path], object]
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f"x = {value}\n")
    with watch_defects() as met, contextlib.suppress(ToolkitError):
        read_config(file)
    assert not met


def test_limits_of_the_system_are_not_blamed_on_the_file() -> None:
    with pytest.raises(OSError, match="open files"), whole_or_nothing("x"):
        raise OSError(errno.EMFILE, "Too many open files")
    said = "Cannot read 'x': Input/output error"
    with pytest.raises(ToolkitError, match=said), whole_or_nothing("x"):
        raise OSError(errno.EIO, "Input/output error")
