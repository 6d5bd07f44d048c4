"""Corpora, search and evidence from Python, by words alone: no model is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import stepgold
from stepgold.retrieval import RetrieveOptions
from stepgold.searching import SearchOptions
from tests.commands.conftest import Cli
from tests.stepgold.test_exchange import timeless
from traces import CorpusError, InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def guidelines(tmp_path: Path) -> Path:
    """Two documents."""
    folder = tmp_path / "guidelines"
    folder.mkdir()
    (folder / "warfarin.md").write_text("# Warfarin\n\nWarfarin is started at five milligrams.")
    (folder / "sums.md").write_text("# Sums\n\nWhat is 1+1? The sum is 2.")
    return folder


@pytest.fixture
def ws(tmp_path: Path, guidelines: Path) -> stepgold.Workspace:
    """A workspace with the documents as corpus `g`."""
    ws = stepgold.Workspace(tmp_path / "w", progress=False)
    ws.corpus_add(guidelines, corpus="g", license="CC0")
    return ws


def test_corpora_are_the_commands(cli: Cli, guidelines: Path, tmp_path: Path) -> None:
    ws = stepgold.Workspace(tmp_path / "api", progress=False)
    result = ws.corpus_add([guidelines], corpus="g", license="CC0")
    assert (result.done, result.rejected, result.removed_documents) == (2, (), ())
    for flag in ("--license", "--licence"):
        other = tmp_path / flag
        words = ("corpus", "add", guidelines, "--corpus", "g", flag, "CC0", "--json")
        assert timeless(cli(*words, workspace=other).document) == timeless(result.as_json())
        listed = cli("corpus", "list", "--json", workspace=other)
        assert listed.document == ws.corpus_list().as_json()
    [summary] = ws.corpus_list().corpora
    assert (summary.documents, summary.licence) == (2, "CC0")
    gone = ws.corpus_remove("g", document="sums.md")
    assert (gone.corpus, gone.document) == ("g", "sums.md")
    assert ws.corpus_list().corpora[0].documents == 1
    ws.corpus_remove("g")
    assert str(ws.corpus_list()).startswith("no corpus yet")


def test_a_search_by_words_is_the_commands(cli: Cli, ws: stepgold.Workspace) -> None:
    result = ws.search("warfarin milligrams", mode="bm25", k=1)
    [hit] = result.hits
    assert (hit.rank, hit.document, hit.similarity) == (0, "warfarin.md", None)
    assert hit.text[slice(*hit.highlights[0])].lower() == "warfarin"
    called = cli("search", "warfarin milligrams", "--mode", "bm25", "-k", "1", "--json")
    assert called.document == result.as_json()
    assert "license CC0" in str(result)
    assert "warfarin.md" in repr(result)
    both = ws.search("warfarin sum", mode="bm25")
    assert "<table>" in both._repr_html_()
    pandas = pytest.importorskip("pandas")
    assert isinstance(both.frame(), pandas.DataFrame)
    assert list(both.frame()["document"]) == [hit.document for hit in both.hits]


@pytest.mark.slow
def test_search_loads_no_model(ws: stepgold.Workspace) -> None:
    program = (
        "import sys, stepgold\n"
        "stepgold.Workspace\n"
        "early = [name for name in ('numpy', 'sqlmodel', 'typer') if name in sys.modules]\n"
        f"ws = stepgold.Workspace({str(ws.folder)!r}, progress=False)\n"
        "ws.search('warfarin', mode='bm25')\n"
        "heavy = ('torch', 'transformers', 'sentence_transformers', 'faiss')\n"
        "print('LOADED', early, [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "LOADED [] []"


def test_evidence_is_attached_as_by_the_command(
    cli: Cli, ws: stepgold.Workspace, traces_file: Path
) -> None:
    ws.import_("traces", traces_file, dataset="d")
    result = ws.retrieve(dataset="d", mode="bm25", k=1)
    assert (result.as_json()["done"], result.exit_code) == (2, 0)
    called = cli("retrieve", "--dataset", "d", "--mode", "bm25", "--k", "1", "--json")
    assert (called.document["done"], called.document["unchanged"]) == (0, 2)
    with pytest.raises(InputError):
        ws.retrieve(dataset="d", mode="bm25", k=2)
    ws.retrieve(dataset="d", mode="bm25", k=2, replace=True)


def test_a_way_of_retrieving_is_measured(
    cli: Cli, ws: stepgold.Workspace, traces_file: Path, tmp_path: Path
) -> None:
    ws.import_("traces", traces_file, dataset="d")
    exported = tmp_path / "ids.jsonl"
    ws.export("traces", exported, dataset="d", labeler="gold")
    qrels = tmp_path / "qrels.jsonl"
    judged = {"problem": "What is 1+1?", "document": "g/sums.md", "relevance": 1}
    qrels.write_text(json.dumps(judged) + "\n")
    result = ws.retrieve(dataset="d", mode="bm25", evaluate=qrels)
    words = ("retrieve", "--dataset", "d", "--mode", "bm25", "--evaluate", qrels, "--json")
    document = cli(*words).document
    assert document == result.as_json()
    assert document["measures"]["mrr"] == 1.0
    assert "nothing attached" in str(result)


def test_quotas_are_given_as_mapping_or_as_typed() -> None:
    one = SearchOptions("x", quota={"g": 2})
    two = SearchOptions("x", quota=["g=2"])
    assert one.quotas == two.quotas == {"g": 2}
    with pytest.raises(InputError, match="is not a quota"):
        SearchOptions("x", quota="g")
    with pytest.raises(InputError, match="no text"):
        SearchOptions(" ")


def test_options_of_rewriting_need_it(ws: stepgold.Workspace, traces_file: Path) -> None:
    ws.import_("traces", traces_file, dataset="d")
    with pytest.raises(InputError, match="--budget has no effect without --query rewrite"):
        ws.retrieve(dataset="d", mode="bm25", budget=1.0)
    with pytest.raises(InputError, match="used together"):
        RetrieveOptions(dataset="d", query="rewrite")


def test_an_index_of_nothing_is_refused(tmp_path: Path, traces_file: Path) -> None:
    ws = stepgold.Workspace(tmp_path / "none", progress=False)
    ws.import_("traces", traces_file, dataset="d")
    with pytest.raises(CorpusError, match="no passage to index"):
        ws.index()
