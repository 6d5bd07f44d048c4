"""Lexical search by BM25, over the texts and over the titles of passages.

The only file that imports bm25s and dictionary segmenters (the extra `cjk`).

Words keep apart what dense vectors confuse: names, doses, codes. Titles are searched separately
from texts, because a title that contains a query word says more than a mention.

Dictionary segmenters find whole words of Korean, Chinese, Japanese and Thai, where one is
installed. They sharpen the ranking. Nothing depends on them: `traces.words` finds every word by
characters and bigrams.

The index of a corpus is a folder that is complete or absent, named after what it was made from. It
is written next to the old one under another name, flushed to disk, and renamed in one step; then
the old one is removed. A kill at any moment leaves the old folder, the new one, or both, never a
part of one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import bm25s  # type: ignore[import-untyped]
import numpy as np
import Stemmer  # type: ignore[import-not-found]  # compiled, without stubs
from bm25s.stopwords import STOPWORDS_EN  # type: ignore[import-untyped]
from bm25s.tokenization import Tokenized  # type: ignore[import-untyped]
from numpy.typing import NDArray

from retrieval.index.durable import sync
from retrieval.search.fusion import Ranking
from traces import InputError, StoreError
from traces.words import Term, detect_language, has_runs, search_terms, search_words

_MANIFEST = "manifest.json"
_PARTIAL = ".partial"


def write_folder(folder: Path, made_from: str, write: Callable[[Path], None]) -> None:
    """Fill a folder below `folder` for `made_from`, in place of all others there.

    Args:
        folder: made if it is not there; it belongs to these folders alone. One writer at a time.
        made_from: what the content is a function of.
        write: writes the files below the path it is given; raises OSError if it cannot.

    Raises:
        StoreError: it cannot be written; what was there is as it was.
    """
    partial = folder / f"{uuid4().hex}{_PARTIAL}"
    final = folder / _name(made_from)
    try:
        partial.mkdir(parents=True)
        write(partial)
        (partial / _MANIFEST).write_text(
            json.dumps({"made_from": made_from, "files": _hashes(partial)}), encoding="utf-8"
        )
        for path in [*partial.rglob("*"), partial]:
            sync(path)
        shutil.rmtree(final, ignore_errors=True)  # only a damaged one is ever written again
        partial.replace(final)
        sync(folder)
        for other in folder.iterdir():
            if other != final:
                shutil.rmtree(other)
    except OSError as fault:
        raise StoreError(
            f"The lexical index cannot be written ({fault.strerror or fault}).",
            where=str(folder),
            remedy="free disk space, or use a writable workspace",
        ) from fault
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_folder(folder: Path, made_from: str) -> Path | None:
    """The folder written for `made_from`; None if there is none, or if a file of it is damaged."""
    final = folder / _name(made_from)
    try:
        manifest = json.loads((final / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = {"made_from": made_from, "files": _hashes(final)}
    return final if manifest == whole else None


def _name(made_from: str) -> str:
    return hashlib.sha256(made_from.encode()).hexdigest()[:16]


def _hashes(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _MANIFEST:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "blake2b").hexdigest()
            found[path.relative_to(folder).as_posix()] = digest
    return found


# --- Lexical search by BM25, over the texts and over the titles of passages. The only file that


_TEXT = {"k1": 1.2, "b": 0.75}
"""Lucene's defaults; nDCG@10 .790 alone on PubMedQA."""
_TITLE = {"k1": 1.2, "b": 0.0}
"""The length of a title says nothing about how much of it is about a word."""
_TITLE_SHARE = 0.8
"""Titles that score below this share of the best one do not name what is asked for."""
_FIELDS = ("texts", "titles")
RULE = 2
"""Version of all of the above: an index saved under another one is built again."""

Mask = NDArray[np.bool_]
"""Which of the indexed passages may be found, by position."""


@dataclass(frozen=True, slots=True)
class LexicalIndex:
    """BM25 over the passages of all corpora. Made by `build` or `load`."""

    ids: NDArray[np.int64]
    """Passage ids by position."""
    texts: Any
    """bm25s over titles and texts; None where they hold no word."""
    titles: Any
    """bm25s over titles alone; None where they hold no word."""

    @classmethod
    def build(cls, ids: Sequence[int], titles: Sequence[str], texts: Sequence[str]) -> LexicalIndex:
        """Index n passages; a text is searched together with its title.

        Raises:
            InputError: nothing to index, a repeated id, or lists of different lengths.
        """
        if not len(ids) == len(titles) == len(texts):
            raise InputError("Ids, titles and texts differ in number.")
        if not len(ids) or len(set(ids)) < len(ids):
            raise InputError(
                "There is no passage to index." if not len(ids) else "A passage id is repeated.",
                remedy="stepgold corpus add" if not len(ids) else "stepgold index",
            )
        both = [f"{title}\n{text}" for title, text in zip(titles, texts, strict=True)]
        return cls(np.asarray(ids, dtype=np.int64), _index(both, _TEXT), _index(titles, _TITLE))

    def search(self, queries: Sequence[str], k: int, *, among: Mask | None = None) -> list[Ranking]:
        """The at most `k` best passages of each query that share a word with it."""
        return [self._best(self.texts, words, k, among=among) for words in map(_words, queries)]

    def search_titles(
        self, queries: Sequence[str], k: int, *, among: Mask | None = None
    ) -> list[Ranking]:
        """The passages whose titles name what is asked for, at most `k`; passages of one title tie.

        Held back are titles that score below 0.8 of the best one of the whole index.
        """
        return [
            self._best(self.titles, words, k, among=among, share=_TITLE_SHARE)
            for words in map(_words, queries)
        ]

    def _best(
        self, model: Any, words: list[str], k: int, *, among: Mask | None, share: float = 0.0
    ) -> Ranking:
        known = [] if model is None else model.get_tokens_ids(words)
        if not known:
            return Ranking(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        scores = model.get_scores_from_ids(known)
        wanted = (scores > 0) & (scores >= share * scores.max())
        if among is not None:
            wanted &= among
        found = np.flatnonzero(wanted)
        if len(found) > k:
            # Everything above the k-th score, then the first of those that have it.
            least = np.partition(scores[found], len(found) - k)[len(found) - k]
            above = found[scores[found] > least]
            found = np.concatenate([above, found[scores[found] == least][: max(0, k - len(above))]])
        order = np.lexsort((found, -scores[found]))
        return Ranking(self.ids[found[order]], scores[found[order]].astype(np.float32))

    def save(self, folder: Path, *, corpus_fingerprint: str) -> None:
        """Write the index; until the last step an older one stays in force.

        Raises:
            StoreError: the folder cannot be written.
        """

        def write(place: Path) -> None:
            np.save(place / "ids.npy", self.ids, allow_pickle=False)
            for name, model in zip(_FIELDS, (self.texts, self.titles), strict=True):
                if model is not None:
                    model.save(place / name, show_progress=False)

        write_folder(folder, _made_from(corpus_fingerprint), write)

    @classmethod
    def load(cls, folder: Path, *, corpus_fingerprint: str) -> LexicalIndex | None:
        """The saved index of this state of the corpora; None if there is none, or a damaged one."""
        place = read_folder(folder, _made_from(corpus_fingerprint))
        if place is None:
            return None
        models = [
            bm25s.BM25.load(place / name, load_corpus=False, show_progress=False)
            if (place / name).is_dir()
            else None
            for name in _FIELDS
        ]
        return cls(np.load(place / "ids.npy", allow_pickle=False), *models)


def highlights(query: str, text: str) -> Iterator[tuple[int, int]]:
    """Character offsets (start, end) of what in `text` BM25 matches with the query's words."""
    wanted = set(_words(query))
    begun: list[int] | None = None
    for term in search_terms(text):
        if _stem(term.text) not in wanted:
            continue
        if begun is not None and term.in_run and term.start <= begun[1]:
            begun[1] = max(begun[1], term.end)  # bigrams of one word overlap
            continue
        if begun is not None:
            yield begun[0], begun[1]
        begun = [term.start, term.end]
        if not term.in_run:
            yield begun[0], begun[1]
            begun = None
    if begun is not None:
        yield begun[0], begun[1]


def _made_from(corpus_fingerprint: str) -> str:
    # Segmenters change the words of a text, English ones apart.
    return "-".join([corpus_fingerprint, str(RULE), *sorted(segmenters().values())])


_STOPWORDS = frozenset(STOPWORDS_EN)


@cache
def _stemmer() -> Any:
    return Stemmer.Stemmer("english")


@lru_cache(maxsize=500_000)
def _stem(word: str) -> str:
    """The stem of a word; "" for a stop word."""
    return "" if word in _STOPWORDS else str(_stemmer().stemWord(word))


def _words(text: str, *, query: bool = True) -> list[str]:
    """The stemmed words of a text, in order; without stop words."""
    found = search_words(text, query=query)
    if not text.isascii() and has_runs(text):
        found += [term.text for term in long_words(text)]
    return [stem for stem in map(_stem, found) if stem]


def _index(texts: Sequence[str], settings: dict[str, float]) -> Any:
    vocabulary: dict[str, int] = {}
    ids = []
    for text in texts:
        stems = _words(text, query=False)
        ids.append([vocabulary.setdefault(stem, len(vocabulary)) for stem in stems])
    if not vocabulary:
        return None  # texts of marks and stop words alone
    model = bm25s.BM25(method="lucene", **settings)
    model.index(Tokenized(ids=ids, vocab=vocabulary), show_progress=False)
    return model


_PACKAGES = {"ko": "kiwipiepy", "zh": "rjieba", "ja": "sudachipy", "th": "pythainlp"}
_LEAST = 3
"""Shorter words are characters and bigrams, which are searched anyway."""
_CONTENT = ("N", "V", "MAG", "XR", "SL")
"""Korean parts of speech that say something: nouns, verbs and adjectives, adverbs, roots."""

Segment = Callable[[str], Iterator[tuple[int, int]]]
"""Takes a text and gives the offsets of its words."""


def long_words(text: str) -> Iterator[Term]:
    """Words of three or more characters in script without spaces; none without a segmenter."""
    segment = _segmenter(detect_language(text))
    if segment is None:
        return
    for start, end in segment(text):
        word = text[start:end].strip()
        if len(word) >= _LEAST and not word.isascii():
            yield Term(word.lower(), start, start + len(word), in_run=True)


@cache
def segmenters() -> dict[str, str]:
    """The installed segmenters with their versions, by language code."""
    found = {}
    for language, package in _PACKAGES.items():
        if find_spec(package) is not None:
            try:
                found[language] = f"{package} {version(package)}"
            except PackageNotFoundError:
                continue
    return found


@cache
def _segmenter(language: str) -> Segment | None:
    if language not in segmenters():
        return None
    return {"ko": _korean, "zh": _chinese, "ja": _japanese, "th": _thai}[language]()


def _korean() -> Segment:
    from kiwipiepy import Kiwi

    # Names, misspellings and phrases are not needed, and take two thirds of the time to load.
    kiwi = Kiwi(num_workers=1, load_default_dict=False, load_typo_dict=False, load_multi_dict=False)

    def segment(text: str) -> Iterator[tuple[int, int]]:
        for token in kiwi.tokenize(text):
            if token.tag.startswith(_CONTENT):
                yield token.start, token.start + token.len

    return segment


def _chinese() -> Segment:
    import rjieba

    return lambda text: _spans(rjieba.cut(text))


def _thai() -> Segment:
    from pythainlp.tokenize import word_tokenize

    return lambda text: _spans(word_tokenize(text, engine="newmm"))


def _japanese() -> Segment:
    from sudachipy import Dictionary, SplitMode

    tokenizer = Dictionary(dict="small").tokenizer()
    longest = 10_000  # SudachiPy refuses texts of more than 49,149 bytes

    def segment(text: str) -> Iterator[tuple[int, int]]:
        for offset in range(0, len(text), longest):
            for word in tokenizer.tokenize(text[offset : offset + longest], SplitMode.B):
                yield offset + word.begin(), offset + word.end()

    return segment


def _spans(pieces: list[str]) -> Iterator[tuple[int, int]]:
    start = 0
    for piece in pieces:
        yield start, start + len(piece)
        start += len(piece)
