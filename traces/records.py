"""Records that the stages pass to the store: imported rows, labels, model calls, batch jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from traces.evidence import Evidence
from traces.labels import AbstentionReason, Labeler, TraceLabel, Vote
from traces.problem import Problem, Trace


@dataclass(frozen=True, slots=True)
class ImportedTrace:
    """One usable row of a file: a problem, a trace, and the labels that came with it."""

    problem: Problem
    """The problem; several rows may repeat it."""
    trace: Trace
    labels: tuple[tuple[Labeler, TraceLabel], ...] = ()
    """The labels that came with the row, each with its labeler."""
    evidence: tuple[Evidence, ...] = ()
    """Evidence that came with the row, best first."""
    line: int | None = None
    """1-based line of the row in its file; None for containers without lines."""


ORIGIN = "hub"
"""The key among stored options that says where a file came from; it makes no other file of it."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An imported file: tells whether a second import of it changes anything."""

    name: str
    """Base name, so that a moved file stays the same file."""
    sha256: str
    """SHA-256 of the file's bytes, in hexadecimal."""
    format: str
    """The format as which it was read."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of the import (strict JSON), such as the subset."""
    path: str | None = None
    """The path as the user gave it, for messages; None if it equals the name."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not imported, or a note about an imported one."""

    file: str
    """The path as the user gave it."""
    line: int | None
    """1-based line, or 1-based position in a JSON list; None if unknown."""
    id: str | None
    reason: str
    """One sentence."""
    imported: bool = False
    """True if the trace was imported: the row is a note about it."""
    harmless: bool | None = None
    """True for a note about an import in which nothing is missing: it keeps the exit code at 0."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call, as billed."""

    input_tokens: int = 0
    """Prompt tokens, including the cached ones (as in `promptTokenCount`)."""
    cached_tokens: int = 0
    """Input tokens read from the service's cache."""
    output_tokens: int = 0
    """Tokens of the reply, without thinking."""
    thinking_tokens: int = 0
    """Thinking tokens; billed as output."""


@dataclass(frozen=True, slots=True)
class ModelReply:
    """One reply of a text model, with what an audit and the bill need."""

    text: str | None
    """The text; None if the service returned none."""
    finish_reason: str
    """`stop`, `length`, `blocked`, or the service's own word in lower case."""
    model: str
    """The model as requested."""
    resolved_model: str | None
    """The version that the service reports; None if it reports none."""
    usage: Usage = Usage()
    usd: float | None = None
    """Cost in US dollars by the dated price table (0.0 for local models); None without a price."""
    prices_as_of: str | None = None
    """ISO date of the price table; None if no price applies."""
    raw: str = ""
    """The raw reply: JSON text if the service returns JSON."""
    cached: bool = False
    """True if it came from the ledger and was not sent."""
    server: str | None = None
    """Host of the server that answered, where there are several; kept in the call's meta."""

    @property
    def only_reasoning(self) -> str | None:
        """What to tell of a reply that is all reasoning; None for another one."""
        if self.text or not self.usage.thinking_tokens:
            return None
        return (
            f"wrote {self.usage.thinking_tokens} tokens of reasoning and no answer: raise "
            "--max-tokens or lower --reasoning-effort"
        )


@dataclass(frozen=True, slots=True)
class Continuation:
    """One completion from a prefix of a trace."""

    trace_id: str
    step_index: int
    """0-based index of the last step of the prefix."""
    index: int
    """0-based number among the continuations of that prefix."""
    text: str
    """The new text, without the prefix."""
    finish_reason: str
    """`stop` or `length`."""
    answer: str | None
    """The extracted answer; None if there is none."""
    correct: bool | None
    """Whether it is the gold answer; None if no answer could be extracted."""
    tokens: int = 0
    """Tokens generated."""


@dataclass(frozen=True, slots=True)
class LabeledTrace:
    """What a labeling stage yields for one trace, ready to be stored."""

    label: TraceLabel
    continuations: tuple[Continuation, ...] = ()
    """MC: the continuations from which the label was made."""
    votes: tuple[Vote, ...] = ()
    """Judge: the votes from which the label was made, a second model's vote last."""
    resolved_model: str | None = None
    """The model version that answered; None if none did, or if it is unknown."""
    prompt: tuple[str, str] | None = None
    """Judge: SHA-256 and text of the prompt; None if no prompt was used."""
    last_of_batch: bool = False
    """Whether long work follows before the next trace, so that this one should be stored now."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that a stage could not label, kept for `stepgold status` and `stepgold retry`."""

    id: str
    """Trace or problem id."""
    stage: str
    """Labeler name or command."""
    reason: AbstentionReason
    retryable: bool
    """Whether `stepgold retry` can help."""
    detail: str = ""
    """One sentence."""


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A model call as the ledger keeps it."""

    key: str
    """Content address: hash of model, request and sample index."""
    request: str
    """The prompt as sent, as JSON text."""
    reply: ModelReply
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The purpose of the call (strict JSON)."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document of a corpus as the store keeps it; passages point into its text."""

    name: str
    """Unique within the corpus: path relative to what the user named; JSONL rows append `#id`."""
    title: str
    """Title of the document; the file's stem where it gives none."""
    text: str
    """Decoded text to which passage offsets refer: \\n line ends, no markup except headings."""
    sha256: str
    """SHA-256 of title and text, in hexadecimal: an equal hash means that nothing changed."""
    source: str
    """Where it came from: the row's own URL or source, else the path as the user named it."""


class BatchState(StrEnum):
    """How far one of our batch jobs has come."""

    PREPARED = "prepared"
    """Recorded before it was sent: the service may or may not know it."""
    SUBMITTED = "submitted"
    """The service has it, under a known name."""
    CLOSED = "closed"
    """It has ended, and all its results are recorded."""


class BatchEnding(StrEnum):
    """How a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Canceled by someone else."""
    EXPIRED = "expired"
    """The service did not get to it in time."""
    STUCK = "stuck"
    """It made no progress for too long, and we canceled it."""
    LOST = "lost"
    """The service no longer knows it, or its results."""
    REFUSED = "refused"
    """The service rejected it."""
    NEVER_SENT = "never_sent"
    """The process that prepared it died before sending it."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One request of a batch job whose reply is outstanding."""

    key: str
    """Content address of the request (`inference.request_key`), by which its reply is matched."""
    request: str
    """The prompt as sent, as JSON text, for the ledger."""
    tokens: int
    """Upper estimate of the input tokens that it adds to the enqueued ones."""
    usd: float | None
    """Maximum cost in US dollars; None without a price."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The purpose of the call (strict JSON)."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch job of a model service, stored so that another process can take it over."""

    id: str
    """Our id, part of the job's display name at the service."""
    model: str
    """The model as the user named it."""
    endpoint: str
    """Base URL of the service."""
    created_at: float
    """When it was prepared, Unix seconds."""
    state: BatchState = BatchState.PREPARED
    name: str | None = None
    """The service's name for it; None until known."""
    progress: str = ""
    """The last progress report, in the service's words."""
    progress_at: float = 0.0
    """When that report was first seen, Unix seconds."""
    cancelled_at: float | None = None
    """When we asked to cancel it, Unix seconds; None if we did not."""
    requests: int = 0
    """Requests submitted with it."""
    tokens: int = 0
    """Upper estimate of the outstanding requests' input tokens."""
    usd: float = 0.0
    """Maximum cost of the outstanding requests, as far as prices are known, US dollars."""
    outstanding: int = 0
    """Requests without a recorded reply."""

    @property
    def display_name(self) -> str:
        """The job's name at the service, which finds a job whose create reply was lost."""
        return f"stepgold-{self.id}"


class ExpertAnswer(StrEnum):
    """What an expert did with a step."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NEUTRAL = "neutral"
    CANNOT_TELL = "cannot_tell"
    """The expert read it and cannot decide."""
    SKIP = "skip"
    """Left to another expert."""
    UNDO = "undo"
    """Takes the expert's answer to the step back."""
    FLAG = "flag"
    """Something is wrong with the problem itself, as the note says."""
    UNFLAG = "unflag"
    """Takes the expert's flag back."""


class ReviewPurpose(StrEnum):
    """Why an expert was asked."""

    QUEUE = "queue"
    """By the expected value of the answer."""
    AUDIT = "audit"
    """Drawn at random: the sample that the accuracy of a label set is estimated from."""
    DOUBLE = "double"
    """As the second expert on the step."""
    REPEAT = "repeat"
    """Asked again, to see whether the expert still agrees with themselves; it changes no label."""
    TRAINING = "training"
    """With gold shown afterwards; it changes no label."""
    ADJUDICATION = "adjudication"
    """To decide a step on which experts differ."""
    CHECK = "check"
    """To check a finished split."""
    IMPORT = "import"
    """Answered elsewhere, and read from a file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewAnswer:
    """One entry of the log of answers: it is never changed; an `undo` is a further entry."""

    trace_id: str
    step_index: int
    """0-based."""
    expert: str
    """A code; nothing else about the person is stored."""
    answer: ExpertAnswer
    token: str
    """Names this entry: storing it again changes nothing."""
    note: str | None = None
    seconds: float | None = None
    """How long the expert looked at the step; None if unknown."""
    opinions: str | None = None
    """When labelers' opinions were shown: before, after, never; None if unknown."""
    purpose: ReviewPurpose = ReviewPurpose.QUEUE
    at: str = ""
    """UTC in ISO 8601; empty until it is stored."""


Item = TypeVar("Item")
READ_AHEAD, READ_AHEAD_MOST = 256, 2048
"""Traces that a PRM reads together, extended to the end of the last one's problem; and the most,
however many candidates a problem has."""


def problem_windows(
    items: Iterable[Item], problem_of: Callable[[Item], str]
) -> Iterator[list[Item]]:
    """Yield a few hundred traces at a time; consecutive candidates of a problem stay together.

    Step scores depend on what shares a forward pass in their last bits. A run that is spread over
    machines therefore cuts the traces where a run on one machine does.

    Args:
        items: the traces, or their ids.
        problem_of: the problem of one of them.
    """
    window: list[Item] = []
    for item in items:
        ends = bool(window) and problem_of(window[-1]) != problem_of(item)
        if len(window) >= (READ_AHEAD if ends else READ_AHEAD_MOST):
            yield window
            window = []
        window.append(item)
    if window:
        yield window
