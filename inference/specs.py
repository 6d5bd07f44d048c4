"""How a user names a model: `gemini:`, `vertex:` or `openai:NAME`, `hf:PATH_OR_ID`, `lab`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from inference.local.vision_config import takes_images as checkpoint_takes_images
from traces import InputError

ModelKind = Literal["gemini", "vertex", "openai", "hf", "lab"]

OPENAI_KEY_VARIABLE = "OPENAI_API_KEY"
OPENAI_BASE_URL_VARIABLE = "OPENAI_BASE_URL"
"""Environment variables with key and server of `openai:` models."""
GEMINI_KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
GEMINI_BASE_URL_VARIABLE = "GOOGLE_GEMINI_BASE_URL"
"""The same for `gemini:` models; the first key that is set counts."""
GOOGLE_PROJECT_VARIABLE = "GOOGLE_CLOUD_PROJECT"
GOOGLE_LOCATION_VARIABLE = "GOOGLE_CLOUD_LOCATION"
GOOGLE_CREDENTIALS_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
VERTEX_BASE_URL_VARIABLE = "GOOGLE_VERTEX_BASE_URL"
"""Project, region, credentials and server of `vertex:` models."""
STORAGE_URL_VARIABLE = "STORAGE_EMULATOR_HOST"
"""Another server of Cloud Storage, under the name that Google's own clients read."""
VERTEX_SWITCHES = ("GOOGLE_GENAI_USE_ENTERPRISE", "GOOGLE_GENAI_USE_VERTEXAI")
"""Variables that send `gemini:` models to Vertex AI if true; the first one that is set counts."""
_FORMS = "gemini:MODEL, vertex:MODEL, openai:MODEL, hf:PATH_OR_ID or lab"
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
            raise InputError(
                f'Unknown model "{text}".', remedy=f"{_meant(text)}name it as {_FORMS}"
            )
        if kind != "hf" and any(mark.isspace() or mark in "?#" for mark in name):
            raise InputError(
                f'The model name "{name}" contains a space, "?" or "#".',
                remedy="give the name as the service lists it",
            )
        if kind in ("gemini", "vertex"):
            name = name.removeprefix("models/")
            if not _GEMINI_NAME.fullmatch(name) or ".." in name:
                raise InputError(
                    f'"{name}" is not a name of a Gemini model.',
                    remedy="give the name as the service lists it, such as gemini-3.5-flash-lite",
                )
        return cls(kind, name)  # type: ignore[arg-type]  # kind is one of get_args above

    @property
    def is_gemini(self) -> bool:
        """Whether it is one of Google's Gemini models, on either service."""
        return self.kind in ("gemini", "vertex")

    def on_its_service(self, environ: Mapping[str, str]) -> ModelSpec:
        """The spec, as `vertex:` if the environment sends Gemini models to Vertex AI."""
        given = [environ[name] for name in VERTEX_SWITCHES if environ.get(name)]
        if self.kind == "gemini" and given and given[0].lower() in ("true", "1"):
            return ModelSpec("vertex", self.name)
        return self

    @property
    def takes_images(self) -> bool | None:
        """Whether it accepts images; None if that is unknown.

        The lab's models do not. For a checkpoint, only its small files are read.
        """
        if self.kind == "hf":
            return checkpoint_takes_images(self.name)
        return self.kind in ("gemini", "vertex", "openai")

    def __str__(self) -> str:
        return self.kind if self.kind == "lab" else f"{self.kind}:{self.name}"


def _meant(text: str) -> str:
    """What somebody who left the service out most probably meant; empty if nothing is likely."""
    name = text.strip()
    if not name or ":" in name:
        return ""
    if name.startswith("gemini-"):
        kind = "gemini"
    elif name.startswith(("gpt-", "o1", "o3", "o4")):
        kind = "openai"
    elif "/" in name or name.startswith("."):
        kind = "hf"
    else:
        return ""
    return f"did you mean '{kind}:{name}'? Else "
