"""How a judge is asked: stored with its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from judge.prompt_file import ONE_STEP, JudgePrompt, packaged_prompt
from traces.errors import InputError

Granularity = Literal["trace", "step"]
"""A whole trace in one reply, or one step a call with the steps before it shown."""

VOTING_TEMPERATURE = 0.7
"""Sampling temperature of several votes: at 0 they would all be one."""


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """How the judge is asked; stored with the labeler."""

    prompt: JudgePrompt = field(default_factory=packaged_prompt)
    """The prompt."""
    evidence_tokens: int = 3072
    """Token budget of the documents, wrappers included (estimated, see judge/prompt.py)."""
    max_tokens: int = 8192
    """Limit of the reply, thinking included."""
    temperature: float | None = 0.0
    """Sampling temperature; None leaves the service's default."""
    granularity: Granularity = "trace"
    """trace: all steps in one reply; step: one call a step, which shows the steps up to it."""
    require_quotes: bool = False
    """Whether an incorrect verdict without a verified quote becomes the abstention no_evidence."""
    votes: int = 1
    """Most votes on one trace, at least 1."""
    agree: int = 2
    """Voting ends early when this many votes are in and all name the same first error."""
    escalate: str | None = None
    """The model that a split is put to; None leaves it uncertain."""
    images: bool = True
    """Whether the images of problems are shown; otherwise the judge is told that they are not."""

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            InputError: no vote; an agreement of fewer than 2; several votes at temperature 0; an
                escalation without votes; a prompt without the section that the granularity needs.
        """
        if self.votes < 1 or self.agree < 2:
            raise InputError(
                f"{self.votes} votes of which {self.agree} must agree cannot be counted.",
                remedy="take at least 1 vote, and an agreement of at least 2",
            )
        if self.votes > 1 and self.temperature == 0:
            raise InputError(
                "At temperature 0 all votes would be the same reply.",
                remedy="take a --temperature above 0, or one vote",
            )
        if self.escalate is not None and self.votes < 2:
            raise InputError(
                "One vote cannot be split, so that nothing would ever be escalated.",
                remedy="add --votes 3, or leave --escalate out",
            )
        if self.granularity == "step" and self.prompt.one_step is None:
            raise InputError(
                "The judge's prompt has no section for judging one step a call.",
                remedy=f"add one under '--- {ONE_STEP} ---', or leave --granularity out",
            )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], prompt: JudgePrompt) -> JudgeConfig:
        """The configuration that `as_dict` wrote; other keys are the labeler's own.

        Args:
            settings: the labeler's configuration.
            prompt: the prompt under its `prompt_sha256`.

        Raises:
            InputError: it is another prompt, or no judge's configuration.
        """
        if settings.get("prompt_sha256") != prompt.sha256:
            raise InputError("The labeler was made with another prompt.")
        known = {each.name for each in fields(cls)} - {"prompt"}
        return cls(prompt, **{name: value for name, value in settings.items() if name in known})

    def as_dict(self) -> dict[str, Any]:
        """The configuration as the labeler stores it: the prompt by its hash, options where used."""
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
