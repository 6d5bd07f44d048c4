"""The dataclasses of `traces/` as rows: what fits, what is refused, and their digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from storage import checks
from storage.columns import Codec, Columns, dump_json, encode_text
from storage.steps import PackedSteps, pack_steps
from storage.tables import (
    BATCH_JOBS,
    BATCH_REQUESTS,
    CONTINUATIONS,
    DOCUMENTS,
    EVIDENCE,
    EVIDENCE_PASSAGES,
    FAILURES,
    LABELERS,
    MODEL_CALLS,
    PROBLEMS,
    QUOTES,
    REJECTED_ROWS,
    SOURCE_FILES,
    TRACES,
    VOTES,
)
from traces import (
    MISSING_FIRST_ERROR,
    AbstentionReason,
    BatchJob,
    BatchRow,
    Continuation,
    Evidence,
    Failure,
    FirstError,
    InputError,
    Labeler,
    ModelReply,
    Passage,
    Problem,
    Quote,
    RejectedRow,
    SourceFile,
    StoredCall,
    StoredDocument,
    Trace,
    TraceLabel,
    Usage,
    Vote,
)

PROBLEM = Codec(Problem, PROBLEMS)
TRACE = Codec(Trace, TRACES)
SOURCE_FILE = Codec(SourceFile, SOURCE_FILES)
REJECTED_ROW = Codec(RejectedRow, REJECTED_ROWS)
LABELER = Codec(Labeler, LABELERS)
QUOTE = Codec(Quote, QUOTES, start="start_char", end="end_char")
CONTINUATION = Codec(Continuation, CONTINUATIONS, index="continuation_index")
VOTE = Codec(Vote, VOTES, index="vote_index")
FAILURE = Codec(Failure, FAILURES)
DOCUMENT = Codec(StoredDocument, DOCUMENTS)
PASSAGE = Codec(
    Passage, EVIDENCE_PASSAGES, index="passage_index", start="start_char", end="end_char"
)
EVIDENCE_PLACE = Codec(Evidence, EVIDENCE)
BATCH_JOB = Codec(BatchJob, BATCH_JOBS)
BATCH_ROW = Codec(BatchRow, BATCH_REQUESTS)
_CALL = Codec(StoredCall, MODEL_CALLS)
_REPLY = Codec(ModelReply, MODEL_CALLS)
_USAGE = Codec(Usage, MODEL_CALLS)


def problem_columns(problem: Problem) -> Columns:
    """The columns of a problem, including its digest.

    Raises:
        InputError: a field cannot be stored.
    """
    content = PROBLEM.columns(problem, f"problem {problem.id!r}")
    return content | {"digest": checks.digest(content)}


def trace_columns(trace: Trace, problem_digest: str) -> tuple[Columns, list[str]]:
    """The columns of a trace, and its steps.

    The digest covers the problem too, because a label is about both.

    Raises:
        InputError: a field cannot be stored, or there is no step.
    """
    where = f"trace {trace.id!r}"
    steps = [checks.plain_text(text, f"A step of {where}") for text in trace.steps]
    if not steps:
        raise InputError(f"The {where} has no steps.")
    content = TRACE.columns(trace, where)
    digest = checks.digest(content, steps, problem_digest)
    return content | {"n_steps": len(steps), "digest": digest}, steps


def step_rows(steps: dict[int, list[str]]) -> list[Columns]:
    """The rows of steps by the key of their trace."""
    return [
        {"trace_pk": pk, "step_index": index, "text": text}
        for pk, texts in steps.items()
        for index, text in enumerate(texts)
    ]


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """A checked label as columns, without the keys."""

    first_error: tuple[bool, int | None]
    """Whether the labeler gave one, and the step if it named one."""
    abstention: tuple[str | None, str | None]
    """Reason and detail."""
    meta: str
    """JSON text."""
    steps: PackedSteps | None
    """None without step labels."""
    quotes: list[Columns]


def label_columns(label: TraceLabel, n_steps: int) -> LabelColumns:
    """A label of a trace with this number of steps as columns.

    Raises:
        InputError: it is empty, does not fit the trace, or cannot be stored.
    """
    where = f"label of trace {label.trace_id!r}"
    if label.step_labels and len(label.step_labels) != n_steps:
        raise InputError(
            f"The {where} has {len(label.step_labels)} step labels, but the trace has"
            f" {n_steps} steps."
        )
    index = label.first_error_index
    if index is not None:
        checks.count(index, f"The first error index of the {where}")
        if not label.first_error_given:
            raise InputError(f"The {where} has a first error index but states that none was given.")
        if index >= n_steps:
            raise InputError(f"The {where} names step {index}, but the trace has {n_steps} steps.")
    abstention = label.abstention
    if not (label.step_labels or label.first_error_given or abstention):
        raise InputError(f"The {where} is empty: no step label, no first error, no abstention.")
    meta = checks.json_value(label.meta, f"The meta of the {where}") if label.meta else None
    return LabelColumns(
        first_error=(label.first_error_given, index),
        abstention=(
            (None, None)
            if abstention is None
            else (AbstentionReason(abstention.reason).value, encode_text(abstention.detail))
        ),
        meta=dump_json(meta) if meta else "{}",
        steps=pack_steps(label.step_labels, label.trace_id) if label.step_labels else None,
        quotes=[
            QUOTE.columns(step.quote, f"a quote in the {where}") | {"step_index": step_index}
            for step_index, step in enumerate(label.step_labels)
            if step.quote is not None
        ],
    )


def continuation_columns(continuation: Continuation, n_steps: int) -> Columns:
    """The columns of a continuation, without the trace label's key.

    Raises:
        InputError: the trace does not have its step.
    """
    where = f"continuation of trace {continuation.trace_id!r}"
    columns = CONTINUATION.columns(continuation, f"a {where}")
    if columns["step_index"] >= n_steps:
        raise InputError(
            f"A {where} is about step {columns['step_index']}, but there are {n_steps} steps."
        )
    return columns


def vote_columns(vote: Vote, n_steps: int) -> Columns:
    """The columns of a vote, without the trace label's key.

    Raises:
        InputError: it does not fit the number of steps, or cannot be stored.
    """
    where = f"vote on trace {vote.trace_id!r}"
    if len(vote.words) not in (0, n_steps) or not (vote.words or vote.abstention):
        raise InputError(f"A {where} has {len(vote.words)} verdicts for {n_steps} steps.")
    index = checks.count(vote.first_error.index, f"The first error index of a {where}")
    if index is not None and (vote.first_error.missing or index >= n_steps):
        raise InputError(
            f"A {where} names step {index} of {n_steps} as its first error, or leaves it open too."
        )
    return VOTE.columns(vote, f"a {where}") | {
        "first_error_named": not vote.first_error.missing,
        "first_error_index": index,
    }


def vote_from(row: Row[Any]) -> Vote:
    """The vote in a row that has its `trace_id`."""
    named = FirstError(missing=False, index=row.first_error_index)
    return VOTE.record(
        row,
        trace_id=row.trace_id,
        first_error=named if row.first_error_named else MISSING_FIRST_ERROR,
    )


def copied_passage_columns(passage: Passage) -> Columns:
    """The columns of a passage copied as evidence, including its digest.

    Raises:
        InputError: a field cannot be stored, or the offsets do not fit the text.
    """
    where = f"passage {passage.index} of document {passage.document!r}"
    columns = PASSAGE.columns(passage, where)
    if passage.end - passage.start != len(passage.text):
        raise InputError(
            f"The {where} has {len(passage.text)} characters, but its offsets"
            f" {passage.start} and {passage.end} span {passage.end - passage.start}."
        )
    return columns | {"digest": checks.digest(columns)}


def passage_columns(passage: Passage) -> Columns:
    """The columns of a passage of a stored document.

    Raises:
        InputError: see `copied_passage_columns`.
    """
    columns = copied_passage_columns(passage)
    return {key: columns[key] for key in columns if key not in ("corpus", "document", "digest")}


def evidence_columns(evidence: Evidence, position: int) -> Columns:
    """The columns of one entry of a list of evidence, without the keys.

    `step` is among them only where there is one, so that lists without steps keep their address.

    Raises:
        InputError: a value cannot be stored, or the passage was cut for a prompt.
    """
    where = f"evidence {position}"
    if evidence.cut:
        raise InputError(f"The {where} was cut for a prompt; only whole passages are stored.")
    columns = EVIDENCE_PLACE.columns(evidence, where) | {"position": position}
    if evidence.step is not None:
        columns["step"] = checks.count(evidence.step, f"The step of {where}")
    return columns


def call_columns(call: StoredCall) -> Columns:
    """The columns of a model call.

    Raises:
        InputError: a number is out of range, or the meta is not JSON. Texts are never refused.
    """
    purpose = call.meta.get("purpose")
    where = "a model call"
    return {
        **_CALL.columns(call, where),
        **_REPLY.columns(call.reply, where),
        **_USAGE.columns(call.reply.usage, where),
        "hits": 0,
        "purpose": purpose if isinstance(purpose, str) else None,
    }


def reply_from(row: Row[Any]) -> ModelReply:
    """The reply in a row of the ledger, marked as cached."""
    return _REPLY.record(row, usage=usage_from(row), cached=True)


def usage_from(row: Row[Any]) -> Usage:
    """The tokens in a row of the ledger or of its totals."""
    return _USAGE.record(row)


def call_from(row: Row[Any]) -> StoredCall:
    """The call in a row of the ledger."""
    return _CALL.record(row, reply=reply_from(row))
