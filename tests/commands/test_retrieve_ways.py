"""Ways to look for evidence: words alone (fast), steps, queries of a model, and how well they find."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.openai_server import OpenAIServer

Cli = Callable[..., Any]
WORDS = ("--mode", "bm25")


@pytest.fixture
def workspace(cli: Cli, tmp_path: Path) -> Path:
    guides = tmp_path / "guides"
    guides.mkdir()
    (guides / "addition.md").write_text("# Addition\n\nOne and one is two. 1+1=2.")
    (guides / "sums.md").write_text("# Sums\n\nThe sum of 2+3 is five. Add carefully.")
    (guides / "zebra.txt").write_text("Zebras have stripes. Zebras add nothing. " * 3)
    cli("corpus", "add", guides, "--corpus", "maths", "--licence", "CC0")
    rows = [
        {"id": "a", "problem": "What is 1+1?", "steps": ["1+1=2.", "Zebras have stripes."]},
        {"id": "b", "problem": "What is 1+1?", "steps": ["1+1=3."]},
        {"id": "c", "problem": "What is the sum of 2+3?", "steps": ["2+3=5."]},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cli("import", "traces", tmp_path / "t.jsonl", "--dataset", "d")
    return tmp_path / "w"


def evidence(cli: Cli, tmp_path: Path) -> dict[str, list[str]]:
    """Documents of the evidence by trace, as an export shows them."""
    from storage import Store

    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}", create=False) as store:
        return {
            context.trace.id: [f"{each.passage.document}@{each.step}" for each in context.evidence]
            for context in store.traces.contexts("d")
        }


@pytest.mark.usefixtures("workspace")
def test_search_by_words_needs_no_index_and_marks_them(cli: Cli) -> None:
    called = cli("search", "adding zebras", *WORDS, "--json")
    assert called.code == 0, called.err
    first, *_ = called.document["hits"]
    assert (first["document"], first["similarity"]) == ("zebra.txt", None)
    assert (first["licence"], first["title"]) == ("CC0", "zebra")
    assert first["source"].endswith("zebra.txt")
    marked = {first["text"][start:end] for start, end in first["highlights"]}
    assert marked == {"Zebras", "add"}
    assert first["end"] - first["start"] == len(first["text"])
    shown = cli("search", "adding zebras", *WORDS).out
    assert "maths/zebra.txt [0:" in shown
    assert "license CC0" in shown
    assert cli("search", "nowhere", *WORDS).out.strip() == "nothing found"
    hybrid = cli("search", "adding zebras")
    assert hybrid.code == 2
    assert "stepgold index" in hybrid.err


@pytest.mark.usefixtures("workspace")
def test_the_lexical_index_follows_the_corpora(cli: Cli, tmp_path: Path) -> None:
    assert cli("search", "okapi", *WORDS, "--json").document == {"hits": []}
    (tmp_path / "okapi.txt").write_text("An okapi.")
    cli("corpus", "add", tmp_path / "okapi.txt", "--corpus", "more")
    [hit] = cli("search", "okapi", *WORDS, "--json").document["hits"]
    assert hit["corpus"] == "more"
    cli("corpus", "remove", "more")
    assert cli("search", "okapi", *WORDS, "--json").document == {"hits": []}


def test_evidence_by_step_belongs_to_traces(cli: Cli, tmp_path: Path, workspace: Path) -> None:
    retrieve = ("retrieve", "--dataset", "d", *WORDS, "--k", "2", "--json")
    by_step = cli(*retrieve, "--query", "step").document
    assert (by_step["done"], by_step["unchanged"]) == (3, 0)
    found = evidence(cli, tmp_path)
    assert "zebra.txt@1" in found["a"], "the second step of a found it"
    assert found["b"][0] == "addition.md@None"
    assert all(not place.startswith("zebra") for place in found["b"])
    more = {"id": "e", "problem": "What is 1+1?", "steps": ["Zebras have stripes."]}
    (tmp_path / "u.jsonl").write_text(json.dumps(more))
    cli("import", "traces", tmp_path / "u.jsonl", "--dataset", "d")
    again = cli(*retrieve, "--query", "step").document
    assert (again["done"], again["unchanged"]) == (1, 3), "only the new trace is looked up"
    other = cli(*retrieve)
    assert other.code == 2
    assert "--replace" in other.document["error"]["remedy"]
    replaced = cli(*retrieve, "--replace").document
    assert (replaced["done"], replaced["unchanged"]) == (2, 0), "problems now"
    assert {
        place.split("@")[1] for places in evidence(cli, tmp_path).values() for place in places
    } == {"None"}


@pytest.mark.slow
@pytest.mark.usefixtures("workspace")
def test_a_model_writes_queries_and_is_paid_once(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    with OpenAIServer('{"queries": ["stripes of zebras"]}') as server:
        ways = (*WORDS, "--query", "rewrite", "--rewriter", "openai:m", "--base-url", server.url)
        retrieve = ("retrieve", "--dataset", "d", *ways, "--json")
        called = cli(*retrieve)
        assert (called.code, called.document["done"]) == (0, 2), called.err
        assert len(server.calls) == 2
        assert "What is 1+1?" in json.dumps([call[1] for call in server.calls])
        assert all(
            any(p.startswith("zebra") for p in places)
            for places in evidence(cli, tmp_path).values()
        )
        qrels = tmp_path / "q.txt"
        qrels.write_text(json.dumps({"problem": "What is 1+1?", "document": "zebra.txt"}))
        measured = cli(*retrieve, "--evaluate", qrels).document
        assert measured["measures"]["recall@10"] == 1
        assert len(server.calls) == 2, "the same queries are not bought again"

        server.text = "I would rather chat."
        more = {"id": "e", "problem": "Another question?", "steps": ["s"]}
        (tmp_path / "u.jsonl").write_text(json.dumps(more))
        cli("import", "traces", tmp_path / "u.jsonl", "--dataset", "d")
        broken = cli(*retrieve)
        assert (broken.code, broken.document["abstained"]) == (1, {"unreadable": 1})
    [failure] = cli("status", "--json").document["failures"]
    assert (failure["stage"], failure["reason"]) == ("retrieve", "unreadable")
    assert cli("retrieve", "--dataset", "d", "--query", "rewrite").code == 2


@pytest.mark.usefixtures("workspace")
def test_retrieval_is_measured_and_nothing_attached(cli: Cli, tmp_path: Path) -> None:
    rows = [
        {"problem": "What is 1+1?", "document": "addition.md", "relevance": 2, "decisive": "1+1=2"},
        {"problem": "What is 1+1?", "document": "maths/sums.md", "relevance": 0},
        {"problem": "What is the sum of 2+3?", "document": "zebra.txt", "decisive": "no such text"},
        {"problem": "What is the sum of 2+3?", "document": "lost.md"},
        {"problem": "Who?", "document": "zebra.txt"},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    called = cli("retrieve", "--dataset", "d", *WORDS, "--evaluate", tmp_path / "q.jsonl", "--json")
    assert called.code == 0, called.err
    document = called.document
    assert document["problems"] == 2
    measures = document["measures"]
    # Relevant to the sum: zebra.txt, which shares no word with the question, and a lost document.
    assert measures["ndcg@10"] == pytest.approx(0.5)
    assert (measures["recall@5"], measures["mrr"]) == (0.5, 0.5)
    assert document["decisive"] == {"problems": 2, "first": 0.5, "within_k": 0.5}
    assert (document["unknown_problems"], document["unknown_documents"]) == (["Who?"], ["lost.md"])
    assert evidence(cli, tmp_path) == {"a": [], "b": [], "c": []}
    words = cli("retrieve", "--dataset", "d", *WORDS, "--evaluate", tmp_path / "q.jsonl").out
    assert "ndcg@10 0.5000" in words
    assert "50.0% of 2" in words
    assert "lost.md" in words


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--evaluate", "nowhere.txt"), "Cannot read"),
        (("--evaluate", "BAD"), "no relevant document"),
        (("--evaluate", "BAD", "--query", "step"), "by trace"),
        (("--mode", "magic"), "magic"),
        (("--quota", "maths"), "not a quota"),
        (("--quota", "maths=1", "--quota", "maths=2"), "repeats a corpus"),
        (("--quota", "maths=9"), "do not fit"),
        (("--quota", "other=1"), "no corpus 'other'"),
        (("--rewriter", "openai:m"), "used together"),
        (("--mmr", "0.5"), "vectors"),
        # loads sentence-transformers
        pytest.param(("--rerank", "nowhere"), "Cannot load", marks=pytest.mark.slow),
    ],
)
def test_options_that_mean_nothing_are_refused(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    (tmp_path / "BAD").write_text("q 0 d 1")
    argv = [str(tmp_path / "BAD") if each == "BAD" else each for each in options]
    called = cli("retrieve", "--dataset", "d", *WORDS, *argv)
    assert called.code == 2
    assert words in called.err
    assert evidence(cli, tmp_path)["a"] == []


@pytest.mark.usefixtures("workspace")
def test_a_name_of_several_documents_is_refused(cli: Cli, tmp_path: Path) -> None:
    cli("corpus", "add", tmp_path / "guides", "--corpus", "copy")
    (tmp_path / "q").write_text(json.dumps({"problem": "What is 1+1?", "document": "sums.md"}))
    called = cli("retrieve", "--dataset", "d", *WORDS, "--evaluate", tmp_path / "q")
    assert called.code == 2
    assert "copy/sums.md" in called.err


@pytest.mark.usefixtures("workspace")
def test_a_table_may_hold_lists_and_relative_paths(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(
        json.dumps({"problem": "What is 1+1?", "document": "addition.md"})
    )
    (tmp_path / "run.toml").write_text(
        '[retrieve]\ndataset = "d"\nmode = "bm25"\nk = 2\nquota = ["maths=1"]\nevaluate = "q.jsonl"\n'
    )
    called = cli("run", tmp_path / "run.toml", "--json")
    assert called.code == 0, called.err
    [stage] = called.document["stages"]
    assert stage["config"]["quotas"] == {"maths": 1}
    assert stage["measures"]["mrr"] == 1
