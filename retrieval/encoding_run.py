"""Encode the texts that have no vector yet, a few thousand at a time, each batch kept at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from retrieval.embedding import encode_in_batches, text_to_embed
from retrieval.encoder import Encoder
from retrieval.index_checks import check_rows
from retrieval.index_entries import IndexEntries
from retrieval.vector_journal import VectorJournal, digest_of
from traces.errors import CorpusError
from traces.evidence import Passage

_PASSAGES_AT_ONCE = 8192
"""Sorted by length and encoded one after the other: enough that padding is next to nothing."""
_TEXTS_A_BATCH = 256

Thing = TypeVar("Thing")


class Progress(Protocol):
    """Passes things through and shows how far they are."""

    def __call__(self, things: Iterable[Thing], total: int, label: str) -> Iterable[Thing]:
        """The same things."""


def silent(things: Iterable[Thing], total: int, label: str) -> Iterable[Thing]:
    """Progress that nobody is shown."""
    return things


@dataclass(frozen=True, slots=True)
class Corpora:
    """What is to be indexed, as the store knows it."""

    passages: Callable[[], Iterable[tuple[int, Passage]]]
    """All passages with their ids."""
    passages_by_id: Callable[[Collection[int]], Mapping[int, Passage]]
    """Those with these ids."""
    fingerprint: str
    """Hash over ids and texts of all of them."""


def encode_missing(
    wanted: IndexEntries,
    known: Container[bytes],
    corpora: Corpora,
    encoder: Encoder,
    journal: VectorJournal,
    progress: Progress,
) -> list[int]:
    """Encode into the journal each wanted text that is neither known nor there.

    Returns:
        The id of one passage of each text that was encoded.

    Raises:
        CorpusError: a passage is not what it was when `wanted` was read.
        InputError: the encoder gives a vector that is not finite.
        StoreError: the journal cannot be written.
    """
    missing = {
        passage_id: digest
        for digest, passage_id in wanted.by_digest().items()
        if digest not in known and digest not in journal
    }
    if missing:
        run = _encoded(missing, corpora, encoder, journal)
        for _ in progress(run, len(missing), "encode passages"):
            pass
    return sorted(missing)


def _encoded(
    missing: Mapping[int, bytes], corpora: Corpora, encoder: Encoder, journal: VectorJournal
) -> Iterator[int]:
    ids = sorted(missing)
    for at in range(0, len(ids), _PASSAGES_AT_ONCE):
        some = ids[at : at + _PASSAGES_AT_ONCE]
        texts = _texts(some, missing, corpora)
        longest_first = sorted(some, key=lambda passage_id: -len(texts[passage_id]))
        for first in range(0, len(some), _TEXTS_A_BATCH):
            batch = longest_first[first : first + _TEXTS_A_BATCH]
            vectors = encode_in_batches(encoder, [texts[passage_id] for passage_id in batch])
            check_rows(np.asarray(batch, dtype=np.int64), vectors, encoder.dimension)
            journal.append([missing[passage_id] for passage_id in batch], vectors)
            yield from batch


def _texts(ids: Sequence[int], digests: Mapping[int, bytes], corpora: Corpora) -> dict[int, str]:
    passages = corpora.passages_by_id(ids)
    texts = {passage_id: text_to_embed(passage) for passage_id, passage in passages.items()}
    for passage_id in ids:
        if passage_id not in texts or digest_of(texts[passage_id]) != digests[passage_id]:
            raise CorpusError(
                "The corpora changed while they were being indexed.", remedy="stepgold index"
            )
    return texts
