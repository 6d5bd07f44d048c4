"""The shape of a judge's reply (design.md section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_EVIDENCE = "no_evidence"
"""What a judge answers in place of a verdict on a claim that nothing shown decides."""

ANSWERS = ("correct", "incorrect", "neutral", NO_EVIDENCE)
"""What may stand under `verdict`. The first three are verdicts; the last is an abstention, offered
among them because a judge that has no place to say "I cannot know" writes a verdict instead."""

REPLY_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "steps": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "step": {"type": "integer"},
                    "document": {"type": ["integer", "null"]},
                    "quote": {"type": ["string", "null"]},
                    "reasoning": {"type": "string"},
                    "verdict": {"type": "string", "enum": list(ANSWERS)},
                },
                "required": ["step", "document", "quote", "reasoning", "verdict"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["steps"],
    "additionalProperties": False,
}
"""The judge's reply. Models write in this order: the verdict comes last."""
