"""Ids and texts of any row."""

from __future__ import annotations

import json
from pathlib import Path

from formats.row_texts import RowTexts, read_row_texts
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
