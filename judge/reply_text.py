"""The one JSON value in the text of a reply: bounded repair, and never a choice between two.

Servers without JSON schemas and small models wrap their answer: in code fences, in prose, behind a
block of thoughts, with a comma too many. Those wrappings are taken off. Nothing inside is made up:
a reply that is cut, or that holds two different answers, is unreadable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

MAX_REPLY_CHARACTERS = 1_000_000
"""A longer reply is not read: no judge needs it, and parsing must stay bounded."""
MAX_STARTS = 16
"""Places in prose where an answer may begin that are tried."""

_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"```[a-z]*[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_START = re.compile(r'\{\s*"steps"\s*:|\[\s*\{\s*"step"\s*:')
_COMMA_OR_STRING = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)


class UnreadableReply(Exception):
    """The reply is not what was asked for; the message says how."""


def read_answer(text: str | None) -> object:
    """The JSON value that the reply consists of, wrappings taken off.

    Raises:
        UnreadableReply: empty, too long, no JSON, one key given twice, or two different answers.
    """
    if text is None or not text.strip():
        raise UnreadableReply("the reply is empty")
    if len(text) > MAX_REPLY_CHARACTERS:
        raise UnreadableReply(f"the reply has {len(text)} characters")
    bare = _THOUGHTS.sub("", text.lstrip("\ufeff")).strip()
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
    """The answers inside other text: the fenced ones, else those that begin as ours must."""
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
        if start.start() < end:  # inside the answer before it
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
    """The text as JSON, at worst without its trailing commas.

    Raises:
        ValueError: it is none.
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
    """Without commas before a closing bracket; commas inside strings stay."""
    return _COMMA_OR_STRING.sub(lambda found: found[1] or "", text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise UnreadableReply("the reply gives one key twice")
    return read


def _no_constant(name: str) -> NoReturn:
    raise UnreadableReply(f"the reply holds {name}, which is not JSON")


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_unique, parse_constant=_no_constant)
