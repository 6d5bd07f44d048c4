"""What the store takes and gives back beside the words of `traces/`: plain dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from traces.labels import Labeler
from traces.records import RejectedRow


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to import, with everything its rows depend on."""

    name: str
    """The file as the dataset knows it; the same name with other content is a changed file."""
    sha256: str
    """Hash of its bytes."""
    format: str
    """The format it is read in."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the reader that change its rows (strict JSON)."""


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


class DocumentLike(Protocol):
    """A document as any reader of corpora may hand it over."""

    @property
    def name(self) -> str:
        """Unique within its corpus."""

    @property
    def title(self) -> str:
        """Title; may be empty."""

    @property
    def text(self) -> str:
        """The full text that the passages' offsets point into."""

    @property
    def sha256(self) -> str:
        """Hash of the text or of the file it came from: another one means a changed document."""

    @property
    def source(self) -> str:
        """Where it came from, for a person."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document of a corpus."""

    name: str
    """Unique within its corpus."""
    title: str
    """Title; may be empty."""
    text: str
    """The full text that the passages' offsets point into."""
    sha256: str
    """Hash of the text or of the file it came from."""
    source: str
    """Where it came from, for a person."""


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
