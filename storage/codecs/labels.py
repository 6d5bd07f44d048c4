"""Labelers and labels. What a model wrote (reasoning, quotes, continuations) goes through `model_text`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from storage import checks
from storage.codecs.model_text import decode_optional, decode_text, encode_optional, encode_text
from traces import (
    Abstention,
    AbstentionReason,
    Continuation,
    InputError,
    Labeler,
    LabelerKind,
    Quote,
    StepLabel,
    TraceLabel,
    Verdict,
)

Columns = dict[str, Any]
"""Column values by name."""


def labeler_columns(labeler: Labeler) -> Columns:
    """The columns of a labeler.

    Raises:
        InputError: name or configuration cannot be stored.
    """
    where = f"labeler {labeler.name!r}"
    return {
        "name": checks.name(labeler.name, "The labeler name"),
        "kind": LabelerKind(labeler.kind).value,
        "config": checks.plain_json(labeler.config, f"The configuration of {where}"),
        "model": checks.optional_text(labeler.model, f"The model of {where}"),
        "resolved_model": checks.optional_text(labeler.resolved_model, f"The model of {where}"),
    }


def labeler_from(row: Row[Any]) -> Labeler:
    """The labeler in a row of the table."""
    return Labeler(row.name, LabelerKind(row.kind), row.config, row.model, row.resolved_model)


def trace_label_columns(label: TraceLabel, n_steps: int) -> Columns:
    """The columns of a trace label, without the keys.

    Raises:
        InputError: it says nothing, does not fit the number of steps, or cannot be stored.
    """
    where = f"The label of trace {label.trace_id!r}"
    if label.step_labels and len(label.step_labels) != n_steps:
        raise InputError(
            f"{where} has {len(label.step_labels)} step labels, but the trace has {n_steps} steps."
        )
    index = checks.count(label.first_error_index, f"{where}: the first error index")
    if index is not None and not label.first_error_given:
        raise InputError(f"{where} has a first error index but says that none was given.")
    if index is not None and index >= n_steps:
        raise InputError(f"{where} names step {index}, but the trace has {n_steps} steps.")
    if not (label.step_labels or label.first_error_given or label.abstention):
        raise InputError(f"{where} says nothing: no step label, no first error, no abstention.")
    return {
        "first_error_given": bool(label.first_error_given),
        "first_error_index": index,
        "meta": checks.json_value(label.meta, f"{where}: its meta"),
        **_abstention_columns(label.abstention),
    }


def trace_label_from(row: Row[Any], step_labels: tuple[StepLabel, ...]) -> TraceLabel:
    """The label in a row that names its `trace_id`."""
    return TraceLabel(
        row.trace_id,
        step_labels,
        row.first_error_given,
        row.first_error_index,
        _abstention_from(row),
        row.meta,
    )


def step_label_columns(step: StepLabel, trace_id: str, step_index: int) -> Columns:
    """The columns of a step label, without the trace label's key.

    Raises:
        InputError: it has neither word nor abstention, or both, or a number out of range.
    """
    where = f"The label of step {step_index} of trace {trace_id!r}"
    has_word = step.verdict is not None or step.score is not None
    if has_word == (step.abstention is not None):
        raise InputError(
            f"{where} must have either an abstention or a verdict or score,"
            f" and has {'both' if has_word else 'neither'}."
        )
    return {
        "step_index": step_index,
        "verdict": None if step.verdict is None else Verdict(step.verdict).value,
        "score": checks.fraction(step.score, f"{where}: the score"),
        "successes": checks.count(step.successes, f"{where}: the count of successes"),
        "continuations": checks.count(step.continuations, f"{where}: the count of continuations"),
        "unparsed": checks.count(step.unparsed, f"{where}: the count of unparsed ones"),
        "unfinished": checks.count(step.unfinished, f"{where}: the count of unfinished ones"),
        "reasoning": encode_optional(step.reasoning),
        **_abstention_columns(step.abstention),
    }


def step_label_from(row: Row[Any], quote: Quote | None) -> StepLabel:
    """The step label in a row of the table."""
    return StepLabel(
        None if row.verdict is None else Verdict(row.verdict),
        row.score,
        _abstention_from(row),
        row.successes,
        row.continuations,
        row.unparsed,
        row.unfinished,
        decode_optional(row.reasoning),
        quote,
    )


def quote_columns(quote: Quote, step_index: int) -> Columns:
    """The columns of a quote, without the trace label's key."""
    return {
        "step_index": step_index,
        "text": encode_text(quote.text),
        "document": checks.count(quote.document, "The cited document"),
        "verified": bool(quote.verified),
        "start_char": checks.count(quote.start, "The start of the quote"),
        "end_char": checks.count(quote.end, "The end of the quote"),
        "method": quote.method,
    }


def quote_from(row: Row[Any]) -> Quote:
    """The quote in a row of the table."""
    return Quote(
        decode_text(row.text), row.document, row.verified, row.start_char, row.end_char, row.method
    )


def continuation_columns(continuation: Continuation, n_steps: int) -> Columns:
    """The columns of a continuation, without the trace label's key.

    Raises:
        InputError: its step is not one of the trace's.
    """
    where = f"A continuation of trace {continuation.trace_id!r}"
    step_index = checks.count(continuation.step_index, f"{where}: the step index")
    if step_index is None or step_index >= n_steps:
        raise InputError(f"{where} is about step {step_index}, but there are {n_steps} steps.")
    return {
        "step_index": step_index,
        "continuation_index": checks.count(continuation.index, f"{where}: its number"),
        "text": encode_text(continuation.text),
        "finish_reason": continuation.finish_reason,
        "answer": encode_optional(continuation.answer),
        "correct": continuation.correct,
        "tokens": checks.count(continuation.tokens, f"{where}: the count of tokens"),
    }


def continuation_from(row: Row[Any], trace_id: str) -> Continuation:
    """The continuation in a row of the table."""
    return Continuation(
        trace_id,
        row.step_index,
        row.continuation_index,
        decode_text(row.text),
        row.finish_reason,
        decode_optional(row.answer),
        row.correct,
        row.tokens,
    )


def _abstention_columns(abstention: Abstention | None) -> Columns:
    if abstention is None:
        return {"abstention": None, "abstention_detail": None}
    return {
        "abstention": AbstentionReason(abstention.reason).value,
        "abstention_detail": encode_text(abstention.detail),
    }


def _abstention_from(row: Row[Any]) -> Abstention | None:
    if row.abstention is None:
        return None
    return Abstention(
        AbstentionReason(row.abstention), decode_optional(row.abstention_detail) or ""
    )
