"""A judge's prompt as a text file: its sections, its placeholders, its own tags."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from judge.markers import TAGS
from traces.errors import InputError

_SECTION = re.compile(r"^--- (.+) ---\n", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_TAG = re.compile(r"</?([A-Za-z][\w-]*)\b")
USER, ONE_STEP = "user", "one step"
_REQUIRED_SECTIONS = ("system", USER, "no documents")
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    USER: ("documents", "question", "steps"),
    ONE_STEP: ("documents", "question", "steps", "step_number"),
}
"""Placeholders that a section must have."""
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    USER: (*_REQUIRED[USER], "step_count"),
    ONE_STEP: _REQUIRED[ONE_STEP],
}
"""Placeholders that a section may have; a count of all steps would give the later ones away."""
_KNOWN = frozenset(name for names in _ALLOWED.values() for name in names)


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """A judge's prompt, checked for its sections and placeholders."""

    system: str
    """The system turn."""
    user: str
    """The user turn for a whole trace, with {documents}, {question}, {steps}; {step_count} may be used."""
    no_documents: str
    """What stands in place of the documents where there are none."""
    sha256: str
    """Hash of the file's text; part of the labeler's configuration."""
    one_step: str | None = None
    """The user turn for one step, with {step_number} behind the others; None if the file has none."""
    text: str = field(default="", repr=False)
    """The whole file, stored under its hash, so that a run's prompt can be read again."""
    tags: frozenset[str] = frozenset(TAGS)
    """Tag names that structure this prompt; material that imitates one is escaped."""

    @classmethod
    def parse(cls, text: str, *, where: str) -> JudgePrompt:
        """Read a prompt file: sections, each under a line `--- name ---`.

        Args:
            text: the file's text.
            where: the file as the user named it, for messages.

        Raises:
            InputError: a section is missing or unknown, or placeholders are missing, unknown or
                misplaced; the message names all of them, `where` the line of the first.
        """
        sections = _sections(text, where)
        faults = sorted(
            fault for name, (body, line) in sections.items() for fault in _faults(name, body, line)
        )
        if faults:
            raise InputError(
                "The judge's prompt has wrong placeholders: " + "; ".join(why for _, why in faults),
                where=f"{where}:{faults[0][0]}",
                remedy="section 'user' takes {documents} {question} {steps} and may use {step_count}; "
                "section 'one step' takes {documents} {question} {steps} {step_number}",
            )
        bodies = {name: body.strip() for name, (body, _) in sections.items()}
        own_tags = {name.lower() for name in _TAG.findall("\n".join(bodies.values()))}
        return cls(
            bodies["system"],
            bodies[USER],
            bodies["no documents"],
            hashlib.sha256(text.encode("utf-8")).hexdigest(),
            bodies.get(ONE_STEP),
            text,
            frozenset(TAGS) | own_tags,
        )

    def fill(self, values: Mapping[str, str]) -> str:
        """The user turn for a trace, filled in one pass: values are never filled again."""
        return _fill(self.user, values)

    def fill_one_step(self, values: Mapping[str, str]) -> str:
        """The user turn for one step, filled likewise.

        Raises:
            InputError: the prompt has no section 'one step'.
        """
        if self.one_step is None:
            raise InputError(
                "The judge's prompt has no section for judging one step a call.",
                remedy=f"add one under '--- {ONE_STEP} ---', or leave --granularity out",
            )
        return _fill(self.one_step, values)


def read_prompt(path: Path | None) -> JudgePrompt:
    """A user's own prompt; None takes the packaged one.

    Raises:
        InputError: the file cannot be read, or is not a judge's prompt.
    """
    if path is None:
        return packaged_prompt()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "it is no UTF-8 text"
        raise InputError(
            f"The judge's prompt cannot be read: {why}.",
            where=str(path),
            remedy="give a readable UTF-8 text file",
        ) from fault
    if "\0" in text:
        raise InputError("The judge's prompt contains a NUL byte.", where=str(path))
    return JudgePrompt.parse(text, where=str(path))


@cache
def packaged_prompt() -> JudgePrompt:
    """The prompt that StepGold ships, `judge/prompt.txt`."""
    text = files("judge").joinpath("prompt.txt").read_text(encoding="utf-8")
    return JudgePrompt.parse(text, where="judge/prompt.txt")


def _sections(text: str, where: str) -> dict[str, tuple[str, int]]:
    """Section by name: its body and the 1-based line on which it begins."""
    marks = list(_SECTION.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)][: len(marks)]
    names = [mark[1] for mark in marks]
    found = {
        mark[1]: (text[mark.end() : end], text.count("\n", 0, mark.end()) + 1)
        for mark, end in zip(marks, ends, strict=True)
    }
    faults = [f"'{name}' is missing" for name in _REQUIRED_SECTIONS if name not in found]
    faults += [f"'{n}' is unknown" for n in found if n not in (*_REQUIRED_SECTIONS, ONE_STEP)]
    faults += [
        f"'{name}' stands there twice" for name in sorted(set(names)) if names.count(name) > 1
    ]
    faults += [f"'{name}' is empty" for name, (body, _) in found.items() if not body.strip()]
    if text[: marks[0].start() if marks else None].strip():
        faults.append("there is text before the first")
    if faults:
        raise InputError(
            "The judge's prompt does not consist of its sections: " + ", ".join(faults) + ".",
            where=where,
            remedy="write them under the lines "
            + ", ".join(f"'--- {name} ---'" for name in _REQUIRED_SECTIONS)
            + f"; '--- {ONE_STEP} ---' may be added",
        )
    return found


def _faults(section: str, body: str, first_line: int) -> list[tuple[int, str]]:
    """What is wrong with the placeholders of a section, each with its 1-based line."""
    places = [(found[1], found.start()) for found in _PLACEHOLDER.finditer(body)]
    allowed = _ALLOWED.get(section, ())

    def line(offset: int) -> int:
        return first_line + body.count("\n", 0, offset)

    faults = [
        (line(at), f"'{{{name}}}' (line {line(at)}) is not filled in section '{section}'")
        for name, at in places
        # elsewhere only our own names are surely meant as placeholders: {x} may be LaTeX
        if name not in allowed and (allowed or name in _KNOWN)
    ]
    present = {name for name, _ in places}
    faults += [
        (first_line, f"'{{{name}}}' is missing from section '{section}' (line {first_line})")
        for name in _REQUIRED.get(section, ())
        if name not in present
    ]
    number = next((at for name, at in places if name == "step_number"), None)
    if section == ONE_STEP and number is not None:
        after = [name for name, at in places if at > number and name != "step_number"]
        if after:
            why = f"'{{step_number}}' (line {line(number)}) stands before '{{{after[0]}}}'"
            faults.append((line(number), f"{why}: no two steps would share a cached prefix"))
    return faults


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)
