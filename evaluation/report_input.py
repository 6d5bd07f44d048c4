"""What the report shows. Commands gather it from the store; nothing is computed from here on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evaluation.best_of_n import BestOfNReport
from evaluation.comparison import Comparison
from evaluation.diagnostics import Diagnostics
from evaluation.first_error_confusion import FirstErrorConfusion
from evaluation.grounding import Grounding
from evaluation.macro_f1 import MacroF1Report
from evaluation.paired import PairedReport
from evaluation.processbench import ProcessBenchReport
from evaluation.thresholds import FittedThreshold, ThresholdSweep
from traces.context import TraceInContext
from traces.labels import Labeler, TraceLabel


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
