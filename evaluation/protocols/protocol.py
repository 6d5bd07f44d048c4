"""What a protocol is: how it evaluates a labeler, and by which measures labelers are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, Generic, TypeVar
from typing import Protocol as Structure

import numpy as np

from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces
from evaluation.floors import THRESHOLD, FloorReport, measure_floors
from evaluation.measures import RESAMPLES
from evaluation.paired import PairedReport, compare_by_measure
from evaluation.wording import (
    FigureTable,
    cell,
    figure,
    figures_json,
    left_out_note,
    threshold_note,
)

SAME = 1e-9
"""Largest difference of two figures that count as equal."""


class Report(Structure):
    """The result of a protocol for one labeler on one dataset."""

    def as_json(self, *, dataset: str, labeler: str, gold: str) -> dict[str, Any]:
        """The document of `stepgold evaluate`."""

    def table(self, labeler: str) -> str:
        """The figures as text."""


class Evaluate(Structure):
    """Evaluates one labeler on one dataset; arguments as in `evaluate_processbench`."""

    def __call__(
        self,
        traces: Iterable[EvaluatedTrace],
        threshold: float = 0.5,
        seed: int = 0,
        resamples: int = RESAMPLES,
        *,
        threshold_source: str = "given",
    ) -> Report: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """The figures of a protocol's official script, quirks included.

    Figures have the names of the strict report, as fractions; None where the script has nan or
    fails.
    """

    source: str
    """The script."""
    overall: Mapping[str, float | None]
    subsets: Mapping[str, Mapping[str, float | None]]
    causes: tuple[str, ...]
    """Why the figures of these traces may differ from the strict ones."""

    def as_json(self, strict: Mapping[str, Any], *, whole_key: str, groups_key: str) -> Any:
        """The key `as_published` of `stepgold evaluate`.

        Args:
            strict: the document of the strict report.
            whole_key: its key of the headline figures.
            groups_key: its key of the figures by subset.
        """
        pairs = [(whole_key, self.overall, strict[whole_key])]
        pairs += [(name, self.subsets[name], strict[groups_key].get(name)) for name in self.subsets]
        return {
            "source": self.source,
            whole_key: dict(self.overall),
            groups_key: {name: dict(figures) for name, figures in self.subsets.items()},
            "differences": [
                _difference(group, measure, None if ours is None else ours.get(measure), value)
                for group, figures, ours in pairs
                for measure, value in figures.items()
                if _differs(None if ours is None else ours.get(measure), value)
            ],
            "causes": list(self.causes),
        }


def _differs(strict: float | None, published: float | None) -> bool:
    if strict is None or published is None:
        return strict is not published
    return abs(strict - published) > SAME


def _difference(
    group: str, measure: str, strict: float | None, published: float | None
) -> dict[str, Any]:
    known = strict is not None and published is not None
    return {
        "group": group,
        "measure": measure,
        "strict": strict,
        "published": published,
        "difference": published - strict if known else None,  # type: ignore[operator]
    }


def published_lines(document: Mapping[str, Any], *, whole_key: str) -> list[str]:
    """The key `as_published` as text: the headline figures, where they differ, and why."""
    whole = document[whole_key]
    told = ", ".join(f"{name} {figure(value)}" for name, value in whole.items())
    lines = [f"as published ({document['source']}): {told}"]
    for one in document["differences"]:
        by = "" if one["difference"] is None else f" ({one['difference']:+.3f})"
        lines.append(
            f"  {one['group']}: {one['measure']} {figure(one['published'])} as published,"
            f" {figure(one['strict'])} strict{by}"
        )
    if document["differences"]:
        lines += [f"  because {cause}" for cause in document["causes"]]
    return lines if document["differences"] else [*lines, "  the same as strict"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """A paper that defines a protocol."""

    cited: str
    """As a text cites it, e.g. `Zheng et al., 2024`."""
    key: str
    """Of its BibTeX entry."""
    author: str
    """The first one, e.g. `Zheng, Chujie`."""
    title: str
    arxiv: str

    def bibtex(self) -> str:
        """The entry for a bibliography."""
        return (
            f"@misc{{{self.key},\n"
            f"  title = {{{{{self.title}}}}},\n"
            f"  author = {{{self.author} and others}},\n"
            f"  year = {{20{self.arxiv[:2]}}},\n"
            f"  eprint = {{{self.arxiv}}},\n"
            "  archivePrefix = {arXiv},\n"
            "}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """A protocol: what a plug-in of the group `stepgold.protocols` provides."""

    name: str
    """As `--protocol` takes it."""
    evaluate: Evaluate
    measures: tuple[str, ...]
    """Names in `measures.MEASURES` to compare labelers by; thresholds are fitted for the first."""
    averaged: bool = False
    """Whether headline figures are the unweighted mean over subsets, not over all traces pooled."""
    not_pooled: frozenset[str] = frozenset()
    """Subsets that the headline figures leave out."""
    as_published: Callable[[Iterable[EvaluatedTrace], float], Published] | None = None
    """The official script's figures at a threshold; None if no script was published."""
    rule: str = ""
    """For a methods paragraph: what the leading figure is, as a sentence without its full stop."""
    references: tuple[Paper, ...] = ()
    """The papers to cite."""

    def pooled(self, traces: Iterable[EvaluatedTrace]) -> EvaluatedTraces:
        """The traces that the headline figures cover."""
        known = EvaluatedTraces.of(traces)
        left_out = [
            number for number, name in enumerate(known.frame.subsets) if name in self.not_pooled
        ]
        return known.where(~np.isin(known.frame.subset, left_out)) if left_out else known

    def compare(
        self,
        first: Iterable[EvaluatedTrace],
        second: Iterable[EvaluatedTrace],
        *,
        thresholds: tuple[float, float],
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> Mapping[str, PairedReport]:
        """Compare two labelers on the same traces by each measure, with a paired bootstrap.

        Raises:
            InputError: the traces are not the same.
        """
        one, two = self.pooled(first), self.pooled(second)
        return {
            measure: compare_by_measure(
                one,
                two,
                measure,
                averaged=self.averaged,
                threshold=thresholds[0],
                second_threshold=thresholds[1],
                seed=seed,
                resamples=resamples,
            )
            for measure in self.measures
        }

    def floors(
        self, traces: Iterable[EvaluatedTrace], threshold: float = THRESHOLD, *, seed: int = 0
    ) -> FloorReport:
        """What labelers that read nothing reach on these traces, by the protocol's measures.

        Args:
            traces: with the labeler's labels.
            threshold: the labeler's.
            seed: of the floor `chance`.
        """
        return measure_floors(
            traces,
            self.measures,
            averaged=self.averaged,
            not_pooled=self.not_pooled,
            threshold=threshold,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupFigures:
    """Base of the measures of a protocol in one group of traces; fields are counts and
    estimates."""

    lead: ClassVar[str]
    """The estimate whose interval is the key `ci95`."""
    columns: ClassVar[Sequence[tuple[str, str]]]
    """Headings of the table, each with the attribute that it shows."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name, with intervals."""
        return figures_json(self, lead=self.lead)

    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        return tuple(cell(attrgetter(path)(self)) for _, path in self.columns)


F = TypeVar("F", bound=GroupFigures)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolReport(Generic[F]):
    """The result of a protocol for one labeler on one dataset."""

    protocol: ClassVar[str]
    """As `--protocol` takes it."""
    title: ClassVar[str]
    figures: ClassVar[type[GroupFigures]]
    whole_key: ClassVar[str] = "overall"
    """JSON key and table row of `overall`."""
    groups_key: ClassVar[str] = "subsets"
    """JSON key of `subsets`."""
    group: ClassVar[str] = "subset"
    """Heading of the groups."""

    threshold: float
    """A step is correct iff its score is at least this (prmbench: higher)."""
    threshold_source: str
    """`given`, or the split it was fitted on."""
    overall: F
    """The headline figures."""
    subsets: dict[str, F]
    """By subset, in alphabetical order."""
    gold_unusable: int
    """Traces left out because their gold is an abstention or does not say what the protocol
    needs."""
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
            self.whole_key: self.overall.as_json(),
            self.groups_key: {name: figures.as_json() for name, figures in self.subsets.items()},
            "gold_unusable": self.gold_unusable,
            "gold_missing": self.gold_missing,
        }

    def table(self, labeler: str) -> str:
        """The figures as a table, one line per group."""
        return (
            f"{self.figures_table(labeler).plain()}{self.remark()}"
            f"{threshold_note(self.threshold, self.threshold_source)}"
            f"{left_out_note(self.gold_unusable + self.gold_missing)}"
        )

    def figures_table(self, labeler: str) -> FigureTable:
        """The figures, one line per group."""
        groups = [*self.subsets.items(), (self.whole_key, self.overall)]
        return FigureTable(
            title=f"{labeler}: {self.title}, 95% intervals by problem",
            head=(self.group, *(heading for heading, _ in self.figures.columns)),
            rows=[(name, *figures.cells()) for name, figures in groups],
            ruled=len(self.subsets),
        )

    def remark(self) -> str:
        """A line between the table and the notes; may be empty."""
        return ""
