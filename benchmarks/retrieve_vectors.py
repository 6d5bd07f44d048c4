"""Vectors for the retrieval benchmarks: encodings of real passages, enlarged, and random ones."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval import SentenceEncoder, nearest_rows, text_to_embed
from retrieval.documents import read_documents, split_document
from traces import StoredDocument

Vectors = NDArray[np.float32]

_NEAR = 20
_NOISE = 0.4


@dataclass(frozen=True)
class RealTexts:
    """Texts of public data sets."""

    passages: list[str]
    """As many PubMedQA paragraphs as MedQuAD passages (as this project cuts them), in random order."""
    questions: list[str]
    """PubMedQA's: they ask for what stands in its paragraphs."""


def real_texts(data: Path, passages: int, questions: int) -> RealTexts:
    """Draw passages (seed 0) and take questions from the folder of public data.

    Raises:
        FileNotFoundError: the folder does not hold them.
    """
    files = sorted((data / "medquad").glob("*.jsonl.gz"))
    rows = json.loads((data / "pubmedqa" / "ori_pqal.json").read_text(encoding="utf-8"))
    if not files:
        raise FileNotFoundError(str(data / "medquad"))
    texts = [
        text_to_embed(passage)
        for document in read_documents(files)
        if isinstance(document, StoredDocument)
        for passage in split_document(document, corpus="medquad")
    ]
    paragraphs = [text for row in rows.values() for text in row["CONTEXTS"]]
    draw = random.Random(0)
    draw.shuffle(texts)
    drawn = paragraphs + texts[: len(paragraphs)]
    draw.shuffle(drawn)
    asked = [row["QUESTION"] for row in rows.values()]
    return RealTexts(drawn[:passages], asked[:questions])


def fitting(texts: list[str], encoder: SentenceEncoder) -> list[str]:
    """Those texts that fit the encoder's window: longer ones it reads in parts, others cut them."""
    return [text for text in texts if encoder.count_tokens(text) <= encoder.max_tokens]


def enlarged(vectors: Vectors, count: int, seed: int = 0) -> Vectors:
    """`count` unit vectors, each between one of `vectors` and one of its 20 nearest, and off that line.

    Real encodings of a hundred thousand passages take an hour here. On 9,358 rows made from 2,000
    real ones, PubMedQA's questions found with HNSW what they found among 9,358 real ones, within .04
    of recall at efSearch 16 and .02 at 64.
    """
    rng = np.random.default_rng(seed)
    near, _ = nearest_rows(vectors, vectors, _NEAR + 1, ids=np.arange(len(vectors)))
    made = np.empty((count, vectors.shape[1]), dtype=np.float32)
    for at in range(0, count, 20_000):
        some = made[at : at + 20_000]
        first = rng.integers(len(vectors), size=len(some))
        second = near[first, 1 + rng.integers(near.shape[1] - 1, size=len(some))]
        share = rng.random((len(some), 1), dtype=np.float32)
        some[:] = unit(share * vectors[first] + (1 - share) * vectors[second])
        some += _NOISE * random_units(len(some), vectors.shape[1], int(rng.integers(2**32)))
        some[:] = unit(some)
    return made


def random_units(count: int, dimension: int, seed: int = 0) -> Vectors:
    """Unit vectors of random directions: nothing real looks like this."""
    rows = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    return unit(rows)


def unit(rows: Vectors) -> Vectors:
    """The rows brought to length 1."""
    normed: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed
