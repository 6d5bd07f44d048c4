"""A methods paragraph and its references, to paste into a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.protocols.protocol import Protocol
from evaluation.wording import latex_text, markdown_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Methods:
    """How the figures of a report or an evaluation came about."""

    dataset: str
    gold: str
    """The labeler taken as truth."""
    traces: int
    """Traces that were evaluated, those without usable gold included."""
    problems: int
    """Problems of these traces, the unit of the bootstrap."""
    left_out: int
    """Traces without usable gold."""
    subsets: Sequence[str]
    thresholds: Mapping[str, str]
    """By labeler, what makes one of its steps incorrect: `below 0.5 (given)`."""
    missing: Mapping[str, int]
    """By labeler, traces or steps without a prediction."""
    protocols: Sequence[Protocol]
    seed: int
    resamples: int
    version: str
    """Of StepGold; may be empty."""

    def text(self) -> str:
        """The paragraph."""
        names = list(self.thresholds)
        parts = "" if len(self.subsets) < 2 else f" in {len(self.subsets)} subsets"
        lines = [
            f"We evaluated {_listed(names)} on n = {self.traces:,} traces of"
            f" {self.problems:,} problems{parts} ({self.dataset}), with the labels of"
            f" {self.gold} as truth."
        ]
        if self.left_out:
            lines.append(f"{self.left_out:,} of them have no usable truth and are left out.")
        lines += [f"{_cited(one)}." for one in self.protocols]
        by_threshold: dict[str, list[str]] = {}
        for name, threshold in self.thresholds.items():
            by_threshold.setdefault(threshold, []).append(name)
        lines += [
            f"A step counts as incorrect {threshold} for {_listed(named)}."
            for threshold, named in by_threshold.items()
        ]
        missing = [f"{name} ({count:,})" for name, count in self.missing.items() if count]
        if missing:
            lines.append(f"Some predictions are missing: {_listed(missing)}.")
        lines.append(
            "Intervals are 95% percentile intervals of a bootstrap over problems"
            f" ({self.resamples:,} resamples, seed {self.seed}); two labelers are compared by a"
            " paired bootstrap on the same problems."
        )
        lines.append(f"Figures were computed with StepGold {self.version}.".replace(" .", "."))
        return " ".join(lines)

    def bibtex(self) -> str:
        """The entries of the papers that the paragraph cites, and of StepGold."""
        entries = {one.key: one.bibtex() for each in self.protocols for one in each.references}
        version = f"  version = {{{self.version}}},\n" if self.version else ""
        entries["stepgold"] = (
            "@software{stepgold,\n  title = {{StepGold}},\n  author = {{The StepGold authors}},\n"
            f"{version}  url = {{https://github.com/stepgold/stepgold}},\n}}"
        )
        return "\n\n".join(entries.values())

    def formatted(self, format: str) -> str:
        """The paragraph and the entries: text, md or tex, where the entries are a comment."""
        if format == "text":
            return f"{self.text()}\n\n{self.bibtex()}"
        if format == "md":
            return f"{markdown_text(self.text())}\n\n```bibtex\n{self.bibtex()}\n```"
        entries = "\n".join(f"% {line}".rstrip() for line in self.bibtex().splitlines())
        return f"{latex_text(self.text())}\n\n{entries}"

    def as_json(self) -> dict[str, Any]:
        """The paragraph and the entries."""
        return {"text": self.text(), "bibtex": self.bibtex()}


def threshold_words(value: float, source: str, *, needed: bool, strict: bool = False) -> str:
    """How a threshold makes steps incorrect, for `Methods.thresholds`.

    Args:
        value: the threshold.
        source: `given`, or the split it was fitted on.
        needed: whether scores decide.
        strict: whether a step at the threshold is incorrect too.

    >>> threshold_words(0.5, "given", needed=True)
    'if its score is below 0.5 (given)'
    >>> threshold_words(0.5, "none needed: verdicts", needed=False)
    'if its verdict says so'
    """
    if not needed:
        return "if its verdict says so"
    origin = source.replace("fit:", "fitted on ", 1) if source.startswith("fit:") else source
    return f"if its score is {'at or ' if strict else ''}below {value:.6g} ({origin})"


def _cited(protocol: Protocol) -> str:
    papers = "; ".join(one.cited for one in protocol.references)
    name = f"{protocol.name} ({papers})" if papers else protocol.name
    if not protocol.rule:
        return f"The protocol is {name}"
    return f"By the protocol {name}, {protocol.rule}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
