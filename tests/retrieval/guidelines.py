"""A small corpus over real parts, with an encoder that needs no model."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from retrieval.documents import make_document, split_document
from retrieval.index.encoder import encode_in_batches, text_to_embed
from retrieval.index.index import PassageIndex
from retrieval.search.bm25 import LexicalIndex
from retrieval.search.choice import Dense
from retrieval.search.config import RetrievalConfig
from retrieval.search.rerank import Reranker
from retrieval.search.retriever import PassageRetriever
from traces.evidence import Passage

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


def passages(texts: Mapping[str, str] = DRUGS, corpus: str = "drugs") -> dict[int, Passage]:
    """The documents' passages under ids 100, 107, 114, ..."""
    documents = [make_document(name, name, text, "") for name, text in texts.items()]
    found = [p for d in documents for p in split_document(d, corpus=corpus, target_tokens=100)]
    return {100 + 7 * number: passage for number, passage in enumerate(found)}


def retriever(
    stored: Mapping[int, Passage],
    config: RetrievalConfig | None = None,
    reranker: Reranker | None = None,
) -> PassageRetriever:
    """A retriever over these passages; they are looked up in `stored` when they are found."""
    config = config or RetrievalConfig(k=2, mode="dense")
    encoder = WordHashEncoder()
    vectors = encode_in_batches(encoder, [text_to_embed(each) for each in stored.values()])
    titles = [each.title for each in stored.values()]
    texts = [each.text for each in stored.values()]
    corpora = {number: each.corpus for number, each in stored.items()}

    def by_id(ids: Collection[int]) -> dict[int, Passage]:
        return {each: stored[each] for each in ids if each in stored}

    return PassageRetriever(
        config,
        by_id,
        dense=Dense(PassageIndex.build(list(stored), vectors), encoder),
        lexical=LexicalIndex.build(list(stored), titles, texts),
        reranker=reranker,
        ids_of_corpus=lambda name: [each for each, corpus in corpora.items() if corpus == name],
    )
