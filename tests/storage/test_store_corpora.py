"""Corpora and evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from storage import CorpusOutcome, CorpusSummary, Store
from tests.storage.builders import document, evidence, fill, row, source
from traces import Evidence
from traces.errors import CorpusError, InputError

TEXT = "Give 5 mg per kg. Stop at 400 mg."


def test_documents_come_back_as_passages_with_ids(store: Store) -> None:
    outcome = store.corpora.add("guides", [document("a", TEXT), document("b", "Rest.")])
    assert outcome == CorpusOutcome(done=2, unchanged=0)
    found = list(store.corpora.passages())
    assert [passage for _, passage in found] == [
        *document("a", TEXT)[1],
        *document("b", "Rest.")[1],
    ]
    ids = [passage_id for passage_id, _ in found]
    assert ids == sorted(set(ids))
    assert ids[0] >= 1
    assert store.corpora.passages_by_id(ids[1:3]) == dict(found[1:3])
    assert store.corpora.passages_by_id([ids[0], 10**6]) == dict(found[:1]), (
        "what is gone is left out"
    )


def test_adding_the_same_documents_again_changes_nothing(store: Store) -> None:
    store.corpora.add("guides", [document("a", TEXT)], licence="CC0")
    before, fingerprint = list(store.corpora.passages()), store.corpora.fingerprint()
    assert store.corpora.add("guides", [document("a", TEXT)]) == CorpusOutcome(0, 1)
    assert list(store.corpora.passages()) == before
    assert store.corpora.fingerprint() == fingerprint
    assert store.corpora.summaries() == [
        CorpusSummary("guides", 1, 5, "CC0", languages={"latin": 1})
    ]


@pytest.mark.parametrize(("text", "cut"), [("New text.", 8), (TEXT, 9)], ids=["text", "split"])
def test_a_changed_document_gets_new_passages_under_new_ids(
    store: Store, text: str, cut: int
) -> None:
    store.corpora.add("guides", [document("a", TEXT), document("b", "Rest.")])
    before, fingerprint = dict(store.corpora.passages()), store.corpora.fingerprint()
    assert store.corpora.add("guides", [document("a", text, cut=cut)]).done == 1
    after = dict(store.corpora.passages())
    assert {after[kept].document for kept in after.keys() & before.keys()} == {"b"}
    assert min(after.keys() - before.keys()) > max(before)
    assert store.corpora.fingerprint() != fingerprint


def test_ids_are_not_used_again_after_a_corpus_was_removed(store: Store) -> None:
    store.corpora.add("guides", [document("a", TEXT)])
    before, fingerprint = dict(store.corpora.passages()), store.corpora.fingerprint()
    store.corpora.remove("guides")
    assert list(store.corpora.passages()) == []
    store.corpora.add("guides", [document("a", TEXT)])
    assert not before.keys() & dict(store.corpora.passages()).keys()
    assert store.corpora.fingerprint() != fingerprint


def test_passages_of_one_corpus_and_of_all(store: Store) -> None:
    store.corpora.add("guides", [document("a", "One.")])
    store.corpora.add("labels", [document("a", "Two.", corpus="labels")], licence="MIT")
    assert [passage.text for _, passage in store.corpora.passages("labels")] == ["Two."]
    assert [passage.text for _, passage in store.corpora.passages()] == ["One.", "Two."]
    assert [(c.name, c.licence) for c in store.corpora.summaries()] == [
        ("guides", None),
        ("labels", "MIT"),
    ]
    with pytest.raises(InputError, match="no corpus 'guide'") as caught:
        store.corpora.passages("guide")
    assert "'guides'" in str(caught.value.remedy)
    with pytest.raises(InputError):
        store.corpora.remove("guide")


def test_many_passages_come_page_by_page(store: Store) -> None:
    text = "x" * 2500
    store.corpora.add("guides", [document("a", text, cut=1)])
    found = list(store.corpora.passages())
    assert len(found) == 2500
    assert [passage.index for _, passage in found] == list(range(2500))
    assert len(store.corpora.passages_by_id([passage_id for passage_id, _ in found])) == 2500


def test_a_passage_must_be_a_part_of_its_document(store: Store) -> None:
    stored, passages = document("a", TEXT)
    for wrong in (
        replace(passages[0], text="Take 9 m"),
        replace(passages[0], document="b"),
        replace(passages[0], corpus="other"),
    ):
        with pytest.raises(CorpusError):
            store.corpora.add("guides", [(stored, [wrong])])
    assert store.corpora.summaries() == []


def test_one_bad_document_keeps_all_of_its_call_out(store: Store) -> None:
    with pytest.raises(CorpusError, match="'a' occurs twice"):
        store.corpora.add("guides", [document("a", TEXT), document("a", "Other.")])
    with pytest.raises(InputError, match="NUL"):
        store.corpora.add("guides", [document("a", TEXT), document("b", "x\0")])
    assert store.corpora.summaries() == []


def test_evidence_survives_its_corpus(store: Store) -> None:
    fill(store)
    found = (evidence("Give 5 mg/kg."), evidence("Stop.", 1))
    store.corpora.add("guides", [document("dosing", "Give 5 mg/kg.")])
    store.evidence.put("d", [("t0", found), ("t1", found)])
    store.corpora.add("guides", [document("dosing", "Give 50 mg/kg.")])
    store.corpora.remove("guides")
    assert [context.evidence for context in store.traces.contexts("d")] == [found, found, ()]


def test_equal_evidence_is_stored_once(store: Store) -> None:
    fill(store, *(f"t{n}" for n in range(20)))
    store.evidence.put("d", [(f"t{n}", (evidence(), evidence("b", 1))) for n in range(20)])
    assert copies(store) == (1, 2, 2)


def copies(store: Store) -> tuple[int, int, int]:
    """How many lists, places and copied passages of evidence there are."""
    with store._connections.read() as connection:
        sets, places, passages = (
            connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
            for table in ("evidence_sets", "evidence", "evidence_passages")
        )
    return sets, places, passages


def test_new_evidence_takes_the_place_of_the_old(store: Store) -> None:
    fill(store)
    store.evidence.put("d", [("t0", (evidence("old"),))])
    store.evidence.put("d", [("t0", (evidence("new"),)), ("t1", ())])
    assert [context.evidence for context in store.traces.contexts("d")] == [
        (evidence("new"),),
        (),
        (),
    ]
    assert copies(store) == (2, 1, 1), "nothing is left of the old one"
    assert [problem.id for problem in store.evidence.missing_problems("d")] == ["t2"]


def test_an_interrupted_retrieval_keeps_what_it_has(store: Store) -> None:
    names = [f"t{n}" for n in range(100)]
    fill(store, *names)

    def work() -> Iterator[tuple[str, tuple[Evidence, ...]]]:
        for name in names[:90]:
            yield name, (evidence(name),)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.evidence.put("d", work())
    assert len(store.evidence.missing_problems("d")) == 36


@pytest.mark.parametrize(
    ("similarity", "stored"), [(1.0000001, 1.0), (-1.0000001, -1.0), (0.1, 0.1)]
)
def test_a_cosine_that_float32_rounded_past_one_is_one(
    store: Store, similarity: float, stored: float
) -> None:
    fill(store, "t0")
    store.evidence.put("d", [("t0", (replace(evidence(), similarity=similarity),))])
    [context] = store.traces.contexts("d")
    assert context.evidence[0].similarity == stored


@pytest.mark.parametrize("similarity", [float("nan"), 1.1, float("-inf")])
def test_a_similarity_that_is_none_is_refused(store: Store, similarity: float) -> None:
    fill(store, "t0")
    with pytest.raises(InputError, match="similarity"):
        store.evidence.put("d", [("t0", (replace(evidence(), similarity=similarity),))])
    with pytest.raises(InputError, match="no problem 'x'"):
        store.evidence.put("d", [("x", ())])
    assert len(store.evidence.missing_problems("d")) == 1


def test_another_way_to_retrieve_is_refused_unless_replaced(store: Store) -> None:
    store.traces.import_file("d", source(), [row("a", evidence=(evidence("came"),)), row("b")])
    store.evidence.declare("d", {"k": 5, "encoder": "e"})
    store.evidence.put("d", [("a", (evidence("found"),))])
    store.evidence.declare("d", {"encoder": "e", "k": 5})
    with pytest.raises(InputError, match="k was 5, now 8") as caught:
        store.evidence.declare("d", {"k": 8, "encoder": "e"})
    assert "--replace" in str(caught.value.remedy)
    store.evidence.declare("d", {"k": 5, "encoder": "e"}, replace=True)
    assert [context.evidence[:1] for context in store.traces.contexts("d")] == [
        (evidence("found"),),
        (),
    ]

    store.evidence.declare("d", {"k": 8, "encoder": "e"}, replace=True)
    assert [problem.id for problem in store.evidence.missing_problems("d")] == ["a", "b"]
    assert [context.evidence for context in store.traces.contexts("d")] == [(evidence("came"),), ()]
    assert copies(store) == (1, 1, 1)
