"""What is really sent to the judge: a text file with placeholders, filled with escaped material."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from inference.protocol import GenerationRequest, Message
from judge.markers import escape_attribute, escape_markers
from judge.tokens import estimate_tokens
from retrieval.packing import PackedEvidence, pack_evidence
from traces.context import TraceInContext
from traces.errors import InputError
from traces.evidence import Evidence
from traces.problem import Problem

_SECTION = re.compile(r"^--- (.+) ---\n", re.MULTILINE)
_SECTIONS = ("system", "user", "no documents")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_REQUIRED = frozenset({"documents", "question", "steps"})
_KNOWN = _REQUIRED | {"step_count"}

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
                    "verdict": {"type": "string", "enum": ["correct", "incorrect", "neutral"]},
                },
                "required": ["step", "document", "quote", "reasoning", "verdict"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["steps"],
    "additionalProperties": False,
}
"""The judge's reply (design.md section 3). Models write in this order: the verdict comes last."""


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """A judge's prompt, checked for its sections and placeholders."""

    system: str
    """The system turn."""
    user: str
    """The user turn, with {documents}, {question} and {steps} ({step_count} may be used)."""
    no_documents: str
    """What stands in place of the documents where there are none."""
    sha256: str
    """Hash of the file's text; part of the labeler's configuration."""

    @classmethod
    def parse(cls, text: str, *, where: str) -> JudgePrompt:
        """Read a prompt file: three sections, each under a line `--- name ---`.

        Args:
            text: the file's text.
            where: the file as the user named it, for messages.

        Raises:
            InputError: a section or a placeholder is missing, or one is unknown.
        """
        head, *rest = _SECTION.split(text)
        sections = {name: body.strip() for name, body in zip(rest[::2], rest[1::2], strict=True)}
        if head.strip() or sorted(sections) != sorted(_SECTIONS) or not all(sections.values()):
            raise InputError(
                "The judge's prompt does not consist of its sections.",
                where=where,
                remedy="write them under the lines "
                + ", ".join(f"'--- {name} ---'" for name in _SECTIONS),
            )
        _check_placeholders(sections["user"], where)
        digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
        return cls(sections["system"], sections["user"], sections["no documents"], digest)

    def fill(self, values: Mapping[str, str]) -> str:
        """The user turn with its placeholders filled, in one pass: values are never filled again."""
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self.user)


def _check_placeholders(user: str, where: str) -> None:
    found = set(_PLACEHOLDER.findall(user))
    if missing := sorted(_REQUIRED - found):
        raise InputError(
            f"The judge's prompt lacks the placeholder '{{{missing[0]}}}'.",
            where=where,
            remedy="put it into the section '--- user ---'",
        )
    if unknown := sorted(found - _KNOWN):
        raise InputError(
            f"The judge's prompt has the unknown placeholder '{{{unknown[0]}}}'.",
            where=where,
            remedy="use only " + ", ".join(f"{{{name}}}" for name in sorted(_KNOWN)),
        )


@cache
def packaged_prompt() -> JudgePrompt:
    """The prompt that StepGold ships, `judge/prompt.txt`."""
    text = files("judge").joinpath("prompt.txt").read_text(encoding="utf-8")
    return JudgePrompt.parse(text, where="judge/prompt.txt")


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """How the judge is asked; stored with the labeler."""

    prompt: JudgePrompt = field(default_factory=packaged_prompt)
    """The prompt."""
    evidence_tokens: int = 3072
    """Token budget of the documents, wrappers included (estimated, see judge/tokens.py)."""
    max_tokens: int = 8192
    """Limit of the reply, thinking included."""
    temperature: float | None = 0.0
    """Sampling temperature; None leaves the service's default."""

    @classmethod
    def from_prompt_file(
        cls, path: Path | None, *, evidence_tokens: int = 3072, max_tokens: int = 8192
    ) -> JudgeConfig:
        """A configuration with a user's own prompt; None takes the packaged one.

        Raises:
            InputError: the file cannot be read, or is not a judge's prompt.
        """
        if path is None:
            prompt = packaged_prompt()
        else:
            try:
                prompt = JudgePrompt.parse(path.read_text(encoding="utf-8"), where=str(path))
            except (OSError, UnicodeDecodeError) as fault:
                why = fault.strerror if isinstance(fault, OSError) else "it is no UTF-8 text"
                raise InputError(
                    f"The judge's prompt cannot be read: {why}.",
                    where=str(path),
                    remedy="give a readable UTF-8 text file",
                ) from fault
        return cls(prompt, evidence_tokens, max_tokens)

    def as_dict(self) -> dict[str, Any]:
        """The configuration as the labeler stores it; the prompt stands as its hash."""
        return {
            "prompt_sha256": self.prompt.sha256,
            "evidence_tokens": self.evidence_tokens,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }


@dataclass(frozen=True, slots=True)
class RenderedJudgement:
    """A request to the judge, with the evidence it really shows."""

    request: GenerationRequest
    """What is sent."""
    shown: PackedEvidence
    """The documents in the prompt's order, and what the budget left out."""


def render_judgement(context: TraceInContext, config: JudgeConfig) -> RenderedJudgement:
    """The request for one trace, and the documents that it shows.

    The gold answer is not in it. Question and documents stand first, the steps last, so that
    several traces of one problem share a prefix. Evidence that does not fit into
    `config.evidence_tokens` is left out whole and listed in `shown.skipped`.
    """
    shown = pack_evidence(
        context.evidence,
        budget=config.evidence_tokens,
        count_tokens=estimate_tokens,
        render=render_document,
    )
    steps = context.trace.steps
    user = config.prompt.fill(
        {
            "documents": shown.text.strip() or config.prompt.no_documents,
            "question": _render_question(context.problem),
            "steps": "\n".join(_render_step(number, step) for number, step in enumerate(steps, 1)),
            "step_count": str(len(steps)),
        }
    )
    request = GenerationRequest(
        messages=(Message("system", config.prompt.system), Message("user", user)),
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        response_json_schema=REPLY_SCHEMA,
        meta={"purpose": "judge", "trace_id": context.trace.id},
    )
    return RenderedJudgement(request, shown)


def render_judge_request(context: TraceInContext, config: JudgeConfig) -> GenerationRequest:
    """The request alone, as `render_judgement` makes it."""
    return render_judgement(context, config).request


def render_document(number: int, evidence: Evidence) -> str:
    """One document of the prompt under its 1-based number, wrapper included."""
    passage = evidence.passage
    source = escape_attribute(f"{passage.corpus}/{passage.document}".strip("/"))
    title = escape_attribute(passage.title)
    return (
        f'<document number="{number}" source="{source}" title="{title}">\n'
        f"{escape_markers(passage.text)}\n</document>\n"
    )


def _render_step(number: int, step: str) -> str:
    return f'<step number="{number}">{escape_markers(step)}</step>'


def _render_question(problem: Problem) -> str:
    lines = [problem.question]
    for index, option in enumerate(problem.options):
        name = ascii_uppercase[index] if index < len(ascii_uppercase) else str(index + 1)
        lines.append(f"({name}) {option}")
    return escape_markers("\n".join(lines))
