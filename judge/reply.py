"""From the text of a judge's reply to step labels: pure, bounded, and never a verdict by default."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from inference.replies import OVER_LENGTH
from judge.markers import unescape_markers
from judge.quotes import verify_quote
from judge.reply_text import UnreadableReply, read_answer
from judge.schema import NO_EVIDENCE
from traces.abstention import Abstention, AbstentionReason
from traces.evidence import Evidence, Quote
from traces.labels import StepLabel, Verdict

_DIGITS = re.compile(r"\s*(?:document|step)?\s*(\d{1,6})\s*", re.IGNORECASE)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

_ABSTENTIONS: Mapping[str, Abstention] = {
    "blocked": Abstention(AbstentionReason.BLOCKED, "the service refused to answer"),
    "length": Abstention(AbstentionReason.TRUNCATED, "the reply was cut at the token limit"),
    OVER_LENGTH: Abstention(
        AbstentionReason.OVER_LENGTH, "the prompt does not fit into the model's window"
    ),
}

Reading = tuple[StepLabel, ...] | Abstention
"""What one reply says: a label for each step asked for, in order, or why there is none."""


def read_reply(
    text: str | None,
    finish_reason: str,
    asked: Sequence[int],
    shown_evidence: Sequence[Evidence],
    *,
    require_quotes: bool = False,
) -> Reading:
    """The judge's word on every step that it was asked for, or one typed abstention.

    Tolerated: code fences and prose around the object, a bare list, trailing commas, raw line
    breaks in strings, numbers as strings, verdicts in other case, steps out of order. Not
    tolerated, and then the reply is `unreadable`: any finish but `stop`, a step that is missing,
    repeated or was not asked for, another verdict than those offered, one key given twice, two
    different answers. `no_evidence` in place of a verdict is that step's abstention.

    Args:
        text: the reply's text; None if the service returned none.
        finish_reason: `stop`, `length`, `blocked`, or the service's own word.
        asked: 0-based indices of the steps that were to be judged, in order.
        shown_evidence: the documents in the prompt, number 1 first; empty for an ungrounded call.
        require_quotes: whether an incorrect verdict without a verified quote is no verdict.
    """
    if finish_reason in _ABSTENTIONS:
        return _ABSTENTIONS[finish_reason]
    try:
        if finish_reason != "stop":
            raise UnreadableReply(f"the reply ended with '{finish_reason}', not with 'stop'")
        entries = _entries_in_order(read_answer(text), asked)
        return tuple(_step_label(entry, shown_evidence, require_quotes) for entry in entries)
    except UnreadableReply as fault:
        return Abstention(AbstentionReason.UNREADABLE, str(fault))


def count_quotes(steps: Sequence[StepLabel]) -> dict[str, int]:
    """How many steps have a verified quote, one that is not in the evidence, and none."""
    verified = sum(step.quote is not None and step.quote.verified for step in steps)
    absent = sum(step.quote is None for step in steps)
    return {
        "verified": verified,
        "unverified": len(steps) - verified - absent,
        "absent": absent,
    }


def _entries_in_order(reply: object, asked: Sequence[int]) -> list[Mapping[str, Any]]:
    """One entry per step asked for, by the step's own number; anything else is unreadable."""
    entries = reply.get("steps") if isinstance(reply, dict) else reply
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UnreadableReply("the reply has no list 'steps' of objects")
    wanted = [index + 1 for index in asked]
    by_number: dict[int, Mapping[str, Any]] = {}
    for entry in entries:
        number = _number(entry.get("step"))
        if number is None or number not in wanted:
            raise UnreadableReply(f"the reply judges a step '{entry.get('step')}'"[:200])
        if number in by_number:
            raise UnreadableReply(f"the reply judges step {number} twice")
        by_number[number] = entry
    if len(by_number) < len(wanted):
        raise UnreadableReply(f"the reply judges {len(by_number)} of {len(wanted)} steps")
    return [by_number[number] for number in wanted]


def _number(value: object) -> int | None:
    """A whole number, also as a string or a float without fraction; None for anything else."""
    if isinstance(value, str):
        found = _DIGITS.fullmatch(value)
        return int(found[1]) if found else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value % 1 == 0 else None  # infinity has no remainder


def _step_label(
    entry: Mapping[str, Any], shown: Sequence[Evidence], require_quotes: bool
) -> StepLabel:
    given = entry.get("verdict")
    word = given.strip().lower() if isinstance(given, str) else ""
    reasoning, quote = _clean(entry.get("reasoning")), _quote(entry, shown)
    if word == NO_EVIDENCE:
        return _unsupported("the judge says that nothing decides the step", reasoning, quote)
    try:
        verdict = Verdict(word)
    except ValueError:
        fault = f"step {entry.get('step')} has the verdict '{given}'"
        raise UnreadableReply(fault[:200]) from None
    if require_quotes and verdict is Verdict.INCORRECT and not (quote and quote.verified):
        why = "a quote that is not in the evidence" if quote else "no quote"
        return _unsupported(f"called incorrect with {why}", reasoning, quote)
    return StepLabel(verdict, reasoning=reasoning, quote=quote)


def _unsupported(detail: str, reasoning: str | None, quote: Quote | None) -> StepLabel:
    abstention = Abstention(AbstentionReason.NO_EVIDENCE, detail)
    return StepLabel(abstention=abstention, reasoning=reasoning, quote=quote)


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
