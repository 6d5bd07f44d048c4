"""Pack evidence into a token budget: whole passages, best first, skipping those that do not fit.

The published rule (Med-PRM) stops at the first passage that does not fit, so that one long passage
at rank 0 leaves a judge without evidence, and it does not count the wrapper. It is available as
`medprm-compat`, for PRMs whose published scores are to be reproduced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrieval.documents import TokenCounter, cut_to_fit
from traces import Evidence, InputError

PACKINGS = ("fit", "medprm-compat")
"""Names of the rules."""
DEFAULT_BUDGET = 3072
"""Tokens for evidence in a window of 4,096, with 1,024 left for question and solution (Med-PRM)."""
CAP = 512
"""Tokens above which a passage waits for the room that others leave: recall of relevant passages
.641 with such a cap, .616 without (docs/performance.md)."""
MEDPRM_WINDOW = 4096
"""`max_token_len` in Med-PRM's training and scoring."""
MEDPRM_RESERVE = 1024
"""Tokens that its `truncate_related_docs` leaves for question and solution."""

_SHARED = 2
"""Most tokens that two adjacent passages may share."""

Render = Callable[[int, Evidence], str]
"""Turns passage number i (1-based) into text, wrapper included."""


def refuse_unknown_packing(name: str) -> None:
    """Check a rule's name.

    Raises:
        InputError: there is no such rule.
    """
    if name not in PACKINGS:
        raise InputError(
            f"Unknown packing '{name}'.", remedy=f"choose --packing {', '.join(PACKINGS)}"
        )


@dataclass(frozen=True, slots=True)
class PackedEvidence:
    """The passages within the budget, and the others."""

    kept: tuple[Evidence, ...]
    """Passages in the order given; number i (1-based) is "Document i" of the text. A shortened
    passage is marked by `Evidence.cut` and holds only the text that is shown."""
    skipped: tuple[Evidence, ...]
    """Passages of which nothing was kept, in the order given."""
    text: str
    """The rendered passages in order; "" if nothing was kept."""
    tokens: int
    """Tokens of `text`, wrappers included, by the counter that was given."""
    budget: int
    """Limit of `tokens` (`medprm-compat` does not count wrappers and may exceed it)."""

    @property
    def cut(self) -> int:
        """Number of shortened passages in `kept`."""
        return sum(evidence.cut for evidence in self.kept)


def render_document(number: int, document: Evidence | str) -> str:
    """Return one passage (or bare text) as judges and PRMs see it: "Document i: ..." and an empty
    line."""
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
    """Pack as many passages as fit, best first, whole ones if possible.

    Passages go in by rank if they fit; one above `cap` tokens goes in with only its first sentences
    up to the cap, so that it does not displace the next ones. The remaining budget extends
    shortened passages, by rank; then passages that did not fit get what remains, cut at a sentence.
    So everything is kept that skip-and-continue with the cap keeps.

    The whole rendered text is counted, so that the budget holds for counters whose tokens span two
    passages too.

    Args:
        evidence: passages, best first.
        budget: most tokens, at least 0.
        count_tokens: counts as the reader of the text does (the judge's or the PRM's tokenizer).
        render: turns passage number i (1-based) into text, wrapper included.
        cap: see above, at least 1; None for none.
        whole: never shorten a passage: include it whole or not at all.

    Raises:
        InputError: the budget is below 0, or the cap below 1.
    """
    if budget < 0:
        raise InputError(
            f"A budget of {budget} tokens is below 0.", remedy="use a budget of 0 or more tokens"
        )
    if cap is not None and cap < 1:
        raise InputError(
            f"A cap of {cap} tokens is below 1.", remedy="use a cap of 1 or more tokens"
        )
    packing = _Packing(evidence, budget, count_tokens, render)
    if packing.holds(dict(enumerate(evidence))):
        packing.kept = dict(enumerate(evidence))
        return packing.packed()
    for place, item in enumerate(evidence):
        short = item if whole else _capped(item, cap, count_tokens)
        if short is not None:
            packing.put(place, short)
    if whole:
        return packing.packed()
    for place in sorted(packing.kept):
        if packing.kept[place].cut and not packing.put(place, evidence[place]):
            packing.put_beginning(place)
    for place in range(len(evidence)):
        if place not in packing.kept and not packing.put(place, evidence[place]):
            packing.put_beginning(place)
    return packing.packed()


def _capped(item: Evidence, cap: int | None, count: TokenCounter) -> Evidence | None:
    """Return a passage up to the cap; None if its first sentence is longer."""
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

    Whole passages in rank order, each costing its own tokens plus one, until the first that does
    not fit into window - reserve. The wrapper "Document i: " is not counted, so that the rendered
    text may exceed the budget.

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
    skipped = tuple(evidence[len(kept) :])
    return PackedEvidence(tuple(kept), skipped, text, tokens=tokens, budget=budget)


class _Packing:
    """Passages that fit together, by their place among the evidence."""

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
        """Whether these passages fit into the budget.

        The whole text is counted only if its parts may fit: adjacent passages may share a token or
        two, and most candidates are far too long.
        """
        parts = sum(self._part(item) - _SHARED for item in kept.values())
        return parts <= self._budget and self._count(self._text(kept)) <= self._budget

    def _part(self, item: Evidence) -> int:
        if item not in self._parts:
            self._parts[item] = self._count(self._render(1, item))
        return self._parts[item]

    def put(self, place: int, item: Evidence) -> bool:
        """Add a passage at its place if it fits."""
        if not self.holds(self.kept | {place: item}):
            return False
        self.kept[place] = item
        return True

    def put_beginning(self, place: int) -> None:
        """Add the longest beginning of a passage that fits, if any."""
        beginning = cut_to_fit(
            self._evidence[place], lambda item: self.holds(self.kept | {place: item})
        )
        if beginning is not None:
            self.kept[place] = beginning

    def packed(self) -> PackedEvidence:
        """Return the result."""
        kept = tuple(self.kept[place] for place in sorted(self.kept))
        skipped = tuple(item for place, item in enumerate(self._evidence) if place not in self.kept)
        text = self._text(self.kept)
        tokens = self._count(text) if kept else 0
        return PackedEvidence(kept, skipped, text, tokens=tokens, budget=self._budget)

    def _text(self, kept: dict[int, Evidence]) -> str:
        items = (kept[place] for place in sorted(kept))
        return "".join(self._render(number, item) for number, item in enumerate(items, start=1))
