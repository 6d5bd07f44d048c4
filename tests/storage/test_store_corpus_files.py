"""Documents by file, and evidence by trace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage import FileKey, KnownDocument, KnownFile, Store
from tests.storage.builders import document, evidence, fill, row, source
from traces.errors import InputError

A, B = FileKey("/docs", "a.jsonl"), FileKey("/docs", "b.md")
TEXT = "Give 5 mg per kg."


def put(store: Store, file: FileKey, *names: str, text: str = TEXT) -> None:
    store.corpora.files.put("guides", file, [document(name, text) for name in names], split="s1")


def finish(store: Store, file: FileKey, *names: str) -> list[str]:
    return store.corpora.files.finish(
        "guides", file, sha256="f" * 64, settings="r1", problems=[{"line": 3}], names=names
    )


def test_a_file_is_known_when_it_is_finished(store: Store) -> None:
    assert store.corpora.files.known("guides", "/docs") == {}
    put(store, A, "a#1", "a#2")
    unfinished = store.corpora.files.known("guides", "/docs")["a.jsonl"]
    assert (unfinished.sha256, unfinished.documents) == (None, 2)
    assert finish(store, A, "a#1", "a#2") == []
    known = store.corpora.files.known("guides", "/docs")
    assert known == {"a.jsonl": KnownFile("f" * 64, "r1", ({"line": 3},), 2)}
    assert store.corpora.files.known("guides", "/elsewhere") == {}
    assert store.corpora.files.documents("guides", ["a#1", "none"]) == {
        "a#1": KnownDocument(f"sha-{TEXT}", "a#1.md", "s1", A)
    }


def test_rows_that_are_gone_go_with_their_passages(store: Store) -> None:
    put(store, A, "a#1", "a#2")
    finish(store, A, "a#1", "a#2")
    before = dict(store.corpora.passages())
    assert finish(store, A, "a#2") == ["a#1"]
    after = dict(store.corpora.passages())
    assert {passage.document for passage in after.values()} == {"a#2"}
    assert after.items() <= before.items(), "what stays keeps its ids"
    kept = store.corpora.files.finish(
        "guides", A, sha256=None, settings="r1", problems=[], names=None
    )
    assert kept == []
    assert dict(store.corpora.passages()) == after


def test_a_file_that_is_gone_takes_its_documents_along(store: Store) -> None:
    put(store, A, "a#1")
    put(store, B, "b")
    assert store.corpora.files.forget("guides", "/docs", ["a.jsonl"]) == ["a#1"]
    assert {passage.document for _, passage in store.corpora.passages()} == {"b"}
    assert list(store.corpora.files.known("guides", "/docs")) == ["b.md"]


def test_an_equal_document_changes_hands_and_keeps_its_passages(store: Store) -> None:
    put(store, A, "x")
    finish(store, A, "x")
    before = dict(store.corpora.passages())
    moved, _ = document("x", TEXT)
    outcome = store.corpora.files.put(
        "guides", B, [], split="s1", same=[replace(moved, source="new/x.md")]
    )
    assert (outcome.done, outcome.unchanged) == (0, 1)
    assert dict(store.corpora.passages()) == before
    known = store.corpora.files.documents("guides", ["x"])["x"]
    assert (known.file, known.source) == (B, "new/x.md")
    old = store.corpora.files.known("guides", "/docs")["a.jsonl"]
    assert (old.sha256, old.documents) == (None, 0), "the file it left is read again next time"
    assert store.corpora.files.forget("guides", "/docs", ["a.jsonl"]) == []
    assert dict(store.corpora.passages()) == before


def test_the_same_text_from_another_place_keeps_its_passages(store: Store) -> None:
    one, passages = document("x", TEXT)
    store.corpora.add("guides", [(one, passages)])
    before = dict(store.corpora.passages())
    again = store.corpora.add("guides", [(replace(one, source="elsewhere/x.md"), passages)])
    assert (again.done, again.unchanged) == (0, 1)
    assert dict(store.corpora.passages()) == before
    place = store.corpora.document_sources([("guides", "x"), ("guides", "none"), ("no", "x")])
    assert place["guides", "x"].source == "elsewhere/x.md"
    assert len(place) == 1


def test_one_document_can_be_removed(store: Store) -> None:
    put(store, A, "a#1", "a#2")
    finish(store, A, "a#1", "a#2")
    store.corpora.files.remove_document("guides", "a#1")
    assert store.corpora.document_names() == [("guides", "a#2")]
    assert store.corpora.files.known("guides", "/docs")["a.jsonl"].sha256 is None
    with pytest.raises(InputError, match="no document 'a#1'") as caught:
        store.corpora.files.remove_document("guides", "a#1")
    assert "a#2" in str(caught.value.remedy)
    with pytest.raises(InputError, match="no corpus"):
        store.corpora.files.remove_document("other", "a#2")


def test_licence_and_source_of_a_corpus(store: Store) -> None:
    put(store, A, "a#1")
    store.corpora.files.describe("guides", licence="CC0", source="https://example.org")
    store.corpora.files.describe("guides", licence=None, source=None)
    [corpus] = store.corpora.summaries()
    assert (corpus.licence, corpus.source) == ("CC0", "https://example.org")
    store.corpora.files.describe("guides", licence=None, source="elsewhere")
    place = store.corpora.document_sources([("guides", "a#1")])["guides", "a#1"]
    assert (place.licence, place.origin) == ("CC0", "elsewhere")
    assert store.corpora.passage_ids("guides") == [
        number for number, _ in store.corpora.passages("guides")
    ]
    store.corpora.remove("guides")
    assert store.corpora.summaries() == []


def test_evidence_of_a_trace_goes_before_that_of_its_problem(store: Store) -> None:
    rows = [row("t0", problem_id="p"), row("t1", problem_id="p")]
    store.traces.import_file("d", source(), rows)
    store.evidence.put("d", [("p", (evidence("of the problem"),))])
    assert store.evidence.missing_traces("d") == ["t0", "t1"]
    own = (replace(evidence("of a step"), step=2), replace(evidence("of both", 1), step=None))
    assert store.evidence.put_for_traces("d", [("t0", own)]) == 1
    assert store.evidence.missing_traces("d") == ["t1"]
    found = [context.evidence for context in store.traces.contexts("d")]
    assert found == [own, (evidence("of the problem"),)], "with the step that found it"
    store.evidence.put_for_traces("d", [("t0", ())])
    assert next(context.evidence for context in store.traces.contexts("d")) == (), (
        "nothing was found"
    )
    with pytest.raises(InputError, match="no trace 'x'"):
        store.evidence.put_for_traces("d", [("x", ())])
    store.evidence.declare("d", {"query": "step"})
    store.evidence.declare("d", {"query": "problem"}, replace=True)
    assert store.evidence.missing_traces("d") == ["t0", "t1"]
    assert [context.evidence for context in store.traces.contexts("d")] == [(), ()]


def test_lists_that_differ_in_a_step_are_two(store: Store) -> None:
    fill(store, "t0", "t1", "t2")
    one = replace(evidence(), step=1)
    lists = [("t0", (one,)), ("t1", (replace(one, step=0),)), ("t2", (replace(one, step=None),))]
    store.evidence.put_for_traces("d", lists)
    assert [context.evidence[0].step for context in store.traces.contexts("d")] == [1, 0, None]
    with pytest.raises(InputError, match="cut"):
        store.evidence.put_for_traces("d", [("t0", (replace(one, cut=True),))])


def test_another_way_than_the_old_dense_one_is_told_how_to_go_on(store: Store) -> None:
    fill(store)
    old = {
        "retriever": "dense",
        "encoder": "e",
        "index": "flat",
        "query": "question+options",
        "k": 5,
    }
    store.evidence.declare("d", old)
    with pytest.raises(InputError, match='was "dense", now "hybrid"') as caught:
        store.evidence.declare("d", old | {"retriever": "hybrid", "duplicates": "removed"})
    assert "--mode dense --keep-duplicates" in str(caught.value.remedy)
    assert "--replace" in str(caught.value.remedy)
