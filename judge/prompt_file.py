"""A judge's prompt as a text file: sections, placeholders, and the tags that delimit material.

Text from documents, questions and traces must not imitate those tags. Escaped are every tag that
structures the prompt, in any spelling (case, spaces, full-width letters, look-alike angle brackets,
invisible characters in between), and the marks by which chat templates separate turns, roles,
images and tools. Plain words are left alone: a sentence that gives the judge orders stays a
sentence between two tags.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from judge.protocol import GROUNDED, PromptProtocol, filled
from traces import InputError

TAGS = ("documents", "document", "question", "solution", "steps", "step", "system")
"""Tags that structure the prompt; the text between them is material, never an instruction."""

_LOOK_ALIKES = "<＜﹤‹〈〈⟨❬❰❮⧼˂ᐸ≺"
"""Characters that look like an opening angle bracket."""
_TURN_MARKS = re.compile(
    r"(?P<open><)(?=[|｜]|/?s>|<?/?sys>|/?think>|/?(?:bos|eos|pad|unk|mask)>"
    r"|/?(?:start|end)_of_(?:turn|image)>|/?(?:image|img|video|audio)(?:_soft_token)?>"
    r"|/?tool_(?:call|response)>)"
    r"|\[(?=/?(?:inst|system_prompt|available_tools|tool_calls|tool_results|img)\])",
    re.IGNORECASE,
)
"""Marks of common chat templates; some tokenizers read them as control tokens inside text."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_IGNORABLE = frozenset(
    map(chr, [0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0,
              *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)  # fmt: skip
"""Invisible letters and marks: fillers and variation selectors, which can carry bytes."""
_SLASH = re.compile(r"\s*[/\\／＼∕⁄]?\s*")
"""What may come between a bracket and the name."""
_LONGEST_NAME = 64
"""Characters of a name that are compared."""


def escape_markers(text: str, tags: frozenset[str] = frozenset(TAGS)) -> str:
    """The text with imitated tags escaped and invisible characters removed.

    `<` becomes `&lt;` (and `[` `&#91;`) only where it opens one of `tags` or a turn mark, so
    `CRP < 5` stays as it is. Control, format and other invisible characters are removed: they can
    hide text from people, or split a tag so that only a model reads it.

    Args:
        text: the material.
        tags: lower-case names of the tags that structure the prompt.
    """
    if text.isascii() and text.isprintable() and "<" not in text and "[" not in text:
        return text
    visible = "".join(
        c
        for c in text
        if c in "\n\t" or (unicodedata.category(c) not in _HIDDEN and c not in _IGNORABLE)
    )
    pieces: list[str] = []
    done = 0
    for found in _opening().finditer(visible):
        if _opens_tag(visible, found.start(), tags):
            pieces += [visible[done : found.start()], "&lt;"]
            done = found.end()
    escaped = "".join([*pieces, visible[done:]])
    return without_turns(escaped)


def without_turns(text: str) -> str:
    """The text with the marks by which chat templates separate turns escaped, nothing else."""
    return _TURN_MARKS.sub(lambda mark: "&lt;" if mark["open"] else "&#91;", text)


def escape_attribute(text: str, tags: frozenset[str] = frozenset(TAGS)) -> str:
    """The text for use between double quotes in a tag: one line, no quote or angle bracket."""
    line = " ".join(escape_markers(text, tags).split())
    line = line.replace('"', "'").replace("<", "&lt;").replace(">", "&gt;")
    return "".join("&lt;" if character in _LOOK_ALIKES else character for character in line)


def unescape_markers(text: str) -> str:
    """The inverse of `escape_markers`: a judge quotes `&lt;` where the passage has `<`."""
    return html.unescape(text)


@lru_cache(maxsize=1)
def _opening() -> re.Pattern[str]:
    return re.compile(f"[{re.escape(_LOOK_ALIKES)}]")


@lru_cache(maxsize=64)
def _names(tags: frozenset[str]) -> re.Pattern[str]:
    listed = "|".join(sorted(map(re.escape, tags), key=len, reverse=True))
    return re.compile(rf"(?:{listed})(?![\w-])", re.IGNORECASE)


def _opens_tag(text: str, bracket: int, tags: frozenset[str]) -> bool:
    """Whether the bracket opens one of the tags, in any letters that look the same."""
    slash = _SLASH.match(text, bracket + 1)
    start = bracket + 1 if slash is None else slash.end()
    plain = unicodedata.normalize("NFKC", text[start : start + _LONGEST_NAME])
    return _names(tags).match(plain) is not None


_SECTION = re.compile(r"^--- (.+) ---\n", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_TAG = re.compile(r"</?([A-Za-z][\w-]*)\b")
USER, ONE_STEP, NO_DOCUMENTS = "user", "one step", "no documents"
_SECTIONS = ("system", USER, NO_DOCUMENTS)
"""Sections of a grounded judge's prompt, all required; other readers need one of two user turns."""
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    USER: ("documents", "question", "steps", "step_count"),
    ONE_STEP: ("documents", "question", "steps", "step_number"),
}
"""Placeholders that a section may have; `step_count` would reveal that further steps follow."""
_OPTIONAL = frozenset({"step_count"})
_OFFICIAL = ("problem", "tagged_response")
"""Placeholders of the template of QwenLM/ProcessBench (code/templates/critique_template.txt)."""
CRITIC = PromptProtocol(
    reader="boxed-index",
    step="<paragraph_{number}>\n{step}\n</paragraph_{number}>",
    separator="\n\n",
    first=0,
    voting="most-common",
    votes_temperature=1.0,
    votes_top_p=0.9,
)
"""ProcessBench's critic: how code/run_eval.py tags paragraphs, samples, reads and votes."""
_KNOWN = frozenset(name for names in _ALLOWED.values() for name in names)


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """A judge's prompt, checked for its sections and placeholders."""

    system: str
    """The system turn; empty for none."""
    user: str | None
    """The user turn for a trace: {documents}, {question}, {steps}, optionally {step_count}."""
    no_documents: str
    """The text in place of the documents if there are none."""
    sha256: str
    """Hash of the file's text; part of the labeler's configuration."""
    one_step: str | None = None
    """The user turn for one step, {step_number} last; None if the file has no such section."""
    text: str = field(default="", repr=False)
    """The whole file, stored under its hash, so that a run's prompt can be looked up."""
    tags: frozenset[str] = frozenset(TAGS)
    """Tag names that structure this prompt; material that imitates one is escaped."""
    protocol: PromptProtocol = GROUNDED
    """How steps are shown and replies are read."""

    @property
    def shows_documents(self) -> bool:
        """Whether the prompt has a place for documents."""
        return "{documents}" in f"{self.user}{self.one_step}"

    @classmethod
    def parse(cls, text: str, *, where: str) -> JudgePrompt:
        """Read a prompt file: settings (`judge.protocol`), then sections.

        Each section comes after a line `--- name ---`. A file without sections that has the
        placeholders of ProcessBench's official template is that template, filled to the letter.

        Args:
            text: the file's text.
            where: the path as the user gave it, for messages.

        Raises:
            InputError: a section is missing or unknown, or placeholders are missing, unknown or
                misplaced; the message lists all of them, `where` has the line of the first.
        """
        first = _SECTION.search(text)
        if first is None and all(f"{{{name}}}" in text for name in _OFFICIAL):
            return cls._official(text)
        protocol = PromptProtocol.parse(text[: first.start()] if first else "", where=where)
        grounded = protocol.reader == "json"
        sections = _sections(text, where, grounded=grounded)
        optional = _OPTIONAL if grounded else _OPTIONAL | {"documents"}
        faults = sorted(
            fault
            for name, (body, line) in sections.items()
            for fault in _faults(name, body, line, optional=optional)
        )
        if faults:
            raise InputError(
                "The judge's prompt has wrong placeholders: " + "; ".join(why for _, why in faults),
                where=f"{where}:{faults[0][0]}",
                remedy="section 'user' takes {documents} {question} {steps} and optionally "
                "{step_count}; section 'one step' takes {documents} {question} {steps} "
                "{step_number}",
            )
        bodies = {name: body.strip() for name, (body, _) in sections.items()}
        written = "\n".join([*bodies.values(), protocol.step])
        own_tags = {name.lower() for name in _TAG.findall(written)}
        return cls(
            system=bodies.get("system", ""),
            user=bodies.get(USER),
            no_documents=bodies.get(NO_DOCUMENTS, ""),
            sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
            one_step=bodies.get(ONE_STEP),
            text=text,
            tags=frozenset(TAGS) | own_tags,
            protocol=protocol,
        )

    @classmethod
    def _official(cls, text: str) -> JudgePrompt:
        """ProcessBench's template: one user turn, formatted by `str.format`."""
        user = filled(text.strip(), {"problem": "{question}"})
        user = user.replace("{tagged_response}", "{steps}").replace("{{", "{").replace("}}", "}")
        return cls(
            system="",
            user=user,
            no_documents="",
            sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
            text=text,
            protocol=replace(CRITIC, verbatim=True),
        )

    def fill(self, values: Mapping[str, str]) -> str:
        """The user turn for a trace, filled in one pass: placeholders in values are not filled.

        Raises:
            InputError: the prompt has no section 'user'.
        """
        if self.user is None:
            raise InputError(
                "The judge's prompt has no section for judging a whole trace per call.",
                remedy=f"add one after '--- {USER} ---', or add --granularity step",
            )
        return _fill(self.user, values)

    def fill_one_step(self, values: Mapping[str, str]) -> str:
        """The user turn for one step, filled the same way.

        Raises:
            InputError: the prompt has no section 'one step'.
        """
        if self.one_step is None:
            raise InputError(
                "The judge's prompt has no section for judging one step per call.",
                remedy=f"add one after '--- {ONE_STEP} ---', or leave --granularity out",
            )
        return _fill(self.one_step, values)


def read_prompt(path: Path | None) -> JudgePrompt:
    """A custom prompt; the packaged one if `path` is None.

    Raises:
        InputError: the file cannot be read, or is not a judge's prompt.
    """
    if path is None:
        return packaged_prompt()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "it is not UTF-8 text"
        raise InputError(
            f"The judge's prompt cannot be read: {why}.",
            where=str(path),
            remedy="give a readable UTF-8 text file",
        ) from fault
    if "\0" in text:
        raise InputError("The judge's prompt contains a NUL byte.", where=str(path))
    return JudgePrompt.parse(text, where=str(path))


BUILT_IN: Mapping[str, str] = {"grounded": "prompt.txt", "processbench-critic": "critic.txt"}
"""Prompts that StepGold ships: name and file."""


@cache
def packaged_prompt(name: str = "grounded") -> JudgePrompt:
    """The prompt that StepGold ships under a name of `BUILT_IN`."""
    file = BUILT_IN[name]
    text = files("judge").joinpath(file).read_text(encoding="utf-8")
    return JudgePrompt.parse(text, where=f"judge/{file}")


def _sections(text: str, where: str, *, grounded: bool) -> dict[str, tuple[str, int]]:
    """Section by name: its body and the 1-based line on which it starts."""
    marks = list(_SECTION.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)][: len(marks)]
    names = [mark[1] for mark in marks]
    found = {
        mark[1]: (text[mark.end() : end], text.count("\n", 0, mark.end()) + 1)
        for mark, end in zip(marks, ends, strict=True)
    }
    shown = any("{documents}" in body for body, _ in found.values())
    needed = _SECTIONS if grounded else (NO_DOCUMENTS,) if shown else ()
    faults = [f"'{name}' is missing" for name in needed if name not in found]
    if not grounded and USER not in found and ONE_STEP not in found:
        faults.append(f"'{USER}' is missing")
    faults += [f"'{n}' is unknown" for n in found if n not in (*_SECTIONS, ONE_STEP)]
    faults += [f"'{name}' appears twice" for name in sorted(set(names)) if names.count(name) > 1]
    faults += [f"'{name}' is empty" for name, (body, _) in found.items() if not body.strip()]
    if faults:
        raise InputError(
            "The judge's prompt has wrong sections: " + ", ".join(faults) + ".",
            where=where,
            remedy="write each section after its line: "
            + ", ".join(f"'--- {name} ---'" for name in _SECTIONS)
            + f"; '--- {ONE_STEP} ---' is optional",
        )
    return found


def _faults(
    section: str, body: str, first_line: int, *, optional: frozenset[str]
) -> list[tuple[int, str]]:
    """The faults in the placeholders of a section, each with its 1-based line."""
    places = [(found[1], found.start()) for found in _PLACEHOLDER.finditer(body)]
    allowed = _ALLOWED.get(section, ())

    def line(offset: int) -> int:
        return first_line + body.count("\n", 0, offset)

    faults = [
        (line(at), f"'{{{name}}}' (line {line(at)}) is not filled in section '{section}'")
        for name, at in places
        # In other sections only known names are meant as placeholders: {x} may be LaTeX.
        if name not in allowed and (allowed or name in _KNOWN)
    ]
    present = {name for name, _ in places}
    faults += [
        (first_line, f"'{{{name}}}' is missing from section '{section}' (line {first_line})")
        for name in allowed
        if name not in present and name not in optional
    ]
    number = next((at for name, at in places if name == "step_number"), None)
    if section == ONE_STEP and number is not None:
        after = [name for name, at in places if at > number and name != "step_number"]
        if after:
            why = f"'{{step_number}}' (line {line(number)}) comes before '{{{after[0]}}}'"
            faults.append((line(number), f"{why}: no two steps would share a cached prefix"))
    return faults


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)


NO_EVIDENCE = "no_evidence"
"""A judge's answer, instead of a verdict, on a claim that nothing shown settles."""

ANSWERS = ("correct", "incorrect", "neutral", NO_EVIDENCE)
"""The values of `verdict`. The last is an abstention, offered as a choice because a judge that
cannot say "I cannot know" gives a verdict instead."""

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
"""The judge's reply. Models write fields in this order, so the verdict comes last."""
