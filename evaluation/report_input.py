"""What the report page shows. Commands gather it from the store; nothing is computed from here on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evaluation.macro_f1 import MacroF1Report
from evaluation.processbench import ProcessBenchReport
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
    first_errors: ProcessBenchReport | None = None
    """Against gold; None for gold itself."""
    step_measures: MacroF1Report | None = None
    """Against gold; None for gold itself."""
    note: str = ""
    """What a reader must know about it, in a sentence; may be empty."""


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
class Spending:
    """Model calls of the run."""

    sent: int
    """Calls that went out."""
    cached: int
    """Calls answered from the response store."""
    usd: float | None
    """What the sent ones cost in US dollars; None where a price is not known."""
    prices_as_of: str | None = None
    """Date of the price table (ISO); None where none applies."""


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
    spending: Spending | None = None
    """Model calls; None if the run made none that are recorded."""
    gold: str = "gold"
    """Name of the labeler that is taken as truth."""
    threshold: float = 0.5
    """A step is correct iff its score is at least this."""
    seed: int = 0
    """Seed of the bootstrap."""
    made_at: str = ""
    """Date and time of the page, as it is to be shown; may be empty."""
    version: str = ""
    """Version of StepGold; may be empty."""
    title: str = "StepGold report"
    """Title of the page."""
    notes: tuple[str, ...] = ()
    """What a reader must know about the run, one sentence each."""
