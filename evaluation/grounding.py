"""How far a judge's verdicts stand on quotes from the evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from traces.labels import TraceLabel


@dataclass(frozen=True, slots=True)
class Grounding:
    """The verdicts of one labeler by what they quote."""

    verified: int
    """Steps with a verdict whose quote stands in the cited passage."""
    unverified: int
    """Steps with a verdict whose quote does not."""
    absent: int
    """Steps with a verdict and without a quote."""
    methods: dict[str, int]
    """Verified ones by how the quote matched (exact, elided, near)."""

    @property
    def steps(self) -> int:
        """Steps with a verdict."""
        return self.verified + self.unverified + self.absent

    @property
    def verified_share(self) -> float | None:
        """Verified quotes among all quotes; None without any."""
        quotes = self.verified + self.unverified
        return self.verified / quotes if quotes else None

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {
            "steps": self.steps,
            "verified": self.verified,
            "unverified": self.unverified,
            "absent": self.absent,
            "verified_share": self.verified_share,
            "methods": self.methods,
        }


def grounding(labels: Iterable[TraceLabel]) -> Grounding:
    """Count the quotes behind the verdicts of a labeler."""
    kinds: Counter[str] = Counter()
    methods: Counter[str] = Counter()
    for label in labels:
        for step in label.step_labels:
            if step.verdict is None:
                continue
            if step.quote is None:
                kinds["absent"] += 1
            elif step.quote.verified:
                kinds["verified"] += 1
                methods[step.quote.method or "unnamed"] += 1
            else:
                kinds["unverified"] += 1
    return Grounding(
        kinds["verified"], kinds["unverified"], kinds["absent"], dict(sorted(methods.items()))
    )
