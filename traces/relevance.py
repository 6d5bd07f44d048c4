"""Which document bears on which problem, by human judgement: what a retriever is measured against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relevance:
    """One judgement."""

    problem: str
    """Problem id, or the question's text where `by_text`."""
    document: str
    """The document as the file names it."""
    grade: int = 1
    """0 for not relevant; the greater, the more relevant."""
    decisive: str | None = None
    """Text that a passage must hold to decide the problem; None if the file names none."""
    by_text: bool = False
    """Whether `problem` is the question's text: some formats give their problems no id."""
