"""The options of `stepgold judge`: how to ask, and whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from commands.batch_setup import BatchOptions
from commands.image_options import ImageOptions
from traces.errors import InputError

if TYPE_CHECKING:
    from inference.budget import Purse
    from judge.config import JudgeConfig


@dataclass(frozen=True)
class Asking:
    """How a RAG judge asks, as given on the command line."""

    prompt: Path | None
    """The user's prompt file; None takes the packaged one."""
    evidence_tokens: int
    """Token budget of the documents."""
    max_tokens: int
    """Limit of one reply."""
    granularity: str
    """`trace` or `step`."""
    votes: int
    """Most votes a trace."""
    agree: int
    """Votes that end the voting early when they all agree."""
    temperature: float | None
    """Sampling temperature; None takes 0 for one vote, 0.7 for several."""
    require_quotes: bool
    """Whether an incorrect verdict needs a verified quote."""
    escalate: str | None
    """The model that a split is put to."""

    @cached_property
    def config(self) -> JudgeConfig:
        """The checked configuration.

        Raises:
            InputError: options that do not fit each other, or a prompt that cannot be used.
        """
        from judge.config import VOTING_TEMPERATURE, JudgeConfig
        from judge.prompt_file import read_prompt

        default = VOTING_TEMPERATURE if self.votes > 1 else 0.0
        if self.granularity not in ("trace", "step"):
            raise InputError(
                f"'{self.granularity}' is not a granularity.", remedy="use trace or step"
            )
        return JudgeConfig(
            read_prompt(self.prompt),
            self.evidence_tokens,
            self.max_tokens,
            default if self.temperature is None else self.temperature,
            "step" if self.granularity == "step" else "trace",
            self.require_quotes,
            self.votes,
            self.agree,
            self.escalate,
        )

    def refuse_for_lab(self) -> None:
        """Refuse what the lab's judge, which reads likelihoods, cannot do.

        Raises:
            InputError: votes, single steps, quotes, a prompt or an escalation were asked for.
        """
        asked = {
            "--votes": self.votes > 1,
            "--granularity": self.granularity != "trace",
            "--require-quotes": self.require_quotes,
            "--prompt": self.prompt is not None,
            "--escalate": self.escalate is not None,
        }
        if wrong := [name for name, given in asked.items() if given]:
            raise InputError(
                f"The lab's judge reads likelihoods: {', '.join(wrong)} means nothing to it.",
                remedy="leave it out, or take gemini:MODEL, openai:MODEL or hf:PATH",
            )


@dataclass(frozen=True)
class Calling:
    """Whom a judge asks, and on what terms, as given on the command line."""

    judge: str
    """The model spec."""
    base_url: str | None
    """Its server; None takes the environment's."""
    escalate_base_url: str | None
    """The second judge's server; None takes the environment's."""
    service: str
    """Whose prices and patience hold."""
    concurrency: int | None
    """Requests in flight at once; None leaves the back end's default."""
    budget: float | Purse | None
    """Most US dollars for both judges together, or the purse they share with others."""
    allow_phi: bool
    """Whether marked problems may go to a hosted model."""
    allow_mixed: bool
    """Whether further versions of the model are welcome."""
    batch: BatchOptions = field(default_factory=BatchOptions)
    """How jobs are packed and watched where the service is `batch`."""
    images: ImageOptions = field(default_factory=ImageOptions)
    """Where the images of problems are, and whether they are shown."""
