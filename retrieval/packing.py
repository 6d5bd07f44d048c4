"""Evidence into a token budget: whole passages, best first, and the next that fits is tried.

The published rule (Med-PRM) stops at the first passage that does not fit, so that one long
passage at rank 0 leaves a judge without any evidence, and it does not count the wrapper. It is
here too, as `medprm-compat`, for PRMs whose published scores are to be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrieval.documents import TokenCounter, cut_to_fit
from traces import Evidence, InputError

PACKINGS = ("fit", "medprm-compat")
"""Rules by name."""
DEFAULT_BUDGET = 3072
"""Tokens for evidence in a window of 4,096, 1,024 being left to question and solution (Med-PRM)."""
CAP = 512
"""Tokens beyond which a passage waits for what the others leave: recall of relevant passages .641
with such a cap against .616 without (`facts/retrieval.md`, 4; ours: docs/performance.md)."""
MEDPRM_WINDOW = 4096
"""Med-PRM's `max_token_len` in training and scoring."""
MEDPRM_RESERVE = 1024
"""What its `truncate_related_docs` leaves to question and solution."""

_SHARED = 2
"""Most tokens that a passage beside another one may save."""

Render = Callable[[int, Evidence], str]
"""Makes passage number i (1-based) into text, wrapper included."""


def refuse_unknown_packing(name: str) -> None:
    """Check a rule's name.

    Raises:
        InputError: there is no such rule.
    """
    if name not in PACKINGS:
        raise InputError(f"There is no packing '{name}'.", remedy=f"choose {', '.join(PACKINGS)}")


@dataclass(frozen=True, slots=True)
class PackedEvidence:
    """What went into the budget, and what did not."""

    kept: tuple[Evidence, ...]
    """Passages in the order given; number i (1-based) is "Document i" of the rendered text. One that
    was cut says so (`Evidence.cut`) and holds what the reader sees."""
    skipped: tuple[Evidence, ...]
    """Passages of which nothing was kept, in the order given."""
    text: str
    """The rendered passages, one after the other; "" if nothing was kept."""
    tokens: int
    """Tokens of `text`, wrappers included, by the counter that was given."""
    budget: int
    """The most that `tokens` may be (`medprm-compat` does not count wrappers and may pass it)."""

    @property
    def cut(self) -> int:
        """How many of `kept` were cut."""
        return sum(evidence.cut for evidence in self.kept)


def render_document(number: int, document: Evidence | str) -> str:
    """One passage (or bare text) as judges and PRMs see it: "Document i: ..." and an empty line."""
    text = document if isinstance(document, str) else document.passage.text
    return f"Document {number}: {text}\n\n"


def pack_evidence(
    evidence: Sequence[Evidence],
    *,
    budget: int = DEFAULT_BUDGET,
    count_tokens: TokenCounter,
    render: Render = render_document,
    cap: int | None = CAP,
    whole: bool = False,
) -> PackedEvidence:
    """Pack as many passages as fit, best first, whole ones where there is room.

    Passages go in by rank, each if it still fits; of one above `cap` tokens first only its first
    sentences up to the cap, so that it does not crowd out those behind it. What is left of the
    budget makes cut passages whole again, or longer, by rank; then those that did not fit get what
    remains, cut at a sentence. So everything is kept that skip-and-continue with the cap keeps.

    Counted is the whole rendered text, so that the budget holds for counters whose tokens reach
    across two passages too.

    Args:
        evidence: passages, best first.
        budget: most tokens, at least 0.
        count_tokens: counts as the reader of the text will (the judge's or the PRM's tokenizer).
        render: makes passage number i (1-based) into text, wrapper included.
        cap: see above, at least 1; None for none.
        whole: nothing is cut: a passage goes in as it is or not at all.

    Raises:
        InputError: the budget is below 0, or the cap below 1.
    """
    if budget < 0:
        raise InputError(f"A budget of {budget} tokens is below 0.", remedy="give 0 or more tokens")
    if cap is not None and cap < 1:
        raise InputError(f"A cap of {cap} tokens is below 1.", remedy="give 1 or more tokens")
    shelf = _Shelf(evidence, budget, count_tokens, render)
    if shelf.holds(dict(enumerate(evidence))):
        shelf.kept = dict(enumerate(evidence))
        return shelf.packed()
    for place, item in enumerate(evidence):
        short = item if whole else _capped(item, cap, count_tokens)
        if short is not None:
            shelf.put(place, short)
    if whole:
        return shelf.packed()
    for place in sorted(shelf.kept):
        if shelf.kept[place].cut and not shelf.put(place, evidence[place]):
            shelf.put_beginning(place)
    for place in range(len(evidence)):
        if place not in shelf.kept and not shelf.put(place, evidence[place]):
            shelf.put_beginning(place)
    return shelf.packed()


def _capped(item: Evidence, cap: int | None, count: TokenCounter) -> Evidence | None:
    """A passage up to the cap; None if not one sentence of it is that short."""
    if cap is None or count(item.passage.text) <= cap:
        return item
    return cut_to_fit(item, lambda shorter: count(shorter.passage.text) <= cap)


def pack_like_medprm(
    evidence: Sequence[Evidence],
    *,
    count_tokens: TokenCounter,
    window: int = MEDPRM_WINDOW,
    reserve: int = MEDPRM_RESERVE,
    render: Render = render_document,
) -> PackedEvidence:
    """Pack as Med-PRM's released code does (`truncate_related_docs`, eth-medical-ai-lab/Med-PRM).

    Whole passages in rank order, each at the cost of its own tokens and one more, until the first
    that does not fit into window - reserve; the wrapper "Document i: " is not counted, so that the
    rendered text may be longer than that.

    Raises:
        InputError: the reserve is larger than the window.
    """
    budget = window - reserve
    if budget < 0:
        raise InputError(f"A reserve of {reserve} tokens is larger than the window of {window}.")
    spent = 0
    kept: list[Evidence] = []
    for item in evidence:
        cost = count_tokens(item.passage.text) + 1
        if spent + cost > budget:
            break
        spent += cost
        kept.append(item)
    text = "".join(render(number, item) for number, item in enumerate(kept, start=1))
    tokens = count_tokens(text) if kept else 0
    return PackedEvidence(tuple(kept), tuple(evidence[len(kept) :]), text, tokens, budget)


class _Shelf:
    """Passages by their place among the evidence, as long as they fit together."""

    def __init__(
        self, evidence: Sequence[Evidence], budget: int, count: TokenCounter, render: Render
    ) -> None:
        self._evidence = evidence
        self._budget = budget
        self._count = count
        self._render = render
        self._parts: dict[Evidence, int] = {}
        self.kept: dict[int, Evidence] = {}

    def holds(self, kept: dict[int, Evidence]) -> bool:
        """Whether the budget holds these.

        The whole text is counted only where its parts leave a doubt: beside each other they may
        share a token or two, and most candidates are far too long.
        """
        parts = sum(self._part(item) - _SHARED for item in kept.values())
        return parts <= self._budget and self._count(self._text(kept)) <= self._budget

    def _part(self, item: Evidence) -> int:
        if item not in self._parts:
            self._parts[item] = self._count(self._render(1, item))
        return self._parts[item]

    def put(self, place: int, item: Evidence) -> bool:
        """Put a passage at its place, if it fits beside the others."""
        if not self.holds(self.kept | {place: item}):
            return False
        self.kept[place] = item
        return True

    def put_beginning(self, place: int) -> None:
        """Put the longest beginning of a passage that fits beside the others; or nothing."""
        beginning = cut_to_fit(
            self._evidence[place], lambda item: self.holds(self.kept | {place: item})
        )
        if beginning is not None:
            self.kept[place] = beginning

    def packed(self) -> PackedEvidence:
        """What is on the shelf, and what is not."""
        kept = tuple(self.kept[place] for place in sorted(self.kept))
        skipped = tuple(item for place, item in enumerate(self._evidence) if place not in self.kept)
        text = self._text(self.kept)
        tokens = self._count(text) if kept else 0
        return PackedEvidence(kept, skipped, text, tokens, self._budget)

    def _text(self, kept: dict[int, Evidence]) -> str:
        items = (kept[place] for place in sorted(kept))
        return "".join(self._render(number, item) for number, item in enumerate(items, start=1))
