"""How a user names a model: `gemini:NAME`, `openai:NAME`, `hf:PATH_OR_ID` or `lab`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from inference.local.vision_config import takes_images as checkpoint_takes_images
from traces import InputError

ModelKind = Literal["gemini", "openai", "hf", "lab"]

OPENAI_KEY_VARIABLE = "OPENAI_API_KEY"
OPENAI_BASE_URL_VARIABLE = "OPENAI_BASE_URL"
"""Environment variables with key and server of `openai:` models."""
GEMINI_KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
GEMINI_BASE_URL_VARIABLE = "GOOGLE_GEMINI_BASE_URL"
"""The same for `gemini:` models; the first key that is set counts."""
_FORMS = "gemini:MODEL, openai:MODEL, hf:PATH_OR_ID or lab"
_GEMINI_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as the user names it."""

    kind: ModelKind
    """The backend."""
    name: str
    """The model's name there, a folder, or a hub id; empty for `lab`."""

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Parse a model spec.

        >>> ModelSpec.parse("gemini:models/gemini-3.5-flash-lite")
        ModelSpec(kind='gemini', name='gemini-3.5-flash-lite')

        Raises:
            InputError: an unknown form or an empty name; the message lists the forms.
        """
        kind, colon, name = text.partition(":")
        name = name.strip()
        if text == "lab":
            return cls("lab", "")
        if kind not in get_args(ModelKind) or kind == "lab" or not colon or not name:
            raise InputError(f'Unknown model "{text}".', remedy=f"name it as {_FORMS}")
        if kind != "hf" and any(mark.isspace() or mark in "?#" for mark in name):
            raise InputError(
                f'The model name "{name}" contains a space, "?" or "#".',
                remedy="give the name as the service lists it",
            )
        if kind == "gemini":
            name = name.removeprefix("models/")
            if not _GEMINI_NAME.fullmatch(name) or ".." in name:
                raise InputError(
                    f'"{name}" is not a name of a Gemini model.',
                    remedy="give the name as the service lists it, such as gemini-3.5-flash-lite",
                )
        return cls(kind, name)  # type: ignore[arg-type]  # kind is one of get_args above

    @property
    def takes_images(self) -> bool | None:
        """Whether it accepts images; None if that is unknown.

        The lab's models do not. For a checkpoint, only its small files are read.
        """
        if self.kind == "hf":
            return checkpoint_takes_images(self.name)
        return self.kind in ("gemini", "openai")

    def __str__(self) -> str:
        return self.kind if self.kind == "lab" else f"{self.kind}:{self.name}"
