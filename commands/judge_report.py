"""How a judge's verdicts are grounded, and how its voting went: for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage import Store

KINDS = ("verified", "unverified", "absent")


def judge_report(store: Store, dataset: str, labeler: str) -> dict[str, Any]:
    """What `judge` adds to its document: `quotes` by verdict and `votes`, of all stored labels.

    Empty if the labeler does not exist (nothing was stored).
    """
    if all(row.labeler.name != labeler for row in store.labelers(dataset)):
        return {}
    totals = store.votes.totals(dataset, labeler)
    return {
        "quotes": store.votes.quotes(dataset, labeler),
        "votes": {
            "traces": totals.traces,
            "cast": totals.cast,
            "escalated": totals.escalated,
        },
    }


def quote_table(quotes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The counts as lines of a small table; verdicts that no step has are left out."""
    rows = [(word, counts) for word, counts in quotes.items() if any(counts.values())]
    if not any(counts["verified"] or counts["unverified"] for _, counts in rows):
        return []  # a judge that quotes nothing needs no table that says so
    lines = [f"{'quotes':<13}" + "".join(f"{kind:>12}" for kind in KINDS)]
    lines += [
        f"  {word:<11}" + "".join(f"{counts[kind]:>12}" for kind in KINDS) for word, counts in rows
    ]
    made_up = quotes["incorrect"]["unverified"]
    if made_up:
        lines.append(
            f"{made_up} incorrect verdicts rest on a quote that is not in the evidence: "
            "kept, marked unverified (--require-quotes takes them out)"
        )
    return lines
