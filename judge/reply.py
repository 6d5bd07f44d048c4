"""From the text of a judge's reply to step labels: pure, bounded, and never a verdict by default.

Servers without JSON schemas and small models wrap their JSON in code fences, prose or a block of
thoughts, or add trailing commas. Such wrappings are removed; nothing inside is made up. A reply
that is truncated, or that contains two different answers, is unreadable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from inference import OVER_LENGTH
from judge.prompt_file import NO_EVIDENCE, unescape_markers
from judge.protocol import GROUNDED, PromptProtocol, UnreadableReply, first_token_probability
from judge.quotes import verify_quote
from traces import (
    Abstention,
    AbstentionReason,
    Evidence,
    Quote,
    StepLabel,
    TraceLabel,
    Verdict,
    record_defect,
)

MAX_REPLY_CHARACTERS = 1_000_000
"""Longer replies are not parsed: no judge needs them, and parsing must stay bounded."""
MAX_STARTS = 16
"""Maximum number of places in prose at which an answer is tried."""

_THOUGHT_END = re.compile(r"</think>", re.IGNORECASE)
_FENCED = re.compile(r"```[a-z]*[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_START = re.compile(r'\{\s*"steps"\s*:|\[\s*\{\s*"step"\s*:')
_COMMA_OR_STRING = re.compile(r'("(?:[^"\\]++|\\.)*+(?:"|\\?\Z))|,(?=\s*[}\]])', re.DOTALL)
"""A string that is never closed is one match up to the end, so that it is scanned only once."""


def read_answer(text: str | None) -> object:
    """The JSON value in the reply, without its wrappings.

    Raises:
        UnreadableReply: empty, too long, not JSON, a repeated key, or two different answers.
    """
    bare = answer_text(text)
    try:
        return _loads(bare)
    except ValueError as error:
        fault = f"the reply is not JSON: {error}"
    answers: list[object] = []
    for answer in _embedded(bare):
        if answer not in answers:
            answers.append(answer)
    if len(answers) > 1:
        raise UnreadableReply("the reply holds two different answers")
    if not answers:
        raise UnreadableReply(fault)
    return answers[0]


def _embedded(text: str) -> Iterator[object]:
    """The answers in other text: fenced blocks, else whatever starts like the schema's object."""
    found = False
    for body in _FENCED.findall(text)[:MAX_STARTS]:
        try:
            answer = _loads(body.strip())
        except ValueError:
            continue
        found = True
        yield answer
    if found:
        return
    end = 0
    for start in list(_START.finditer(text))[:MAX_STARTS]:
        if start.start() < end:  # inside the previous answer
            continue
        for candidate in (text[start.start() :], _without_commas(text[start.start() :])):
            try:
                answer, length = _DECODER.raw_decode(candidate)
            except RecursionError:
                raise UnreadableReply("the reply is nested too deeply") from None
            except ValueError:
                continue
            end = start.start() + length
            yield answer
            break


def _loads(text: str) -> object:
    """The text as JSON, if necessary without its trailing commas.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise UnreadableReply("the reply is nested too deeply") from None
    except ValueError:
        repaired = _without_commas(text)
        if repaired == text:
            raise
    return _DECODER.decode(repaired)


def _without_commas(text: str) -> str:
    """The text without commas before a closing bracket, except in strings."""
    return _COMMA_OR_STRING.sub(lambda found: found[1] or "", text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise UnreadableReply("the reply gives one key twice")
    return read


def _no_constant(name: str) -> NoReturn:
    raise UnreadableReply(f"the reply holds {name}, which is not JSON")


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_unique, parse_constant=_no_constant)


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
"""What one reply says: a label for each step it was asked about, in order, or an abstention."""


def read_reply(
    text: str | None,
    finish_reason: str,
    asked: Sequence[int],
    shown_evidence: Sequence[Evidence],
    *,
    protocol: PromptProtocol = GROUNDED,
    require_quotes: bool = False,
    raw: str = "",
) -> Reading:
    """A label for every step that the judge was asked about, or one typed abstention.

    Accepted as grounded JSON: code fences and prose around the object, a bare list, trailing
    commas, raw line breaks in strings, numbers as strings, verdicts in any case, steps in any
    order. `unreadable`: any finish reason but `stop`; a step that is missing, repeated or was not
    asked about; a verdict that was not offered; a repeated key; two different answers. A step with
    `no_evidence` instead of a verdict abstains.

    Args:
        text: the reply's text; None if the service returned none.
        finish_reason: `stop`, `length`, `blocked`, or the service's own word.
        asked: 0-based indices of the steps to judge, in order.
        shown_evidence: the documents in the prompt, number 1 first; empty for an ungrounded call.
        protocol: which reader reads it.
        require_quotes: whether a step called incorrect without a verified quote abstains.
        raw: the service's body, for readers of token probabilities.
    """
    # A reply that is read by its first token is cut there on purpose.
    by_token = protocol.reader == "yes-no" and protocol.read == "token"
    if finish_reason in _ABSTENTIONS and not (by_token and finish_reason == "length"):
        return _ABSTENTIONS[finish_reason]
    try:
        if finish_reason not in ("stop", "length"):
            raise UnreadableReply(f"the reply ended with '{finish_reason}', not with 'stop'")
        if by_token:
            return (_by_first_token(raw, protocol),)
        if protocol.reader == "json":
            entries = _entries_in_order(read_answer(text), asked)
            return tuple(
                _step_label(entry, shown_evidence, require_quotes=require_quotes)
                for entry in entries
            )
        bare = answer_text(text)
        return _unquoted(protocol.verdicts(bare, len(asked)), bare)
    except UnreadableReply as fault:
        return Abstention(AbstentionReason.UNREADABLE, str(fault))
    except Exception as fault:
        # No reply of a model may end a run, whatever we forgot about it.
        return Abstention(AbstentionReason.UNREADABLE, record_defect(fault, "a judge's reply"))


def answer_text(text: str | None) -> str:
    """The reply's text without the thought before it, which is never read as a verdict.

    The opening tag may be missing, because some templates put it into the prompt.

    Raises:
        UnreadableReply: empty, too long, or a thought without an end.
    """
    if text is None or not text.strip():
        raise UnreadableReply("the reply is empty")
    if len(text) > MAX_REPLY_CHARACTERS:
        raise UnreadableReply(f"the reply has {len(text)} characters")
    bare = text.lstrip("\ufeff").strip()
    if bare[:1] in ("{", "[", "`"):  # an answer, whose texts may hold anything
        return bare
    opens = bare[:7].casefold() == "<think>"
    end = _THOUGHT_END.search(bare)
    if opens and end is None:
        raise UnreadableReply("the reply is a thought without an end")
    is_thought = end is not None and (opens or "<think>" not in bare[: end.start()].casefold())
    return bare[end.end() :].strip() if end is not None and is_thought else bare


def said_in(text: str | None, protocol: PromptProtocol) -> str | None:
    """What a reply counts under where the most common answer wins; None if it says nothing."""
    try:
        return protocol.answer(answer_text(text))
    except UnreadableReply:
        return None


def _by_first_token(raw: str, protocol: PromptProtocol) -> StepLabel:
    score = first_token_probability(raw, *protocol.words)
    if score is None:
        raise UnreadableReply("the service lists neither word among its first token's candidates")
    return StepLabel(Verdict.CORRECT if score >= 0.5 else Verdict.INCORRECT, score=score)


def _unquoted(verdicts: Sequence[Verdict | None], text: str) -> tuple[StepLabel, ...]:
    """Labels without quotes; the critique belongs to the first step that it calls incorrect."""
    wrong = verdicts.index(Verdict.INCORRECT) if Verdict.INCORRECT in verdicts else None
    if len(verdicts) == 1:
        wrong = 0
    open_step = Abstention(AbstentionReason.NOT_MEASURED, "the reply stops at the first error")
    return tuple(
        StepLabel(verdict, reasoning=_clean(text) if t == wrong else None)
        if verdict is not None
        else StepLabel(abstention=open_step)
        for t, verdict in enumerate(verdicts)
    )


def label_readings(
    trace_id: str,
    readings: Sequence[Reading],
    *,
    grounded: bool,
    resolved_model: str | None = None,
) -> TraceLabel:
    """The label that the readings of a trace's calls add up to.

    A step whose call has no reading abstains; if no call has one, the whole label is an abstention.

    Args:
        trace_id: the trace.
        readings: one for the whole trace, or one per step in order.
        grounded: whether the calls showed documents.
        resolved_model: the model version that answered.

    Returns:
        A label whose meta holds `grounded`, the counts `quotes` and, if known, `resolved_model`.
    """
    more = {} if resolved_model is None else {"resolved_model": resolved_model}
    faults = [reading for reading in readings if isinstance(reading, Abstention)]
    if len(faults) == len(readings):
        return TraceLabel(trace_id, abstention=faults[0], meta=more)
    steps = tuple(
        step
        for reading in readings
        for step in (
            (StepLabel(abstention=reading),) if isinstance(reading, Abstention) else reading
        )
    )
    return TraceLabel(
        trace_id, steps, meta={"grounded": grounded, "quotes": count_quotes(steps), **more}
    )


def count_quotes(steps: Sequence[StepLabel]) -> dict[str, int]:
    """Number of steps with a verified quote, with one that is not in the evidence, and without."""
    verified = sum(step.quote is not None and step.quote.verified for step in steps)
    absent = sum(step.quote is None for step in steps)
    return {
        "verified": verified,
        "unverified": len(steps) - verified - absent,
        "absent": absent,
    }


def _entries_in_order(reply: object, asked: Sequence[int]) -> list[Mapping[str, Any]]:
    """One entry per step asked about, by the step's number; anything else is unreadable."""
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
    """A whole number, also as a string or a float; None for anything else."""
    if isinstance(value, str):
        found = _DIGITS.fullmatch(value)
        return int(found[1]) if found else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value % 1 == 0 else None  # infinity has no remainder


def _step_label(
    entry: Mapping[str, Any], shown: Sequence[Evidence], *, require_quotes: bool
) -> StepLabel:
    given = entry.get("verdict")
    wanted = given.strip().lower() if isinstance(given, str) else ""
    reasoning, quote = _clean(entry.get("reasoning")), _quote(entry, shown)
    if wanted == NO_EVIDENCE:
        return _unsupported("the judge found no evidence that settles the step", reasoning, quote)
    try:
        verdict = Verdict(wanted)
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
    """The quote, verified against the document that it cites and no other."""
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
    return Quote(
        text,
        document,
        verified=True,
        start=match.start,
        end=match.end,
        method=match.method,
    )


def _clean(value: object) -> str | None:
    """The text with NUL and lone surrogates, which no database stores, replaced; None if empty."""
    if not isinstance(value, str) or value.strip().lower() in {"", "null", "none", "n/a"}:
        return None
    return _UNSTORABLE.sub("\ufffd", value.strip())
