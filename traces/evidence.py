"""Passages of a corpus, evidence retrieved for a problem, quotes cited from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, addressed by character offsets into the stored source text."""

    corpus: str
    document: str
    """Name of the document, unique within the corpus."""
    index: int
    """0-based position among the document's passages."""
    start: int
    """Character offset of the first character in the document's stored text."""
    end: int
    """Character offset after the last character."""
    text: str
    """Exactly `document_text[start:end]`."""
    title: str = ""
    """Title of the document or section; may be empty."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage retrieved for a problem."""

    passage: Passage
    similarity: float | None
    """Cosine similarity of query and passage in [-1, 1]; None for evidence that came with a dataset
    and for passages found by keyword search alone."""
    rank: int
    """0-based rank among the evidence of the problem or trace."""
    step: int | None = None
    """0-based step whose query ranked the passage highest; None: the problem's own query."""
    cut: bool = False
    """Whether `passage` was truncated at a sentence boundary to fit a token budget."""


@dataclass(frozen=True, slots=True)
class Quote:
    """Text a judge cited from the evidence."""

    text: str
    """The quote as the judge wrote it."""
    document: int | None
    """1-based number of the cited document in the prompt; None if none was cited."""
    verified: bool
    """Whether the quote is in the cited passage."""
    start: int | None = None
    """Character offset of the match in the passage text; None if not verified."""
    end: int | None = None
    """Character offset after the match; None if not verified."""
    method: str | None = None
    """How it matched: exact, elided or near; None if not verified."""


@dataclass(frozen=True, slots=True)
class Relevance:
    """A human judgment of which document is relevant to which problem, to evaluate a retriever."""

    problem: str
    """Problem id, or the question's text where `by_text`."""
    document: str
    """The document as the file names it."""
    grade: int = 1
    """0 for not relevant; higher is more relevant."""
    decisive: str | None = None
    """Text that a passage must contain to decide the problem; None if the file names none."""
    by_text: bool = False
    """Whether `problem` is the question's text: some formats have no problem ids."""
