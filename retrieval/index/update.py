"""Encode the texts that have no vector yet, a few thousand at a time, each batch kept at once.

Bring the index on disk up to date with the corpora, doing only what is missing.

A vector is known by the digest of its text, so that only texts without one are encoded, whatever
happened to ids, documents and corpora, and whatever kind of index is asked for. Encoded vectors go
into a journal first: a killed run is taken up where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from retrieval.index.encoder import Encoder, Vectors, encode_in_batches, text_to_embed
from retrieval.index.files import (
    DIGESTS,
    MANIFEST,
    IndexEntries,
    VectorJournal,
    check_new,
    check_rows,
    checked_file,
    digest_of,
    only_writer,
    read_manifest,
)
from retrieval.index.index import PassageIndex
from retrieval.index.kinds import SearchQuality, is_fitting, require_kind
from retrieval.index.vectors import Ids
from traces import CorpusError, IndexMismatch, Passage, StoreError

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


# --- Bring the index on disk up to date with the corpora, doing only what is missing


MOST_REMOVED = 0.2
"""Share of rows of removed passages above which hnsw and ivf are built anew."""


@dataclass(frozen=True, slots=True)
class IndexUpdate:
    """What an update did."""

    kind: str
    """flat, hnsw or ivf."""
    quality: SearchQuality | None
    """How well it searches; None for flat, which is exact."""
    added: int
    """Passages that were not in the index."""
    kept: int
    """Passages that were in it already."""
    removed: int
    """Passages that were in it and are in no corpus any more."""
    encoded: Sequence[int]
    """The id of one passage of each different text that was encoded."""
    rebuilt: str | None
    """Why it was built anew although there was an index; None if it was not."""


def update_index(
    folder: Path,
    corpora: Corpora,
    encoder: Encoder,
    *,
    encoder_spec: str | None = None,
    kind: str = "auto",
    progress: Progress = silent,
) -> IndexUpdate:
    """Make the index in `folder` the one of `corpora`; until it is whole the old one stays in force.

    Args:
        folder: where the index lies or shall lie.
        corpora: what is to be indexed.
        encoder: makes the vectors.
        encoder_spec: how the user named it; None for the default.
        kind: auto, flat, hnsw or ivf.
        progress: shown the encoding and the building.

    Raises:
        CorpusError: there is no passage, or the corpora changed meanwhile.
        InputError: an unknown kind, an id that comes twice, a vector that is not finite, or
            another update of the same folder is under way.
        StoreError: the folder cannot be written.
    """
    require_kind(kind)
    with only_writer(folder):
        if PassageIndex.is_current(
            folder, encoder=encoder.name, corpus_fingerprint=corpora.fingerprint, kind=kind
        ):
            VectorJournal.discard(folder)
            manifest = read_manifest(folder)
            return IndexUpdate(manifest.kind, manifest.quality, 0, manifest.count, 0, (), None)
        with VectorJournal(folder, encoder.name, encoder.dimension) as journal:
            before, unusable = _before(folder, encoder.name)
            wanted = IndexEntries.of(corpora.passages())
            _refuse_unusable(wanted)
            known = before.entries.by_digest() if before is not None else {}
            encoded = encode_missing(wanted, known, corpora, encoder, journal, progress)
            change = _Change(before, known, wanted, journal)
            index, rebuilt = change.made(kind, progress)
            index.tune()
            index.save(
                folder,
                encoder=encoder.name,
                encoder_spec=encoder_spec,
                corpus_fingerprint=corpora.fingerprint,
                others={DIGESTS: wanted.write},
            )
            journal.remove()
    added, removed = len(change.new), len(change.gone)
    kept = len(wanted.ids) - added
    return IndexUpdate(
        index.kind, index.quality, added, kept, removed, encoded, unusable or rebuilt
    )


def _refuse_unusable(wanted: IndexEntries) -> None:
    if not len(wanted.ids):
        raise CorpusError(
            "There is no passage to index.", remedy="stepgold corpus add PATH --corpus NAME"
        )
    check_new(wanted.ids, np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class _Before:
    """The index as it is, in memory."""

    index: PassageIndex
    entries: IndexEntries


def _before(folder: Path, encoder: str) -> tuple[_Before | None, str | None]:
    """The index of this encoder; if there is one that cannot be used, what is wrong with it."""
    if not (folder / MANIFEST).exists():
        return None, None
    try:
        manifest = read_manifest(folder)
        index = PassageIndex.load(folder, encoder=encoder, corpus_fingerprint=None, writable=True)
        if DIGESTS not in manifest.files:
            return None, "It does not say of which texts its vectors are."
        entries = IndexEntries.read(checked_file(folder, manifest, DIGESTS))
    except (IndexMismatch, StoreError) as fault:
        return None, fault.what
    return _Before(index, entries), None


class _Change:
    """From the index as it is to the one that is wanted."""

    def __init__(
        self,
        before: _Before | None,
        known: Mapping[bytes, int],
        wanted: IndexEntries,
        journal: VectorJournal,
    ) -> None:
        self._before = before
        self._known = known
        self._wanted = wanted
        self._journal = journal
        present = before.entries.by_id() if before is not None else {}
        same = [
            present.get(passage_id) == digest
            for passage_id, digest in zip(wanted.ids.tolist(), wanted.digests, strict=True)
        ]
        self.new: Ids = np.flatnonzero(~np.asarray(same, dtype=bool))
        """Places in `wanted` of passages that are not in the index under this id."""
        kept = wanted.ids[np.asarray(same, dtype=bool)]
        self.gone: Ids = np.setdiff1d(list(present), kept).astype(np.int64)
        """Ids in the index that are not wanted, or stand for another text."""

    def made(self, kind: str, progress: Progress) -> tuple[PassageIndex, str | None]:
        """The wanted index, and why it was built anew although there was one."""
        rebuilt = self._why_anew(kind)
        if self._before is not None and rebuilt is None:
            return self._changed_in_place(progress), None
        wanted = self._wanted
        built = PassageIndex.build_from(
            wanted.ids,
            self._journal.dimension,
            self._vectors_at,
            kind=kind,
            progress=lambda parts, total: progress(parts, total, "build the index"),
        )
        return built, rebuilt

    def _why_anew(self, kind: str) -> str | None:
        if self._before is None:
            return None
        index = self._before.index
        if not is_fitting(index.kind, kind, len(self._wanted.ids)):
            return f"It was of kind {index.kind}."
        rows = index.count / (1 - index.removed_share) + len(self.new)
        removed = rows - len(self._wanted.ids)
        if index.kind != "flat" and removed > MOST_REMOVED * rows:
            return f"{removed / rows:.0%} of its rows were of removed passages."
        return None

    def _changed_in_place(self, progress: Progress) -> PassageIndex:
        if self._before is None:
            raise ValueError("there is no index to change")
        index = self._before.index
        # Read before anything is removed: a text may only have moved to another id.
        vectors = self._vectors_at(self.new)
        index.remove(self.gone)
        index.add_from(
            self._wanted.ids[self.new],
            lambda places: vectors[places],
            lambda parts, total: progress(parts, total, "add to the index"),
        )
        return index

    def _vectors_at(self, places: Ids) -> Vectors:
        digests = [self._wanted.digests[place] for place in places]
        found = np.empty((len(places), self._journal.dimension), dtype=np.float32)
        old = [n for n, digest in enumerate(digests) if digest in self._known]
        if self._before is not None and old:
            found[old] = self._before.index.vectors([self._known[digests[n]] for n in old])
        new = [n for n, digest in enumerate(digests) if digest not in self._known]
        found[new] = self._journal.vectors([digests[n] for n in new])
        return found
