"""What the report shows, and its summary sentences and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.best_of_n import BestOfNReport
from evaluation.comparison import Comparison
from evaluation.diagnostics import Diagnostics
from evaluation.floors import FloorReport
from evaluation.label_table import FirstErrorConfusion
from evaluation.methods import Methods
from evaluation.paired import PairedReport
from evaluation.protocols.macro_f1 import MacroF1Report
from evaluation.protocols.processbench import ProcessBenchReport
from evaluation.thresholds import FittedThreshold, ThresholdSweep
from evaluation.wording import figure, figures_json, with_interval
from traces import Labeler, TraceInContext, TraceLabel, Verdict


@dataclass(frozen=True, slots=True)
class Grounding:
    """The verdicts of one labeler by their quotes."""

    verified: int
    """Steps with a verdict whose quote is in the cited passage."""
    unverified: int
    """Steps with a verdict whose quote is not."""
    absent: int
    """Steps with a verdict but no quote."""
    methods: dict[str, int]
    """Verified steps by how the quote matched (exact, elided, near)."""

    @classmethod
    def of(cls, by_word: Mapping[str, Mapping[str, int]], methods: Mapping[str, int]) -> Grounding:
        """From the counts of each verdict, and the verified steps by how the quote matched."""
        kinds = ("verified", "unverified", "absent")
        counts = {kind: sum(by_word[word][kind] for word in Verdict) for kind in kinds}
        return cls(**counts, methods=dict(methods))

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
        shares = {"steps": self.steps, "verified_share": self.verified_share}
        return shares | figures_json(self)


@dataclass(frozen=True, slots=True)
class LabelerSection:
    """One labeler in the report."""

    labeler: Labeler
    traces: int
    """Traces with a label."""
    steps: int
    """Steps with a verdict or a score."""
    abstained: Mapping[str, int] = field(default_factory=dict)
    """Traces with an abstention, by reason."""
    is_gold: bool = False
    """Whether the others are evaluated against it."""
    threshold: float = 0.5
    """A step is correct iff its score is at least this."""
    threshold_source: str = "given"
    """`given`, the split it was fitted on, or that none is needed."""
    threshold_fit: FittedThreshold | None = None
    """None if it was not fitted."""
    first_errors: ProcessBenchReport | None = None
    """Against gold; None for gold itself and without gold, as are the next three."""
    step_measures: MacroF1Report | None = None
    diagnostics: Diagnostics | None = None
    confusion: FirstErrorConfusion | None = None
    sweep: ThresholdSweep | None = None
    """processbench_f1 over thresholds; None for labelers of verdicts and without gold."""
    grounding: Grounding | None = None
    """None for labelers that cannot quote."""
    note: str = ""
    """A sentence for the reader; may be empty."""


@dataclass(frozen=True, slots=True)
class CandidateSection:
    """Best-of-N of one labeler's scores among the traces of one subset."""

    labeler: str
    subset: str
    """Its traces of one problem are the candidates."""
    report: BestOfNReport
    unknown_correctness: int
    """Traces left out because it is unknown whether their answer is right."""


@dataclass(frozen=True, slots=True)
class ExampleTrace:
    """A trace shown in full, with every labeler's label."""

    context: TraceInContext
    labels: Mapping[str, TraceLabel]
    """By labeler, in column order."""
    caption: str = ""
    """Why it is shown, e.g. "judge and MC disagree"."""


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """Calls to one model for one purpose, from the ledger."""

    model: str
    """As requested."""
    purpose: str
    """May be empty."""
    resolved_model: str
    """Empty if the service does not report it."""
    sent: int
    """Calls sent to the service."""
    cached: int
    """Calls answered from the store."""
    input_tokens: int
    """Prompt tokens of the sent calls."""
    output_tokens: int
    """Thinking included."""
    usd: float | None
    """Cost in US dollars; None where no price is known."""
    unpriced: int
    """Sent calls without a known price, not in `usd`."""


@dataclass(frozen=True, slots=True)
class ModelSpending:
    """Model calls of the whole workspace: the ledger does not distinguish datasets."""

    sent: int
    """Calls sent to the service."""
    cached: int
    """Calls answered from the store."""
    usd: float | None
    """Cost in US dollars; None where no price is known."""
    unpriced: int = 0
    """Sent calls without a known price, not in `usd`."""
    models: tuple[ModelCalls, ...] = ()
    """By model and purpose."""


@dataclass(frozen=True, slots=True)
class LeaderTest:
    """The paired bootstrap of the two best labelers by the headline measure."""

    first: str
    second: str
    found: PairedReport


@dataclass(frozen=True, slots=True)
class ReportInput:
    """Everything on the page."""

    dataset: str
    problems: int
    traces: int
    steps: int
    subsets: Mapping[str, int]
    """Traces by subset."""
    labelers: tuple[LabelerSection, ...]
    """In the order of the tables."""
    examples: tuple[ExampleTrace, ...] = ()
    disputed: tuple[int, int] = (0, 0)
    """Number of traces and of steps on which labelers disagree."""
    comparison: Comparison | None = None
    """None with fewer than two labelers."""
    leaders: LeaderTest | None = None
    """None without two labelers that have a headline figure."""
    candidates: tuple[CandidateSection, ...] = ()
    """Best-of-N, where problems have several traces."""
    spending: ModelSpending | None = None
    """None if no model calls are recorded."""
    gold: str | None = "gold"
    """The labeler taken as truth; None if there is none."""
    threshold_wish: str = "0.5"
    """The requested threshold."""
    seed: int = 0
    """Of the bootstrap."""
    resamples: int = 2000
    """Of the bootstrap."""
    made_at: str = ""
    """Date and time as text; may be empty."""
    version: str = ""
    """Of StepGold; may be empty."""
    title: str = "StepGold report"
    notes: tuple[str, ...] = ()
    """Further sentences for the reader."""
    floors: tuple[FloorReport, ...] = ()
    """What labelers that read nothing reach, by protocol; empty without gold."""
    methods: Methods | None = None
    """A paragraph for a paper; None without gold."""


def best_labeler(sections: Sequence[LabelerSection], measure: str) -> str | None:
    """The labeler with the highest headline figure; None for a tie or without figures."""
    known = [
        (value, section.labeler.name)
        for section in sections
        if (value := headline_figure(section, measure)) is not None
    ]
    best = [name for value, name in known if value == max(value for value, _ in known)]
    return best[0] if len(best) == 1 else None


def headline_figure(section: LabelerSection, measure: str) -> float | None:
    """A labeler's overall `processbench_f1` or `macro_f1`; None if undefined."""
    if measure == "processbench_f1" and section.first_errors is not None:
        return section.first_errors.average.processbench_f1.value
    if measure == "macro_f1" and section.step_measures is not None:
        return section.step_measures.overall.macro_f1.value
    return None


def sentences(report: ReportInput) -> list[str]:
    """The results in a few sentences with figures."""
    lines = []
    scored = [section for section in report.labelers if section.first_errors is not None]
    if not scored:
        lines.append("No labeler can be compared with gold.")
    for section in scored:
        if section.labeler.name == best_labeler(scored, "processbench_f1") and section.first_errors:
            found = section.first_errors.average.processbench_f1
            lines.append(
                f"{section.labeler.name} finds first errors best: "
                f"processbench_f1 {with_interval(found)}."
            )
    lines += _leaders(report)
    for section in scored:
        if section.labeler.name == best_labeler(scored, "macro_f1") and section.step_measures:
            found = section.step_measures.overall.macro_f1
            lines.append(
                f"{section.labeler.name} is best on single steps: macro_f1 {with_interval(found)}."
            )
    if report.comparison is not None:
        alpha = report.comparison.krippendorff_alpha
        lines.append(
            f"All labelers together agree with Krippendorff's alpha {with_interval(alpha)}; "
            f"they disagree on {report.disputed[1]:,} steps of {report.disputed[0]:,} traces."
        )
    for section in report.labelers:
        quotes = section.grounding
        if quotes is not None and quotes.verified + quotes.unverified:
            lines.append(
                f"{quotes.verified:,} of the {quotes.verified + quotes.unverified:,} quotes of "
                f"{section.labeler.name} are in the cited passage."
            )
    return lines


def warnings(report: ReportInput) -> list[str]:
    """Warnings about figures that are optimistic or not comparable."""
    lines = []
    for section in report.labelers:
        name, fit = section.labeler.name, section.threshold_fit
        if fit is not None and fit.in_sample:
            lines.append(
                f"The threshold of {name} was fitted on {fit.dataset}/{fit.subset}, "
                f"which is evaluated here ({', '.join(fit.in_sample)}): its figures are optimistic."
            )
        found = section.first_errors
        if found is not None and found.average.missing:
            n = found.average.n_error + found.average.n_correct
            lines.append(
                f"{name} has no prediction on {found.average.missing:,} of {n:,} traces; "
                "they count as wrong."
            )
        lines += [
            warning
            for floors in report.floors
            if (warning := floors.warning(name, headline_figure(section, floors.measure)))
        ]
    return lines


def floor_rows(report: ReportInput) -> list[tuple[str, dict[str, float | None]]]:
    """Every floor with its headline figures by measure."""
    found: dict[str, dict[str, float | None]] = {}
    for floors in report.floors:
        for floor in floors.floors:
            found.setdefault(floor.name, {}).update(floor.overall)
    return list(found.items())


def _leaders(report: ReportInput) -> list[str]:
    test = report.leaders
    head = None if test is None else test.found.headline
    if test is None or head is None or head.difference is None or head.p_value is None:
        return []
    if not head.difference or head.ci95 is None:
        best = [
            section.labeler.name
            for section in report.labelers
            if headline_figure(section, "processbench_f1") == head.first
        ]
        return [f"{', '.join(best)} share the highest processbench_f1, {figure(head.first)}."]
    verdict = "significant at 5%" if head.p_value < 0.05 else "not significant at 5%"
    return [
        f"Its lead over {test.second} is {figure(head.difference)} "
        f"[{figure(head.ci95[0])}, {figure(head.ci95[1])}], p = {head.p_value:.4f} by a paired "
        f"bootstrap: {verdict}."
    ]
