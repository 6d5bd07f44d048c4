"""Contamination: problems of an evaluation set that occur in a training set, by id or n-grams.

By GPT-3's rule (arXiv 2005.14165, appendix C): a common n-gram of 13 words. Medical and
mathematical questions share stock phrases, so reports include the share of a text's n-grams and the
longest common passage. A text shorter than n words matches only if a field of a training row is
equal to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.wording import plain_table
from traces import InputError
from traces.words import words

Hashes = NDArray[np.uint64]

_PART = re.compile(r"[^.,]+")
_MARKERS = frozenset({"ки", "extra_0"})
"""Words that training formats put between steps, which are not part of the text."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SEED = 20_261_122


@dataclass(frozen=True, slots=True)
class Words:
    """A text as words: case and punctuation do not count, nor do markers between steps.

    Of script without spaces every character is a word, and 0.5 is two words.
    """

    text: str
    folded: tuple[str, ...]
    """Its words in lower case."""
    spans: tuple[tuple[int, int], ...]
    """The position of each in the text, in characters."""

    @classmethod
    def of(cls, text: str) -> Words:
        """The words of a text."""
        found = [
            (part[0].lower(), (term.start + part.start(), term.start + part.end()))
            for term in words(text)
            for part in _PART.finditer(text[term.start : term.end])
            if part[0].lower() not in _MARKERS
        ]
        return cls(text, tuple(word for word, _ in found), tuple(span for _, span in found))

    def excerpt(self, first: int, last: int) -> str:
        """The text from one word to another, 0-based, both included."""
        return self.text[self.spans[first][0] : self.spans[last][1]]


class Vocabulary:
    """A random number for each known word, so that millions of n-grams can be hashed.

    An n-gram is a 64-bit hash: for ten million against ten million the probability of any false
    match is about 1 in 200,000.
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._numbers: Hashes = np.empty(0, dtype=np.uint64)

    def add(self, words: Words) -> None:
        """Add words."""
        for word in words.folded:
            self._ids.setdefault(word, len(self._ids))

    def hashes(self, words: Sequence[str], n: int) -> Hashes:
        """The hash of every n-gram, in order; empty if there are fewer than n words.

        Unknown words share one number, so an n-gram with one of them does not match n-grams of
        known words.
        """
        if len(words) < n:
            return np.empty(0, dtype=np.uint64)
        if len(self._numbers) <= len(self._ids):
            # With one seed, a longer draw begins with the shorter one.
            rng = np.random.default_rng(_SEED)
            self._numbers = rng.integers(0, 2**64, 2 * len(self._ids) + 2, dtype=np.uint64)
        # Known words count from 1; 0 is for all others.
        numbers = self._numbers[[self._ids.get(word, -1) + 1 for word in words]]
        count = len(words) - n + 1
        total = np.zeros(count, dtype=np.uint64)
        for offset in range(n):
            total = total * _FACTOR + numbers[offset : offset + count]
        return total


NGRAM = 13
"""Words of an n-gram (GPT-3)."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row of a training set of any format."""

    source: str
    """File or dataset."""
    line: int | None
    """1-based line in the file; None for a dataset's trace."""
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    """In order; n-grams may span two of them (steps)."""


@dataclass(frozen=True, slots=True)
class EvaluatedProblem:
    """A problem of the evaluation set with its traces."""

    problem_id: str
    question: str
    """Question and options as one text."""
    trace_ids: tuple[str, ...]
    solutions: tuple[str, ...]
    """The traces, each as one text."""


@dataclass(frozen=True, slots=True)
class Match:
    """The overlap of one problem with the training set."""

    problem_id: str
    shared_ids: tuple[str, ...]
    """Its id and its traces' ids that occur in training rows."""
    question_share: float
    """Share of the question's n-grams that were found, in [0, 1]."""
    solution_share: float
    """The same for all its traces together."""
    passage: str
    """The longest common passage in the evaluation set's text; empty if only ids match."""
    source: str
    """File or dataset where the passage, or else the id, was found first."""
    line: int | None
    training_id: str | None
    """Id of that row; None if it has none."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {
            "problem": self.problem_id,
            "ids": list(self.shared_ids),
            "question_share": self.question_share,
            "solution_share": self.solution_share,
            "passage": self.passage,
            "source": self.source,
            "line": self.line,
            "training_id": self.training_id,
        }


@dataclass(frozen=True, slots=True)
class OverlapReport:
    """The overlap of an evaluation set with a training set."""

    ngram: int
    """Length of an n-gram, in words."""
    problems: int
    """Problems of the evaluation set."""
    short_questions: int
    """Of these, questions shorter than an n-gram, compared as a whole."""
    training_rows: int
    """Rows of the training set."""
    matches: tuple[Match, ...]
    """Every overlapping problem, largest share of the question first."""

    def counts(self) -> dict[str, int]:
        """Problems by kind of overlap."""
        return {
            "by_id": sum(bool(match.shared_ids) for match in self.matches),
            "question_any": sum(match.question_share > 0 for match in self.matches),
            "question_half": sum(match.question_share >= 0.5 for match in self.matches),
            "question_whole": sum(match.question_share == 1 for match in self.matches),
            "solution_any": sum(match.solution_share > 0 for match in self.matches),
            "solution_half": sum(match.solution_share >= 0.5 for match in self.matches),
        }

    def as_json(self) -> dict[str, Any]:
        """The document of `stepgold overlap`, without its names."""
        return {
            "ngram": self.ngram,
            "problems": self.problems,
            "short_questions": self.short_questions,
            "training_rows": self.training_rows,
            "overlapping": len(self.matches),
            "rate": len(self.matches) / self.problems if self.problems else None,
            "counts": self.counts(),
            "matches": [match.as_json() for match in self.matches],
        }

    def table(self, listed: int) -> str:
        """The figures as text, and the first `listed` matches."""
        share = f" ({len(self.matches) / self.problems:.1%})" if self.problems else ""
        named = {
            "by_id": "a common id",
            "question_any": f"at least one {self.ngram}-gram of the question",
            "question_half": "half of the question or more",
            "question_whole": "the whole question",
            "solution_any": f"at least one {self.ngram}-gram of a solution",
            "solution_half": "half of the solutions or more",
        }
        rows = [(named[key], str(count)) for key, count in self.counts().items()]
        lines = [
            f"{len(self.matches)} of {self.problems} problems{share} overlap with "
            f"{self.training_rows} training rows",
            plain_table(("overlap", "problems"), rows),
        ]
        for match in self.matches[:listed]:
            place = match.source if match.line is None else f"{match.source}:{match.line}"
            passage = " ".join(match.passage.split())
            what = f'"{passage[:160]}"' if passage else f"id {match.shared_ids[0]}"
            lines.append(f"  {match.problem_id}: {match.question_share:.0%} in {place}: {what}")
        if len(self.matches) > listed:
            lines.append(f"  and {len(self.matches) - listed} more (--json lists all)")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of a problem as words."""

    problem: EvaluatedProblem
    question: Words
    solutions: tuple[Words, ...]


Row = tuple[str, int | None, str | None]
"""Source, line and id of a training row."""


def find_overlap(
    problems: Sequence[EvaluatedProblem], rows: Iterable[TrainingRow], *, ngram: int = NGRAM
) -> OverlapReport:
    """Look the problems up in a training set, which is read once, row by row.

    Raises:
        InputError: `ngram` is below 1.
    """
    if ngram < 1:
        raise InputError(
            f"An n-gram needs at least one word, not {ngram}.", remedy="give --ngram 1 or more"
        )
    vocabulary = Vocabulary()
    held = [
        _Texts(one, Words.of(one.question), tuple(map(Words.of, one.solutions))) for one in problems
    ]
    everything = [each for texts in held for each in (texts.question, *texts.solutions)]
    for each in everything:
        vocabulary.add(each)
    found = _Found(vocabulary, ngram, everything, _ids(problems))
    n_rows = 0
    for row in rows:
        found.look_at(row)
        n_rows += 1
    matches = [match for texts in held if (match := found.match(texts)) is not None]
    matches.sort(key=lambda match: (-match.question_share, -match.solution_share))
    short = sum(len(texts.question.folded) < ngram for texts in held)
    return OverlapReport(
        ngram=ngram,
        problems=len(held),
        short_questions=short,
        training_rows=n_rows,
        matches=tuple(matches),
    )


def _ids(problems: Iterable[EvaluatedProblem]) -> set[str]:
    return {id for one in problems for id in (one.problem_id, *one.trace_ids)}


class _Found:
    """The overlap of the evaluation set with the training rows seen so far."""

    def __init__(
        self, vocabulary: Vocabulary, ngram: int, texts: Iterable[Words], ids: set[str]
    ) -> None:
        self._vocabulary, self._ngram, self._wanted_ids = vocabulary, ngram, ids
        hashed = [self._grams(words) for words in texts]
        self._wanted: Hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *hashed]))
        self._short = {words.folded for words in texts if 0 < len(words.folded) < ngram}
        self._gram_rows: dict[int, Row] = {}
        self._short_rows: dict[tuple[str, ...], Row] = {}
        self._id_rows: dict[str, Row] = {}

    def _grams(self, words: Words) -> Hashes:
        return self._vocabulary.hashes(words.folded, self._ngram)

    def look_at(self, row: TrainingRow) -> None:
        """Note the overlap of a training row with the evaluation set, first occurrences only."""
        place = (row.source, row.line, row.ids[0] if row.ids else None)
        for id in row.ids:
            if id in self._wanted_ids:
                self._id_rows.setdefault(id, place)
        grams = self._grams(Words.of("\n".join(row.texts)))
        if len(self._wanted) and len(grams):
            at = np.minimum(np.searchsorted(self._wanted, grams), len(self._wanted) - 1)
            for gram in grams[self._wanted[at] == grams]:
                self._gram_rows.setdefault(int(gram), place)
        if self._short:
            for text in row.texts:
                folded = Words.of(text).folded
                if folded in self._short:
                    self._short_rows.setdefault(folded, place)

    def match(self, texts: _Texts) -> Match | None:
        """The overlap of one problem; None if there is none."""
        one = texts.problem
        shared = tuple(id for id in (one.problem_id, *one.trace_ids) if id in self._id_rows)
        question = self._seen(texts.question)
        solutions = [self._seen(words) for words in texts.solutions]
        passage, row = max(
            (self._longest(words) for words in (texts.question, *texts.solutions)),
            key=lambda found: len(found[0]),
        )
        if row is None:
            if not shared:
                return None
            row = self._id_rows[shared[0]]
        total = sum(map(len, solutions))
        source, line, training_id = row
        return Match(
            problem_id=one.problem_id,
            shared_ids=shared,
            question_share=sum(question) / len(question) if question else 0.0,
            solution_share=sum(map(sum, solutions)) / total if total else 0.0,
            passage=passage,
            source=source,
            line=line,
            training_id=training_id,
        )

    def _seen(self, words: Words) -> list[bool]:
        """Per n-gram of a text whether it was found; a short text counts as one n-gram."""
        if 0 < len(words.folded) < self._ngram:
            return [words.folded in self._short_rows]
        return [int(gram) in self._gram_rows for gram in self._grams(words)]

    def _longest(self, words: Words) -> tuple[str, Row | None]:
        """The longest passage whose n-grams were all found, and the row of its first n-gram."""
        seen = self._seen(words)
        best, start = (0, 0), None
        for index, hit in enumerate([*seen, False]):
            if hit and start is None:
                start = index
            elif not hit and start is not None:
                best = max(best, (index - start, start), key=lambda run: run[0])
                start = None
        length, first = best
        if not length:
            return "", None
        if len(words.folded) < self._ngram:
            return words.text, self._short_rows[words.folded]
        row = self._gram_rows[int(self._grams(words)[first])]
        return words.excerpt(first, first + length + self._ngram - 2), row
