"""Dictionary segmenters: whole words of Korean, Chinese, Japanese and Thai, where one is installed.

They sharpen the ranking of lexical search. Nothing depends on them: `traces.words` finds every word
by characters and bigrams, with or without. The only file that imports them (the extra `cjk`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from traces.words import Term, detect_language

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
    from kiwipiepy import Kiwi  # type: ignore[import-untyped]

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
    from sudachipy import Dictionary, SplitMode  # type: ignore[import-untyped]

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
