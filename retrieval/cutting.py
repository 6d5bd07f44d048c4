"""The beginning of a passage, cut at the end of a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from retrieval.passages import sentence_ends
from traces import Evidence

_LEAST_CHARACTERS = 60
"""A shorter beginning says too little to take a place."""


def cut_to_fit(evidence: Evidence, fits: Callable[[Evidence], bool]) -> Evidence | None:
    """The longest beginning of whole sentences that fits, marked as cut; None if there is none.

    A sentence is never cut: half a dosing rule is worse than none. What is kept is the beginning,
    so that offsets into the passage hold in what is left of it; a heading alone is no beginning.

    Args:
        evidence: a passage that does not fit as a whole.
        fits: whether a candidate does; true of every beginning of one that fits.
    """
    passage = evidence.passage
    ends = [end for end in sentence_ends(passage.text) if end < len(passage.text.rstrip())]
    low, high = 0, len(ends)
    while low < high:  # the last sentence end that fits
        middle = (low + high + 1) // 2
        if fits(_beginning(evidence, ends[middle - 1])):
            low = middle
        else:
            high = middle - 1
    if low == 0:
        return None
    kept = _beginning(evidence, ends[low - 1])
    lines = kept.passage.text.splitlines()
    says_something = any(line.strip() and not line.lstrip().startswith("#") for line in lines)
    return kept if says_something and len(kept.passage.text) >= _LEAST_CHARACTERS else None


def _beginning(evidence: Evidence, end: int) -> Evidence:
    passage = evidence.passage
    shorter = replace(passage, text=passage.text[:end], end=passage.start + end)
    return replace(evidence, passage=shorter, cut=True)
