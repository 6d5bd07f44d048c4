"""The report of a protocol that pools all traces, its subsets beside the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from evaluation.wording import left_out_note, plain_table, threshold_note


class Figures(Protocol):
    """What a protocol measures in one group of traces."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""

    def cells(self) -> tuple[str, ...]:
        """The figures for a person, in the order of the report's columns."""


F = TypeVar("F", bound=Figures)


@dataclass(frozen=True, slots=True)
class PooledReport(Generic[F]):
    """The protocol's result for one labeler on one dataset."""

    protocol: ClassVar[str]
    """As `--protocol` takes it."""
    title: ClassVar[str]
    """What the table shows."""
    columns: ClassVar[tuple[str, ...]]
    """Names of the cells."""

    threshold: float
    """A step is correct iff its score is at least this."""
    threshold_source: str
    """`given`, or the split it was fitted on."""
    overall: F
    """All traces pooled."""
    subsets: dict[str, F]
    """By subset name, in alphabetical order."""
    gold_unusable: int
    """Traces left out because their gold is an abstention, or leaves open what the protocol asks."""
    gold_missing: int
    """Traces left out because they have no gold."""

    def as_json(self, *, dataset: str, labeler: str, gold: str) -> dict[str, Any]:
        """The document of `stepgold evaluate`."""
        return {
            "protocol": self.protocol,
            "dataset": dataset,
            "labeler": labeler,
            "gold": gold,
            "threshold": self.threshold,
            "threshold_source": self.threshold_source,
            "overall": self.overall.as_json(),
            "subsets": {name: figures.as_json() for name, figures in self.subsets.items()},
            "gold_unusable": self.gold_unusable,
            "gold_missing": self.gold_missing,
        }

    def table(self, labeler: str) -> str:
        """The figures for a person, one line per subset."""
        groups = [*self.subsets.items(), ("overall", self.overall)]
        rows = [(name, *figures.cells()) for name, figures in groups]
        table = plain_table(("subset", *self.columns), rows)
        return (
            f"{labeler}: {self.title}, 95% intervals by problem\n{table}{self.remark()}"
            f"{threshold_note(self.threshold, self.threshold_source)}"
            f"{left_out_note(self.gold_unusable + self.gold_missing)}"
        )

    def remark(self) -> str:
        """What stands between the table and the notes: a line of its own, or nothing."""
        return ""
