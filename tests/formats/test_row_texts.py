"""Ids and texts of any row."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from formats import export_formats, write_file
from formats.auxiliary import RowTexts, read_row_texts
from tests.formats.samples import SAMPLES
from tests.formats.test_writing import row
from traces.labels import Verdict
from traces.records import RejectedRow


def test_ids_and_texts_are_gathered_from_any_shape(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = [
        {"id": "a:0", "prompt": "Q?", "completions": ["one", "two"], "labels": [True, False]},
        {"messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "+"}]},
        {
            "conversations": [{"from": "human", "value": "Q?"}],
            "meta": {"question_id": "q9", "n": 3},
        },
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    found = list(read_row_texts(path))
    assert found[:3] == [
        RowTexts(1, ("a:0",), ("Q?", "one", "two")),
        RowTexts(2, (), ("Q?", "+")),
        RowTexts(3, ("q9",), ("Q?",)),
    ]
    assert isinstance(found[3], RejectedRow)
    assert found[3].line == 4


def test_an_object_of_lists_is_read_too(real_data: Path) -> None:
    found = list(read_row_texts(real_data / "mr_ben" / "biology.json"))
    assert len(found) == 1035
    assert all(isinstance(row, RowTexts) and row.ids for row in found)


@pytest.mark.parametrize("format", [*sorted(SAMPLES.keys() & set(export_formats())), "parquet"])
def test_rows_of_every_format_keep_their_ids_and_texts(tmp_path: Path, format: str) -> None:
    path = tmp_path / ("o.parquet" if format == "parquet" else "o.jsonl")
    rows = [row([Verdict.CORRECT, Verdict.INCORRECT], id=f"t{number}") for number in range(3)]
    steps = ("Step 1: a", "Step 2: b")
    rows = [replace(each, trace=replace(each.trace, steps=steps, generator="m")) for each in rows]
    assert write_file(format, path, rows).written == 3
    found = [each for each in read_row_texts(path) if isinstance(each, RowTexts)]
    ids = [each_id for each in found for each_id in each.ids]
    assert {"t0", "t1", "t2"} <= {*ids} | {text for each in found for text in each.texts}
    assert any("Step 1: a" in text for each in found for text in each.texts)
