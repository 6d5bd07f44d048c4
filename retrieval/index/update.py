"""Bring the index on disk up to date with the corpora, doing only what is missing.

A vector is known by the digest of its text, so that only new texts are encoded, whatever happened
to ids, documents and corpora, and for every kind of index. Texts are encoded a few thousand at a
time; each batch goes into a journal at once, from which a killed run continues.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from retrieval.index.encoder import Encoder, Vectors, encode_batches, text_to_embed
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
"""Passages sorted by length together: enough for almost no padding."""
_TEXTS_A_BATCH = 256

Thing = TypeVar("Thing")


class Progress(Protocol):
    """Passes things through and shows progress."""

    def __call__(self, things: Iterable[Thing], total: int, label: str) -> Iterable[Thing]:
        """Return the same things."""


def silent(things: Iterable[Thing], total: int, label: str) -> Iterable[Thing]:
    """Return the things without showing progress."""
    return things


@dataclass(frozen=True, slots=True)
class Corpora:
    """The corpora to be indexed, as read from the store."""

    passages: Callable[[], Iterable[tuple[int, Passage]]]
    """All passages with their ids."""
    passages_by_id: Callable[[Collection[int]], Mapping[int, Passage]]
    """Those with these ids."""
    fingerprint: str
    """Hash of all ids and texts."""


def encode_missing(
    wanted: IndexEntries,
    known: Container[bytes],
    corpora: Corpora,
    *,
    encoder: Encoder,
    journal: VectorJournal,
    progress: Progress,
) -> list[int]:
    """Encode into the journal each wanted text that is neither known nor in the journal.

    Returns:
        The id of one passage of each text that was encoded.

    Raises:
        CorpusError: a passage changed after `wanted` was read.
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
        batches = [
            longest_first[first : first + _TEXTS_A_BATCH]
            for first in range(0, len(some), _TEXTS_A_BATCH)
        ]
        asked = [[texts[passage_id] for passage_id in batch] for batch in batches]
        for number, vectors in encode_batches(encoder, asked):
            batch = batches[number]
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


MOST_REMOVED = 0.2
"""Share of rows of removed passages above which hnsw and ivf are rebuilt."""


@dataclass(frozen=True, slots=True)
class IndexUpdate:
    """The outcome of an update."""

    kind: str
    """flat, hnsw or ivf."""
    quality: SearchQuality | None
    """Measured search quality; None for flat, which is exact."""
    added: int = 0
    """Passages that were not in the index."""
    kept: int = 0
    """Passages that already were in it."""
    removed: int = 0
    """Passages that were in it and no longer are in a corpus."""
    encoded: Sequence[int] = ()
    """The id of one passage of each different text that was encoded."""
    rebuilt: str | None = None
    """Why an existing index was rebuilt; None if it was not."""


def update_index(
    folder: Path,
    corpora: Corpora,
    encoder: Encoder,
    *,
    encoder_spec: str | None = None,
    kind: str = "auto",
    progress: Progress = silent,
) -> IndexUpdate:
    """Make the index in `folder` match `corpora`; the old one stays valid until the new one is
    complete.

    Args:
        folder, corpora: of the index.
        encoder: makes the vectors; the user named it as `encoder_spec` (None: the default).
        kind: auto, flat, hnsw or ivf.
        progress: shown while encoding and building.

    Raises:
        CorpusError: there is no passage, or the corpora changed meanwhile.
        InputError: an unknown kind, a repeated id, a vector that is not finite, or another update
            of the same folder is running.
        StoreError: the folder cannot be written.
    """
    require_kind(kind)
    with only_writer(folder):
        if PassageIndex.is_current(
            folder, encoder=encoder.name, corpus_fingerprint=corpora.fingerprint, kind=kind
        ):
            VectorJournal.discard(folder)
            manifest = read_manifest(folder)
            return IndexUpdate(manifest.kind, manifest.quality, kept=manifest.count)
        with VectorJournal(folder, encoder.name, encoder.dimension) as journal:
            before, unusable = _before(folder, encoder.name)
            wanted = IndexEntries.of(corpora.passages())
            _refuse_unusable(wanted)
            known = before.entries.by_digest() if before is not None else {}
            encoded = encode_missing(
                wanted, known, corpora, encoder=encoder, journal=journal, progress=progress
            )
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
    return IndexUpdate(
        index.kind,
        index.quality,
        added=len(change.new),
        kept=len(wanted.ids) - len(change.new),
        removed=len(change.gone),
        encoded=encoded,
        rebuilt=unusable or rebuilt,
    )


def _refuse_unusable(wanted: IndexEntries) -> None:
    if not len(wanted.ids):
        raise CorpusError(
            "There is no passage to index.", remedy="stepgold corpus add PATH --corpus NAME"
        )
    check_new(wanted.ids, np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class _Before:
    """The existing index, in memory."""

    index: PassageIndex
    entries: IndexEntries


def _before(folder: Path, encoder: str) -> tuple[_Before | None, str | None]:
    """Return the index of this encoder, or the reason why an existing one cannot be used."""
    if not (folder / MANIFEST).exists():
        return None, None
    try:
        manifest = read_manifest(folder)
        index = PassageIndex.load(folder, encoder=encoder, corpus_fingerprint=None, writable=True)
        if DIGESTS not in manifest.files:
            return None, "It does not record the texts of its vectors."
        entries = IndexEntries.read(checked_file(folder, manifest, DIGESTS))
    except (IndexMismatch, StoreError) as fault:
        return None, fault.what
    return _Before(index, entries), None


class _Change:
    """The step from the existing index to the wanted one."""

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
        """Ids in the index that are not wanted, or belong to another text."""

    def made(self, kind: str, progress: Progress) -> tuple[PassageIndex, str | None]:
        """Return the wanted index, and why an existing one was rebuilt."""
        rebuilt = self._why_rebuilt(kind)
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

    def _why_rebuilt(self, kind: str) -> str | None:
        if self._before is None:
            return None
        index = self._before.index
        if not is_fitting(index.kind, kind, len(self._wanted.ids)):
            return f"It was of kind {index.kind}."
        rows = index.count / (1 - index.removed_share) + len(self.new)
        removed = rows - len(self._wanted.ids)
        if index.kind != "flat" and removed > MOST_REMOVED * rows:
            return f"{removed / rows:.0%} of its rows belonged to removed passages."
        return None

    def _changed_in_place(self, progress: Progress) -> PassageIndex:
        if self._before is None:
            raise ValueError("there is no index to change")
        index = self._before.index
        # Read first: the text of a removed passage may return under another id.
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
