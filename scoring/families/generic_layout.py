"""A PRM that we do not know, as a TOML file describes it.

name = "my-prm"
prompt = "Question: {question}\\n\\nExplanation: "   # {documents} may stand in it, {question} must
step = "Step {number}: {step}"                     # default "{step}"
separator = " "                                    # before each step but the first
marker = " ки"                                     # one token, behind each step
positive = " +"                                    # one token
negative = " -"                                    # one token
read = "at"                                        # "at" the marker, or "before" it
chat = "user"                                      # steps in the "user" or "assistant" turn, or "none"
system = "You are ..."                             # optional
aggregation = "min"                                # min, product, last, mean
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

from scoring.names import FAMILY_NAMES, Aggregation, refuse_unknown
from traces import InputError

_CHAT = ("user", "assistant", "none")
_READ = ("at", "before")


@dataclass(frozen=True, slots=True)
class GenericLayout:
    """What the TOML file says."""

    name: str
    """Stored as the family."""
    prompt: str
    """Before the first step."""
    marker: str
    """Behind each step."""
    positive: str
    """Right."""
    negative: str
    """Wrong."""
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
    """How step scores become one."""

    @classmethod
    def from_file(cls, path: Path) -> GenericLayout:
        """Read and check the file.

        Raises:
            InputError: unreadable, an unknown or missing key, a text of another type, a prompt
                without `{question}`, a step without `{step}`, a choice that is none, two signs
                that are one, the name of a family that we know.
        """
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
            raise InputError(
                f"The family file cannot be read: {fault}.", where=str(path)
            ) from fault
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
            raise InputError(f'"{texts[0]}" is no text in the family file.', where=str(path))
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
                    remedy=f"take one of {', '.join(allowed)}",
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
                '"positive" and "negative" are one text in the family file.',
                where=where,
                remedy="name the token of a right step, and that of a wrong one",
            )
        if self.name in FAMILY_NAMES:
            raise InputError(
                f'The family file takes the name "{self.name}", which is a family of its own.',
                where=where,
                remedy="name it otherwise",
            )


def named_family(
    family: str | GenericLayout | None, mode: str = "strict"
) -> str | GenericLayout | None:
    """A family by name, or as its file describes it; None is to be recognised.

    Raises:
        InputError: no family has that name, and no file either, or the file is faulty; no such mode.
    """
    if isinstance(family, GenericLayout):
        return family
    refuse_unknown(family, mode)
    if family is None or family in FAMILY_NAMES:
        return family
    return GenericLayout.from_file(Path(family))
