"""Where a labeler sees the first error, against where another sees it: early, exact, late, missed, false alarm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from traces.first_error import FirstError

KINDS = ("exact", "early", "late", "missed", "false_alarm", "no_error", "missing")
"""In the order of every output."""
EXPLAINED = {
    "exact": "same first error",
    "early": "names a step before it",
    "late": "names a step behind it",
    "missed": "sees no error where there is one",
    "false_alarm": "sees an error where there is none",
    "no_error": "both see no error",
    "missing": "leaves the first error open",
}
"""What each kind means, for a person."""


@dataclass(frozen=True, slots=True)
class FirstErrorConfusion:
    """One labeler's first errors against another's, which is taken as the truth."""

    of: str
    """The labeler that is looked at."""
    against: str
    """The labeler that is the measure."""
    counts: dict[str, int]
    """Traces by `KINDS`."""
    reference_missing: int
    """Traces left out because the measure leaves the first error open."""

    @property
    def n(self) -> int:
        """Traces that were looked at."""
        return sum(self.counts.values())

    def as_json(self) -> dict[str, Any]:
        """The key `first_errors` of a pair."""
        return {
            "of": self.of,
            "against": self.against,
            "n": self.n,
            **self.counts,
            "reference_missing": self.reference_missing,
        }


def first_error_confusion(
    of: str, against: str, said: Iterable[FirstError], truth: Iterable[FirstError]
) -> FirstErrorConfusion:
    """Count the kinds of one labeler's first errors.

    Args:
        said: of the labeler `of`, one per trace.
        truth: of the labeler `against`, on the same traces.

    Raises:
        ValueError: there are not as many of one as of the other.
    """
    found: Counter[str] = Counter()
    left_out = 0
    for one, reference in zip(said, truth, strict=True):
        if reference.missing:
            left_out += 1
        else:
            found[_kind(one, reference.index)] += 1
    return FirstErrorConfusion(of, against, {kind: found[kind] for kind in KINDS}, left_out)


def _kind(said: FirstError, truth: int | None) -> str:
    if said.missing:
        return "missing"
    if truth is None:
        return "no_error" if said.index is None else "false_alarm"
    if said.index is None:
        return "missed"
    if said.index == truth:
        return "exact"
    return "early" if said.index < truth else "late"
