"""The description of a PRM in a TOML file.

name = "my-prm"
prompt = "Question: {question}\\n\\nExplanation: "   # {documents} is optional, {question} required
step = "Step {number}: {step}"                     # default "{step}"
separator = " "                                    # before each step but the first
marker = " ки"                                     # one token, after each step
positive = " +"                                    # one token
negative = " -"                                    # one token
read = "at"                                        # "at" the marker, or "before" it
chat = "user"                                      # turn of the steps: "user", "assistant", "none"
system = "You are ..."                             # optional
aggregation = "min"                                # min, product, last, mean
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

from scoring.generative import GenerativeFamily, packaged_family, read_table
from scoring.names import FILE_ENDING, GENERATIVE, Aggregation, known_families, refuse_unknown
from traces import InputError

_CHAT = ("user", "assistant", "none")
_READ = ("at", "before")


@dataclass(frozen=True, slots=True)
class GenericLayout:
    """The content of the TOML file."""

    name: str
    """Stored as the family."""
    prompt: str
    """Before the first step."""
    marker: str
    """After each step."""
    positive: str
    """Token of a correct step."""
    negative: str
    """Token of an incorrect step."""
    step: str = "{step}"
    """How a step is written; `{number}` is 1-based."""
    separator: str = " "
    """Before each step but the first."""
    read: str = "at"
    """`at` the marker, or `before` it (where the marker is what the model answers)."""
    chat: str = "user"
    """The turn that holds the steps, or `none` for no chat template."""
    system: str = ""
    """System turn; empty for none."""
    aggregation: str = "min"

    @classmethod
    def from_file(cls, path: Path) -> GenericLayout:
        """Read and check the file.

        Raises:
            InputError: the file is unreadable, a key is unknown, missing or not a string, the
                prompt lacks `{question}` or the step `{step}`, a choice is invalid, both verdict
                tokens are equal, or the name is taken by another family.
        """
        table = read_table(path)
        known = {field.name for field in fields(cls)}
        needed = {"name", "prompt", "marker", "positive", "negative"}
        for what, keys in (("an unknown", set(table) - known), ("no", needed - set(table))):
            if keys:
                raise InputError(
                    f'The family file has {what} key "{min(keys)}".',
                    where=str(path),
                    remedy=f"the keys are {', '.join(sorted(known))}",
                )
        texts = [key for key, value in table.items() if not isinstance(value, str)]
        if texts:
            raise InputError(f'"{texts[0]}" is not a string in the family file.', where=str(path))
        layout = cls(**table)
        layout._check(str(path))
        return layout

    def _check(self, where: str) -> None:
        choices = {
            "read": (self.read, _READ),
            "chat": (self.chat, _CHAT),
            "aggregation": (self.aggregation, get_args(Aggregation)),
        }
        for key, (value, allowed) in choices.items():
            if value not in allowed:
                raise InputError(
                    f'"{key}" is "{value}" in the family file.',
                    where=where,
                    remedy=f"choose one of {', '.join(allowed)}",
                )
        for key, text, place in (("prompt", self.prompt, "question"), ("step", self.step, "step")):
            if f"{{{place}}}" not in text:
                raise InputError(f'"{key}" lacks {{{place}}} in the family file.', where=where)
        empty = [
            key for key in ("name", "marker", "positive", "negative") if not getattr(self, key)
        ]
        if empty:
            raise InputError(f'"{empty[0]}" is empty in the family file.', where=where)
        if self.positive == self.negative:
            raise InputError(
                '"positive" and "negative" are the same in the family file.',
                where=where,
                remedy="give the token of a correct step and that of an incorrect one",
            )
        if self.name in known_families():
            raise InputError(
                f'The family file uses the name "{self.name}" of another family.',
                where=where,
                remedy="choose another name",
            )


NamedFamily = str | GenericLayout | GenerativeFamily
"""A discriminative family's name, or the content of a file."""


def named_family(family: NamedFamily | None, mode: str = "strict") -> NamedFamily | None:
    """Return a family's name, or its content if it is data; None if it is to be detected.

    Raises:
        InputError: no family has that name, the file is missing or faulty, or no such mode.
    """
    if isinstance(family, GenericLayout | GenerativeFamily):
        return family
    refuse_unknown(family, mode)
    if family in GENERATIVE:
        return packaged_family(str(family))
    if family is None or not family.endswith(FILE_ENDING):
        return family
    table = read_table(Path(family))
    if "turns" not in table:
        return GenericLayout.from_file(Path(family))
    described = GenerativeFamily.parse(table, where=family)
    if described.name in known_families():
        raise InputError(
            f'The family file uses the name "{described.name}" of another family.',
            where=family,
            remedy="choose another name",
        )
    return described
