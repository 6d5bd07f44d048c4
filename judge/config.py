"""How a judge is asked; stored with the labeler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, Literal

from judge.prompt_file import ONE_STEP, JudgePrompt, packaged_prompt
from traces import InputError

Granularity = Literal["trace", "step"]
"""trace: all steps in one reply. step: one call per step, which shows the steps up to it."""

VOTING_TEMPERATURE = 0.7
"""Default temperature of several votes: at 0 they would all be equal."""


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """How the judge is asked; stored with the labeler."""

    prompt: JudgePrompt = field(default_factory=packaged_prompt)
    _: KW_ONLY
    evidence_tokens: int = 3072
    """Token budget of the documents, including the tags around them (see `judge.prompt`)."""
    max_tokens: int = 8192
    """Token limit of the reply, including thinking."""
    temperature: float | None = 0.0
    """Sampling temperature; None uses the service's default."""
    granularity: Granularity = "trace"
    require_quotes: bool = False
    """Whether a step called incorrect without a verified quote abstains (no_evidence)."""
    votes: int = 1
    """Maximum number of votes on a trace, at least 1."""
    agree: int = 2
    """Stop early once this many votes name the same first error and none disagrees."""
    escalate: str | None = None
    """The model that decides splits; None leaves them uncertain."""
    images: bool = True
    """Whether problems' images are shown; otherwise the prompt says that they are not."""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: no vote; an agreement of fewer than 2; several votes at temperature 0;
                escalation of a single vote; a prompt without the section for one step.
        """
        if self.votes < 1 or self.agree < 2:
            raise InputError(
                f"--votes {self.votes} with --agree {self.agree} does not work.",
                remedy="give --votes of at least 1 and --agree of at least 2",
            )
        if self.votes > 1 and self.temperature == 0:
            raise InputError(
                "At temperature 0 all votes would be equal.",
                remedy="give a --temperature above 0, or --votes 1",
            )
        if self.escalate is not None and self.votes < 2:
            raise InputError(
                "--escalate needs at least two votes.",
                remedy="add --votes 3, or leave --escalate out",
            )
        if self.granularity == "step" and self.prompt.one_step is None:
            raise InputError(
                "The judge's prompt has no section for judging one step per call.",
                remedy=f"add one after '--- {ONE_STEP} ---', or leave --granularity out",
            )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], prompt: JudgePrompt) -> JudgeConfig:
        """The configuration that `as_dict` wrote; unknown keys are ignored.

        Args:
            settings: the labeler's configuration.
            prompt: the prompt with that `prompt_sha256`.

        Raises:
            InputError: it is another prompt, or not a judge's configuration.
        """
        if settings.get("prompt_sha256") != prompt.sha256:
            raise InputError("The labeler was made with another prompt.")
        known = {each.name for each in fields(cls)} - {"prompt"}
        return cls(prompt, **{name: value for name, value in settings.items() if name in known})

    def as_dict(self) -> dict[str, Any]:
        """The configuration as stored: the prompt by its hash, other options if not default."""
        settings: dict[str, Any] = {
            "prompt_sha256": self.prompt.sha256,
            "evidence_tokens": self.evidence_tokens,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        if self.granularity != "trace":
            settings["granularity"] = self.granularity
        if self.require_quotes:
            settings["require_quotes"] = True
        if not self.images:
            settings["images"] = False
        if self.votes > 1:
            settings |= {"votes": self.votes, "agree": self.agree, "escalate": self.escalate}
        return settings
