"""Deterministic answers to the prompts that StepGold sends: verdicts, or the end of a solution."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

_DOCUMENT = re.compile(r"<document number=\"(\d+)\"[^>]*>\n(.*?)\n</document>", re.DOTALL)
_TAGGED_STEP = re.compile(r"<step number=\"(\d+)\">(.*?)</step>", re.DOTALL)
_PLAIN_STEP = re.compile(r"^Step (\d+):(.*)$", re.MULTILINE)
_OPTION = re.compile(r"^\(([A-Z])\) ", re.MULTILINE)

VERDICTS = ("correct", "correct", "correct", "incorrect", "neutral")


def prompt_text(body: dict[str, Any]) -> str:
    """All text of a generateContent body but the system instruction."""
    parts = [part for content in body["contents"] for part in content["parts"]]
    return "\n".join(part.get("text", "") for part in parts)


def answer_text(body: dict[str, Any]) -> str:
    """What the stub's model answers to a body."""
    if r"in \boxed{}" in prompt_text(body):  # a critic: no schema, the index in a box
        return r"Every paragraph holds. \boxed{-1}"
    config = body.get("generationConfig", {})
    schema = config.get("responseJsonSchema") or config.get("response_json_schema")
    prompt = prompt_text(body)
    if schema and "steps" in schema.get("properties", {}):
        entry = schema["properties"]["steps"]["items"]
        return json.dumps({"steps": verdicts(prompt, entry.get("required"))})
    number = _hash(prompt + str(config.get("seed")))
    options = _OPTION.findall(prompt)
    final = options[number % len(options)] if options else str(number % 100)
    return f"So the rest follows.\nThe answer is {final}."


def verdicts(prompt: str, order: list[str] | None = None) -> list[dict[str, Any]]:
    """One entry per numbered step; verdict and cited document follow from the step's text."""
    documents = _DOCUMENT.findall(prompt)
    entries = []
    for number, text in _TAGGED_STEP.findall(prompt) or _PLAIN_STEP.findall(prompt):
        chance = _hash(text)
        cited = documents[chance % len(documents)] if documents else None
        entry = {
            "step": int(number),
            "document": int(cited[0]) if cited else None,
            "quote": " ".join(cited[1].split()[:12]) if cited else None,
            "reasoning": f"Step {number} was compared with the documents.",
            "verdict": VERDICTS[chance % len(VERDICTS)],
        }
        entries.append({name: entry[name] for name in order} if order else entry)
    return entries


def full_reply(body: dict[str, Any], model: str) -> dict[str, Any]:
    """A whole generateContent reply, cut at stop sequences and at the token limit."""
    config = body.get("generationConfig", {})
    text, finish = answer_text(body), "STOP"
    for mark in config.get("stopSequences", []):
        text = text.partition(mark)[0]
    limit = 4 * config.get("maxOutputTokens", 1 << 20)
    if len(text) > limit:
        text, finish = text[:limit], "MAX_TOKENS"
    content = {"parts": [{"text": text}], "role": "model"}
    prompt_tokens, reply_tokens = count_tokens(prompt_text(body)), count_tokens(text)
    return {
        "candidates": [{"content": content, "finishReason": finish, "index": 0}],
        "usageMetadata": {
            "promptTokenCount": prompt_tokens,
            "candidatesTokenCount": reply_tokens,
            "totalTokenCount": prompt_tokens + reply_tokens,
        },
        "modelVersion": model,
        "responseId": f"stub-{_hash(text)}",
    }


def count_tokens(text: str) -> int:
    """Four characters a token, at least one."""
    return max(1, len(text) // 4)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big")
