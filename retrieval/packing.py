"""Evidence into a token budget: whole passages, best first, and the next that fits is tried.

The published rule (Med-PRM) stops at the first passage that does not fit, so that one long
passage at rank 0 leaves a judge without any evidence, and it does not count the wrapper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrieval.tokens import TokenCounter
from traces.errors import InputError
from traces.evidence import Evidence

DEFAULT_BUDGET = 3072
"""Tokens for evidence in a window of 4,096, 1,024 being left to question and solution (Med-PRM)."""


@dataclass(frozen=True, slots=True)
class PackedEvidence:
    """What went into the budget, and what did not."""

    kept: tuple[Evidence, ...]
    """Passages in the order given; number i (1-based) is "Document i" of the rendered text."""
    skipped: tuple[Evidence, ...]
    """Passages that did not fit beside those kept before them, in the order given."""
    text: str
    """The rendered passages, one after the other; "" if nothing was kept."""
    tokens: int
    """Tokens of `text`, wrappers included, by the counter that was given."""
    budget: int
    """The most that `tokens` may be."""


def render_document(number: int, document: Evidence | str) -> str:
    """One passage (or bare text) as judges and PRMs see it: "Document i: ..." and an empty line."""
    text = document if isinstance(document, str) else document.passage.text
    return f"Document {number}: {text}\n\n"


def pack_evidence(
    evidence: Sequence[Evidence],
    *,
    budget: int = DEFAULT_BUDGET,
    count_tokens: TokenCounter,
    render: Callable[[int, Evidence], str] = render_document,
) -> PackedEvidence:
    """Keep whole passages in the order given as long as they fit; one that does not is skipped.

    Counted is the whole rendered text, so that the budget holds for counters whose tokens reach
    across two passages too.

    Args:
        evidence: passages, best first.
        budget: most tokens, at least 0.
        count_tokens: counts as the reader of the text will (the judge's or the PRM's tokenizer).
        render: makes passage number i (1-based) into text, wrapper included.

    Raises:
        InputError: the budget is below 0.
    """
    if budget < 0:
        raise InputError(f"A budget of {budget} tokens is below 0.", remedy="give 0 or more tokens")
    kept: list[Evidence] = []
    skipped: list[Evidence] = []
    text = ""
    for candidate in evidence:
        longer = text + render(len(kept) + 1, candidate)
        if count_tokens(longer) <= budget:
            kept.append(candidate)
            text = longer
        else:
            skipped.append(candidate)
    tokens = count_tokens(text) if kept else 0
    return PackedEvidence(tuple(kept), tuple(skipped), text, tokens, budget)
