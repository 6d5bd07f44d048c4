"""How a judge is asked; stored with the labeler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from judge.prompt_file import BUILT_IN, ONE_STEP, JudgePrompt, packaged_prompt, read_prompt
from traces import Config, InputError, Need, StrPath, defaults_of, option
from traces.plugins import broken_plugin, load_plugin, load_plugins

PROMPTS = "stepgold.prompts"
"""Entry-point group of named prompts."""
Granularity = Literal["trace", "step"]
"""trace: all steps in one reply. step: one call per step, which shows the steps up to it."""

_VOTES = Need("--votes N", lambda config: config.votes > 1)

VOTING_TEMPERATURE = 0.7
"""Default temperature of several votes: at 0 they would all be equal."""


class JudgeConfig(Config):
    """How the judge is asked; stored with the labeler."""

    granularity: Granularity = option(
        default="trace",
        choices=get_args(Granularity),
        help="trace: one call per trace; step: one call per step, showing the steps up to it.",
    )
    votes: int = option(
        default=1, between=(1, None), metavar="N", help="Maximum number of votes per trace."
    )
    agree: int = option(
        default=2,
        between=(2, 3),
        metavar="N",
        help="Stop early once this many votes agree.",
        needs=_VOTES,
    )
    escalate: str | None = option(
        default=None,
        metavar="MODEL",
        help="Model that decides traces on which the votes are split [default: none].",
    )
    require_quotes: bool = option(
        default=False, help="Turn an incorrect verdict without a verified quote into no_evidence."
    )
    prompt: JudgePrompt | StrPath | None = option(
        default=None,
        metavar="FILE_OR_NAME",
        help="Prompt file or name: grounded, processbench-critic, or an installed one"
        " [default: grounded].",
    )
    evidence_tokens: int = option(
        default=3072,
        between=(0, None),
        metavar="N",
        help="Token budget of the documents, wrappers included (estimated).",
    )
    max_tokens: int = option(
        default=8192,
        between=(1, None),
        metavar="N",
        help="Maximum tokens of one reply, thinking included.",
    )
    temperature: float | None = option(
        default=None,
        metavar="T",
        between=(0, 2),
        help="Sampling temperature [default: 0; with several votes the prompt's, else 0.7].",
    )
    top_p: float | None = option(
        default=None,
        metavar="P",
        between=(0, 1),
        help="Nucleus sampling [default: the service's; with several votes the prompt's].",
    )
    show_images: bool = option(
        default=True,
        style="python",
        help="Whether images are shown; otherwise the prompt says that they are not.",
    )

    def check(self) -> None:
        """Resolve the prompt and the temperature, and refuse what cannot work.

        Raises:
            InputError: several votes at temperature 0, an escalation without votes, or a prompt
                that cannot be read or lacks the section that the granularity needs.
        """
        super().check()
        if not isinstance(self.prompt, JudgePrompt):
            object.__setattr__(self, "prompt", find_prompt(self.prompt))
        self._settle()
        if self.votes > 1 and self.temperature == 0:
            raise InputError(
                "At temperature 0 all votes would be equal.",
                remedy="use a --temperature above 0, or one vote",
            )
        if self.escalate is not None and self.votes < 2:
            raise InputError(
                "--escalate needs at least two votes.",
                remedy="add --votes 3, or leave --escalate out",
            )
        if self.escalate is not None and self.template.protocol.voting == "most-common":
            raise InputError(
                "The most common answer of this prompt's votes always wins: there are no splits"
                " to escalate.",
                remedy="leave --escalate out, or use another --prompt",
            )
        if self.granularity == "step" and self.template.one_step is None:
            raise InputError(
                "The judge's prompt has no section for judging one step per call.",
                remedy=f"add one after '--- {ONE_STEP} ---', or leave --granularity out",
            )

    def _settle(self) -> None:
        """Fill in what the prompt decides: how votes are sampled, and its only granularity."""
        prompt, voting = self.template, self.votes > 1
        protocol = prompt.protocol
        if self.temperature is None:
            default = VOTING_TEMPERATURE if voting else 0.0
            if voting and protocol.votes_temperature is not None:
                default = protocol.votes_temperature
            object.__setattr__(self, "temperature", default)
        if self.top_p is None and voting:
            object.__setattr__(self, "top_p", protocol.votes_top_p)
        if prompt.user is None:
            object.__setattr__(self, "granularity", "step")

    @property
    def template(self) -> JudgePrompt:
        """The prompt, read and checked."""
        if not isinstance(self.prompt, JudgePrompt):
            raise TypeError("a checked config holds its prompt")
        return self.prompt

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], prompt: JudgePrompt, **more: Any) -> Self:
        """The configuration that `as_dict` wrote; unknown keys are ignored.

        Args:
            settings: the labeler's configuration.
            prompt: the prompt with that `prompt_sha256`.
            **more: fields that the labeler does not store.

        Raises:
            InputError: it is another prompt, or not a judge's configuration.
        """
        if settings.get("prompt_sha256") != prompt.sha256:
            raise InputError("The labeler was made with another prompt.")
        known = defaults_of(JudgeConfig).keys() - {"prompt"}
        kept = {
            name: value for name, value in settings.items() if name in known and name not in more
        }
        return cls(prompt=prompt, show_images=settings.get("images", True), **kept, **more)

    def as_dict(self) -> dict[str, Any]:
        """The configuration as stored: the prompt by its hash, other options if not default."""
        settings: dict[str, Any] = {
            "prompt_sha256": self.template.sha256,
            "evidence_tokens": self.evidence_tokens,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        if self.top_p is not None:
            settings["top_p"] = self.top_p
        if self.granularity != "trace":
            settings["granularity"] = self.granularity
        if self.require_quotes:
            settings["require_quotes"] = True
        if not self.show_images:
            settings["images"] = False
        if self.votes > 1:
            settings |= {"votes": self.votes, "agree": self.agree, "escalate": self.escalate}
        return settings


def find_prompt(prompt: StrPath | None) -> JudgePrompt:
    """The prompt of a file or, if there is no such file, of that name; `grounded` if None.

    Another distribution adds a named prompt with an entry point of the group `stepgold.prompts`
    that names the text of a prompt file.

    Raises:
        InputError: there is neither, or it is not a judge's prompt.
    """
    if prompt is None or Path(prompt).exists():
        return read_prompt(None if prompt is None else Path(prompt))
    if str(prompt) in BUILT_IN:
        return packaged_prompt(str(prompt))
    installed = load_plugins(PROMPTS)
    if str(prompt) not in installed:
        names = [f"--prompt {name}" for name in (*BUILT_IN, *installed)]
        raise InputError(
            f"Prompt '{prompt}' not found: no such file, and no prompt of that name.",
            where="--prompt",
            remedy=" or ".join(["give a UTF-8 text file", *names]),
        )
    entry = installed[str(prompt)]
    text = load_plugin(entry)
    if not isinstance(text, str):
        raise broken_plugin(entry, f"its type is {type(text).__name__}, not str")
    return JudgePrompt.parse(text, where=f"prompt '{prompt}'")
