"""What the stages hand to the store: imported rows, model calls, continuations, failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from traces.evidence import Evidence
from traces.labels import AbstentionReason, Labeler, TraceLabel
from traces.problem import Problem, Trace


@dataclass(frozen=True, slots=True)
class ImportedTrace:
    """One usable row of a file: a problem, a trace, and the labels that came with it."""

    problem: Problem
    """The problem (the same problem may come with several rows)."""
    trace: Trace
    """The trace."""
    labels: tuple[tuple[Labeler, TraceLabel], ...] = ()
    """The labels that came with the row, with the labeler that put each."""
    evidence: tuple[Evidence, ...] = ()
    """Evidence that came with the row, best first."""
    line: int | None = None
    """1-based line of the row in its file; None for containers without lines."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as it was imported: what makes a second import of it a no-op, or a change."""

    name: str
    """Base name of the file, without its folder: a moved file is the same file."""
    sha256: str
    """Hash of the file's bytes, in hexadecimal."""
    format: str
    """The format it was read as."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options it was read with (strict JSON), e.g. the subset."""
    path: str | None = None
    """The file as the user named it, for what is said about its rows; None if that is its name."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not imported, or an imported one whose gold cannot be used."""

    file: str
    """The file as the user named it."""
    line: int | None
    """1-based line; for a JSON list the 1-based position of the row; None if unknown."""
    id: str | None
    """The row's id; None if it has none."""
    reason: str
    """One sentence."""
    imported: bool = False
    """True if the trace was imported and only its gold is unusable."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call, as billed."""

    input_tokens: int = 0
    """Prompt tokens, the cached ones included (as `promptTokenCount` counts)."""
    cached_tokens: int = 0
    """Of these, read from the service's cache."""
    output_tokens: int = 0
    """Tokens of the reply, without thinking."""
    thinking_tokens: int = 0
    """Thinking tokens; billed as output."""


@dataclass(frozen=True, slots=True)
class ModelReply:
    """One reply of a text model, with everything needed to audit and to pay for it."""

    text: str | None
    """The reply's text; None if the service returned none."""
    finish_reason: str
    """`stop`, `length`, `blocked`, or the service's own word in lower case."""
    model: str
    """The model as asked for."""
    resolved_model: str | None
    """The version the service says it used; None if it does not say."""
    usage: Usage = Usage()
    """Tokens."""
    usd: float | None = None
    """Cost in US dollars from the dated price table; None where no price is known (0.0 for local models)."""
    prices_as_of: str | None = None
    """Date of the price table used (ISO); None where no price applies."""
    raw: str = ""
    """The raw reply, as JSON text where the service speaks JSON."""
    cached: bool = False
    """True if it came from the response store and was not sent."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """One completion from a prefix of a trace."""

    trace_id: str
    """The trace."""
    step_index: int
    """0-based index of the last step of the prefix."""
    index: int
    """0-based number of the continuation."""
    text: str
    """What the policy wrote after the prefix."""
    finish_reason: str
    """`stop` or `length`."""
    answer: str | None
    """The extracted answer; None if there is none."""
    correct: bool | None
    """Whether it is the gold answer; None if no answer could be extracted."""
    tokens: int = 0
    """Tokens generated."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that a stage could not label, kept for `stepgold status` and `stepgold retry`."""

    id: str
    """Trace or problem id."""
    stage: str
    """Labeler name or command."""
    reason: AbstentionReason
    """Why."""
    retryable: bool
    """Whether `stepgold retry` may help."""
    detail: str = ""
    """One sentence."""


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A model call as the ledger keeps it."""

    key: str
    """Content address: hash of model, request and sample index."""
    request: str
    """The prompt really sent, as JSON text."""
    reply: ModelReply
    """What came back."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the call was for (strict JSON)."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document of a corpus as the store keeps it; passages point into its text."""

    name: str
    """Unique within the corpus: the path relative to what the user named, `#id` behind it for JSONL rows."""
    title: str
    """Title of the document; the file's stem where it gives none."""
    text: str
    """The text that passage offsets count in: decoded, line ends as \\n, markup other than headings removed."""
    sha256: str
    """Hash of title and text, in hexadecimal: an equal hash means that nothing has to be done."""
    source: str
    """Where it came from: the row's own URL or source, else the path as the user named it."""


# --- Batch jobs of a model service as the store remembers them, so that another process can go on


class BatchState(StrEnum):
    """How far a job of ours has come."""

    PREPARED = "prepared"
    """Written down before it was sent: the service may know it or not."""
    SUBMITTED = "submitted"
    """The service has it, under a name we know."""
    CLOSED = "closed"
    """It has ended, and all it gave is recorded."""


class BatchEnding(StrEnum):
    """Why a job is closed."""

    SUCCEEDED = "succeeded"
    """The service finished it."""
    FAILED = "failed"
    """The service gave it up."""
    CANCELLED = "cancelled"
    """Somebody else cancelled it."""
    EXPIRED = "expired"
    """The service did not come to it in its time."""
    STUCK = "stuck"
    """It showed no sign of life for too long and was cancelled by us."""
    LOST = "lost"
    """The service does not know it, or its results, any more."""
    REFUSED = "refused"
    """The service would not take it."""
    NEVER_SENT = "never_sent"
    """The process that prepared it died before it was sent."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One request of a batch job, on its way."""

    key: str
    """Content address of the request (`inference.protocol.request_key`): what its reply is found by."""
    request: str
    """The prompt really sent, as JSON text, for the ledger."""
    tokens: int
    """Input tokens, estimated from above: what it adds to the enqueued tokens."""
    usd: float | None
    """What it costs at most in US dollars; None where no price is known."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the call is for (strict JSON)."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A job as we know it."""

    id: str
    """Our own id; the job's display name at the service is made from it."""
    model: str
    """The model as the user named it."""
    endpoint: str
    """Base URL of the service that has it."""
    created_at: float
    """When it was prepared, Unix seconds."""
    state: BatchState = BatchState.PREPARED
    """How far it has come."""
    name: str | None = None
    """The service's name for it; None until that is known."""
    progress: str = ""
    """The last sign of life, as the service words it."""
    progress_at: float = 0.0
    """When that was first seen, Unix seconds."""
    cancelled_at: float | None = None
    """When we asked for its cancellation, Unix seconds; None if we did not."""
    requests: int = 0
    """Requests it was made of."""
    tokens: int = 0
    """Input tokens of what is still outstanding, estimated from above."""
    usd: float = 0.0
    """What the outstanding requests cost at most, as far as prices are known, US dollars."""
    outstanding: int = 0
    """Requests whose replies are not recorded yet."""

    @property
    def display_name(self) -> str:
        """What the job is called at the service: how a job is found whose create reply was lost."""
        return f"stepgold-{self.id}"
