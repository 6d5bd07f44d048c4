"""How far a judge's verdicts stand on quotes from the evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.best_of_n import BestOfNReport
from evaluation.comparison import Comparison
from evaluation.diagnostics import Diagnostics
from evaluation.paired import PairedReport
from evaluation.protocols.macro_f1 import MacroF1Report
from evaluation.protocols.processbench import ProcessBenchReport
from evaluation.step_words import FirstErrorConfusion
from evaluation.thresholds import FittedThreshold, ThresholdSweep
from evaluation.wording import figure, with_interval
from traces import Labeler, TraceInContext, TraceLabel


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


# --- What the report shows. Commands gather it from the store; nothing is computed from here on


@dataclass(frozen=True, slots=True)
class LabelerSection:
    """One labeler as the report shows it."""

    labeler: Labeler
    """Who it is, with its full configuration."""
    traces: int
    """Traces on which it has a word stored."""
    steps: int
    """Steps on which it has a verdict or a score."""
    abstained: Mapping[str, int] = field(default_factory=dict)
    """Traces without a word, by reason."""
    is_gold: bool = False
    """Whether it is what the others are measured by."""
    threshold: float = 0.5
    """A step is correct iff its score is at least this."""
    threshold_source: str = "given"
    """Where that comes from: `given`, the split it was fitted on, or that none is needed."""
    threshold_fit: FittedThreshold | None = None
    """How it was fitted; None if it was not."""
    first_errors: ProcessBenchReport | None = None
    """Against gold; None for gold itself, and without gold."""
    step_measures: MacroF1Report | None = None
    """Against gold; None as before."""
    diagnostics: Diagnostics | None = None
    """Against gold; None as before."""
    confusion: FirstErrorConfusion | None = None
    """Its first errors against gold's; None as before."""
    sweep: ThresholdSweep | None = None
    """processbench_f1 over thresholds; None for labelers of verdicts, and without gold."""
    grounding: Grounding | None = None
    """Its quotes; None for labelers that could not quote."""
    note: str = ""
    """What a reader must know about it, in a sentence; may be empty."""


@dataclass(frozen=True, slots=True)
class CandidateSection:
    """Best-of-N of one labeler's scores among the traces of one subset."""

    labeler: str
    """Whose scores choose."""
    subset: str
    """Whose traces are the candidates: those of one problem are chosen among."""
    report: BestOfNReport
    """The figures over N."""
    unknown_correctness: int
    """Traces left out because nobody says whether they end right."""


@dataclass(frozen=True, slots=True)
class ExampleTrace:
    """A trace shown in full, with every labeler's word on it."""

    context: TraceInContext
    """Problem, trace and evidence."""
    labels: Mapping[str, TraceLabel]
    """By labeler name, in the order of the columns."""
    caption: str = ""
    """Why it is shown, e.g. "judge and MC disagree"."""


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """Calls to one model for one purpose, as the ledger has them."""

    model: str
    """As asked for."""
    purpose: str
    """What for; may be empty."""
    resolved_model: str
    """The version that answered; empty if the service does not say."""
    sent: int
    """Calls that went out."""
    cached: int
    """Calls answered from the store."""
    input_tokens: int
    """Prompt tokens of the sent ones."""
    output_tokens: int
    """Tokens written, thinking included."""
    usd: float | None
    """What they cost in US dollars; None where no price is known at all."""
    unpriced: int
    """Sent calls whose price is not known: not in `usd`."""


@dataclass(frozen=True, slots=True)
class Spending:
    """Model calls of the workspace: the ledger does not tell datasets apart."""

    sent: int
    """Calls that went out."""
    cached: int
    """Calls answered from the response store."""
    usd: float | None
    """What the sent ones cost in US dollars; None where no price is known."""
    unpriced: int = 0
    """Sent calls whose price is not known: not in `usd`."""
    models: tuple[ModelCalls, ...] = ()
    """The same by model and purpose."""


@dataclass(frozen=True, slots=True)
class LeaderTest:
    """The best labeler by the headline measure against the next best, on the same problems."""

    first: str
    """The best."""
    second: str
    """The next."""
    found: PairedReport
    """Their paired bootstrap."""


@dataclass(frozen=True, slots=True)
class ReportInput:
    """Everything on the page."""

    dataset: str
    """Name of the dataset."""
    problems: int
    """Its problems."""
    traces: int
    """Its traces."""
    steps: int
    """Its steps."""
    subsets: Mapping[str, int]
    """Traces by subset."""
    labelers: tuple[LabelerSection, ...]
    """Every labeler, in the order of the tables."""
    examples: tuple[ExampleTrace, ...] = ()
    """Traces shown in full."""
    disputed: tuple[int, int] = (0, 0)
    """Traces, and steps, on which the labelers part: what the examples are taken from."""
    comparison: Comparison | None = None
    """Every two labelers beside each other; None with fewer than two."""
    leaders: LeaderTest | None = None
    """None without two labelers that have a headline figure."""
    candidates: tuple[CandidateSection, ...] = ()
    """Best-of-N, where problems have several candidates."""
    spending: Spending | None = None
    """Model calls; None if the run made none that are recorded."""
    gold: str | None = "gold"
    """Name of the labeler that is taken as truth; None if there is none."""
    threshold_wish: str = "0.5"
    """The threshold as it was asked for."""
    seed: int = 0
    """Seed of the bootstrap."""
    resamples: int = 2000
    """Resamples of every interval."""
    made_at: str = ""
    """Date and time of the page, as it is to be shown; may be empty."""
    version: str = ""
    """Version of StepGold; may be empty."""
    title: str = "StepGold report"
    """Title of the page."""
    notes: tuple[str, ...] = ()
    """What a reader must know about the run, one sentence each."""


# --- What the report says in sentences: who is best, how sure that is, and what a reader must


def best_labeler(sections: Sequence[LabelerSection], measure: str) -> str | None:
    """The labeler with the highest headline figure; None where two share it, or none has one."""
    known = [
        (value, section.labeler.name)
        for section in sections
        if (value := headline(section, measure)) is not None
    ]
    best = [name for value, name in known if value == max(value for value, _ in known)]
    return best[0] if len(best) == 1 else None


def headline(section: LabelerSection, measure: str) -> float | None:
    """A labeler's `processbench_f1` or `macro_f1` on the dataset as a whole; None if not defined."""
    if measure == "processbench_f1" and section.first_errors is not None:
        return section.first_errors.average.processbench_f1.value
    if measure == "macro_f1" and section.step_measures is not None:
        return section.step_measures.overall.macro_f1.value
    return None


def sentences(report: ReportInput) -> list[str]:
    """The page in a few sentences, each with its figure."""
    told = []
    scored = [section for section in report.labelers if section.first_errors is not None]
    if not scored:
        told.append("No labeler is held against gold: there is nothing to compare it with.")
    for section in scored:
        if section.labeler.name == best_labeler(scored, "processbench_f1") and section.first_errors:
            found = section.first_errors.average.processbench_f1
            told.append(
                f"{section.labeler.name} finds first errors best: processbench_f1 {with_interval(found)}."
            )
    told += _leaders(report)
    for section in scored:
        if section.labeler.name == best_labeler(scored, "macro_f1") and section.step_measures:
            found = section.step_measures.overall.macro_f1
            told.append(
                f"{section.labeler.name} leads step by step: macro_f1 {with_interval(found)}."
            )
    if report.comparison is not None:
        alpha = report.comparison.krippendorff_alpha
        told.append(
            f"All labelers together agree with Krippendorff's alpha {with_interval(alpha)}; "
            f"they part on {report.disputed[1]:,} steps of {report.disputed[0]:,} traces."
        )
    for section in report.labelers:
        quotes = section.grounding
        if quotes is not None and quotes.verified + quotes.unverified:
            told.append(
                f"{quotes.verified:,} of the {quotes.verified + quotes.unverified:,} quotes of "
                f"{section.labeler.name} stand in the evidence."
            )
    return told


def warnings(report: ReportInput) -> list[str]:
    """What makes figures on the page better than they should be, or not comparable."""
    told = []
    for section in report.labelers:
        fit = section.threshold_fit
        if fit is not None and fit.in_sample:
            told.append(
                f"The threshold of {section.labeler.name} was fitted on {fit.dataset}/{fit.subset}, which "
                f"is evaluated here ({', '.join(fit.in_sample)}): its figures are optimistic."
            )
        found = section.first_errors
        if found is not None and found.average.missing:
            n = found.average.n_error + found.average.n_correct
            told.append(
                f"{section.labeler.name} has no prediction on {found.average.missing:,} of {n:,} traces; "
                "they count as wrong."
            )
    return told


def _leaders(report: ReportInput) -> list[str]:
    test = report.leaders
    head = None if test is None else test.found.headline
    if test is None or head is None or head.difference is None or head.p_value is None:
        return []
    if not head.difference or head.ci95 is None:
        best = [
            section.labeler.name
            for section in report.labelers
            if headline(section, "processbench_f1") == head.first
        ]
        return [f"{', '.join(best)} share the highest processbench_f1, {figure(head.first)}."]
    verdict = "more than chance" if head.p_value < 0.05 else "not more than chance would give"
    return [
        f"Its lead over {test.second} is {figure(head.difference)} "
        f"[{figure(head.ci95[0])}, {figure(head.ci95[1])}], p = {head.p_value:.4f} by a paired "
        f"bootstrap: {verdict}."
    ]
