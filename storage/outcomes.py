"""What the store gives back beside the words of `traces/`: plain dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from traces import Labeler, RejectedRow, Usage


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """What became of the rows of one file."""

    done: int
    """Traces that are new or were replaced."""
    unchanged: int
    """Traces that stood in the dataset with the same content, and keep all their labels."""
    rejected: tuple[RejectedRow, ...] = ()
    """Rows that were listed, in order; for an unchanged file those of its first import."""
    removed: int = 0
    """Traces that were in the file before and are not any more."""


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """A dataset as its gold labels see it; the three groups add up to `traces`."""

    traces: int
    """Traces of the dataset."""
    with_error: int
    """Traces in which gold names a first error."""
    without_error: int
    """Traces that gold calls free of errors."""
    unlabelled: int
    """Traces without gold, or whose gold is an abstention or leaves the first error open."""


@dataclass(frozen=True, slots=True)
class DatasetCounts:
    """How large a dataset is."""

    problems: int
    """Problems."""
    traces: int
    """Traces."""
    steps: int
    """Steps of all traces."""


@dataclass(frozen=True, slots=True)
class LabelerSummary:
    """How much a labeler has said."""

    dataset: str
    """The dataset it labels."""
    labeler: Labeler
    """The labeler, with every resolved model version."""
    traces: int
    """Traces with a stored word of it, abstentions included."""
    steps: int
    """Steps with a verdict or a score."""
    abstained: int
    """Traces on which it abstained as a whole."""


@dataclass(frozen=True, slots=True)
class CorpusOutcome:
    """What became of the documents of one call."""

    done: int
    """Documents that are new or were replaced."""
    unchanged: int
    """Documents that stood in the corpus as they are."""


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """How large a corpus is."""

    name: str
    """Its name."""
    documents: int
    """Documents."""
    passages: int
    """Passages."""
    licence: str | None
    """Its licence as the user stated it; None if not stated."""
    source: str | None = None
    """Where it comes from as the user stated it; None if not stated."""


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """Where a document came from, and under which licence its corpus is."""

    source: str
    """The document's own URL or path."""
    licence: str | None
    """Licence of the corpus; None if not stated."""
    origin: str | None
    """Source of the corpus as a whole; None if not stated."""


@dataclass(frozen=True, slots=True)
class CallTotals:
    """The ledger in four figures."""

    sent: int
    """Calls that were sent to a model."""
    cached: int
    """Calls that were answered from the store."""
    usd: float
    """What the sent ones cost in US dollars, as far as prices are known."""
    unpriced: int = 0
    """Sent calls whose price is not known: they are not in `usd`."""
    saved_usd: float = 0.0
    """What the calls answered from the store would have cost, as their first ones did."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What the calls to one model for one purpose took and cost."""

    model: str
    """The model as asked for."""
    purpose: str | None
    """What the calls were for (`judge`, `continue`); None where the call does not say."""
    resolved_model: str | None
    """The version that answered; None if the service does not say."""
    sent: int
    """Calls that were sent."""
    cached: int
    """Calls that were answered from the store."""
    usd: float
    """What the sent ones cost in US dollars, as far as prices are known."""
    saved_usd: float
    """What the others would have cost."""
    unpriced: int
    """Sent calls whose price is not known."""
    usage: Usage
    """Tokens of the sent ones."""
