"""From the text of a judge's reply to labels: pure, bounded, and never a verdict by default."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from inference.replies import OVER_LENGTH
from judge.markers import unescape_markers
from judge.quotes import verify_quote
from traces.abstention import AbstentionReason
from traces.context import TraceInContext
from traces.evidence import Evidence, Quote
from traces.labels import StepLabel, TraceLabel, Verdict, abstained

MAX_REPLY_CHARACTERS = 1_000_000
"""A longer reply is not read: no judge needs it, and parsing must stay bounded."""

_FENCED = re.compile(r"```[a-z]*\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_DIGITS = re.compile(r"\s*(?:document|step)?\s*(\d{1,6})\s*", re.IGNORECASE)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

_ABSTENTIONS: Mapping[str, tuple[AbstentionReason, str]] = {
    "blocked": (AbstentionReason.BLOCKED, "the service refused to answer"),
    "length": (AbstentionReason.TRUNCATED, "the reply was cut at the token limit"),
    OVER_LENGTH: (AbstentionReason.OVER_LENGTH, "the prompt does not fit into the model's window"),
}


class UnreadableReply(Exception):
    """The reply is not what was asked for; the message says how."""


def parse_reply(
    text: str | None,
    finish_reason: str,
    context: TraceInContext,
    shown_evidence: Sequence[Evidence],
) -> TraceLabel:
    """The judge's word on every step of the trace, or a typed abstention for the whole trace.

    Tolerated: code fences and prose around the object, a bare list, trailing commas, raw line
    breaks in strings, numbers as strings, verdicts in other case, steps out of order. Not
    tolerated, and then the trace is `unreadable`: any finish but `stop`, a step that is missing,
    repeated or invented, another verdict than the three, one key given twice.

    Args:
        text: the reply's text; None if the service returned none.
        finish_reason: `stop`, `length`, `blocked`, or the service's own word.
        context: the trace that was judged.
        shown_evidence: the documents in the prompt, number 1 first; empty for an ungrounded call.

    Returns:
        A label whose meta holds `grounded` and the tally `quotes` (verified, unverified, absent).
    """
    trace_id = context.trace.id
    if finish_reason in _ABSTENTIONS:
        return abstained(trace_id, *_ABSTENTIONS[finish_reason])
    try:
        if finish_reason != "stop":
            raise UnreadableReply(f"the reply ended with '{finish_reason}', not with 'stop'")
        entries = _entries_in_order(_read_object(text), len(context.trace.steps))
        steps = tuple(_step_label(entry, shown_evidence) for entry in entries)
    except UnreadableReply as fault:
        return abstained(trace_id, AbstentionReason.UNREADABLE, str(fault))
    meta = {"grounded": bool(shown_evidence), "quotes": _tally(steps)}
    return TraceLabel(trace_id, steps, meta=meta)


# The text ---------------------------------------------------------------------------------------


def _read_object(text: str | None) -> object:
    """The first reading of the text that is JSON."""
    if text is None or not text.strip():
        raise UnreadableReply("the reply is empty")
    if len(text) > MAX_REPLY_CHARACTERS:
        raise UnreadableReply(f"the reply has {len(text)} characters")
    fault = "no JSON object in the reply"
    for candidate in _candidates(text.strip().lstrip("\ufeff")):
        try:
            return json.loads(
                candidate, strict=False, object_pairs_hook=_unique, parse_constant=_no_constant
            )
        except RecursionError:
            raise UnreadableReply("the reply is nested too deeply") from None
        except ValueError as error:
            fault = f"the reply is not JSON: {error}"
    raise UnreadableReply(fault)


def _candidates(text: str) -> Iterable[str]:
    """The text, then what bounded repair makes of it."""
    yield text
    bodies = [body.strip() for body in _FENCED.findall(text)[-1:]]
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        bodies.append(text[start : end + 1])
    yield from bodies
    yield from (_TRAILING_COMMA.sub(r"\1", body) for body in bodies)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise UnreadableReply("the reply gives one key twice")
    return read


def _no_constant(name: str) -> NoReturn:
    raise UnreadableReply(f"the reply holds {name}, which is not JSON")


# The entries ------------------------------------------------------------------------------------


def _entries_in_order(reply: object, step_count: int) -> list[Mapping[str, Any]]:
    """One entry per step, by the step's own number; anything else is unreadable."""
    entries = reply.get("steps") if isinstance(reply, dict) else reply
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UnreadableReply("the reply has no list 'steps' of objects")
    by_number: dict[int, Mapping[str, Any]] = {}
    for entry in entries:
        number = _number(entry.get("step"))
        if number is None or not 1 <= number <= step_count:
            raise UnreadableReply(f"the reply judges a step '{entry.get('step')}'"[:200])
        if number in by_number:
            raise UnreadableReply(f"the reply judges step {number} twice")
        by_number[number] = entry
    missing = [number for number in range(1, step_count + 1) if number not in by_number]
    if missing:
        raise UnreadableReply(f"the reply judges {len(by_number)} of {step_count} steps")
    return [by_number[number] for number in range(1, step_count + 1)]


def _number(value: object) -> int | None:
    """A whole number, also as a string or a float without fraction; None for anything else."""
    if isinstance(value, str):
        found = _DIGITS.fullmatch(value)
        return int(found[1]) if found else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value % 1 == 0 else None  # infinity has no remainder


def _step_label(entry: Mapping[str, Any], shown: Sequence[Evidence]) -> StepLabel:
    word = entry.get("verdict")
    try:
        verdict = Verdict(word.strip().lower() if isinstance(word, str) else "")
    except ValueError:
        raise UnreadableReply(f"step {entry.get('step')} has the verdict '{word}'"[:200]) from None
    reasoning = _clean(entry.get("reasoning"))
    return StepLabel(verdict, reasoning=reasoning, quote=_quote(entry, shown))


def _quote(entry: Mapping[str, Any], shown: Sequence[Evidence]) -> Quote | None:
    """The quote, looked up in the document that it cites and nowhere else."""
    text = _clean(entry.get("quote"))
    if text is None:
        return None
    document = _number(entry.get("document"))
    if document is None or not 1 <= document <= len(shown):
        known = document if document is not None and 0 < document < 10_000 else None
        return Quote(text, known, verified=False)
    passage = shown[document - 1].passage.text
    match = verify_quote(text, passage) or verify_quote(unescape_markers(text), passage)
    if match is None:
        return Quote(text, document, verified=False)
    return Quote(text, document, True, match.start, match.end, match.method)


def _clean(value: object) -> str | None:
    """The text without what no database stores (NUL, lone surrogates); None for nothing."""
    if not isinstance(value, str) or value.strip().lower() in {"", "null", "none", "n/a"}:
        return None
    return _UNSTORABLE.sub("\ufffd", value.strip())


def _tally(steps: Sequence[StepLabel]) -> dict[str, int]:
    verified = sum(step.quote is not None and step.quote.verified for step in steps)
    absent = sum(step.quote is None for step in steps)
    return {
        "verified": verified,
        "unverified": len(steps) - verified - absent,
        "absent": absent,
    }
