"""What a Monte-Carlo label means: every rule an explicit option, stored with the labeler."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from labeling.strategies import Bounds
from traces.errors import InputError

LabelRule = Literal["hard", "soft", "advantage"]
LastStep = Literal["rollout", "outcome"]
AfterFirstError = Literal["keep", "incorrect", "not-measured"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "label": get_args(LabelRule),
    "last_step": get_args(LastStep),
    "after_first_error": get_args(AfterFirstError),
}


@dataclass(frozen=True, slots=True)
class MonteCarloConfig:
    """How prefixes are continued and counted; stored with the labeler."""

    k: int = 16
    """Continuations a prefix, at least 1."""
    threshold: int = 0
    """Hard label: a step is correct iff successes > threshold (0: any success)."""
    seed: int = 0
    """Seed of the policy's sampling."""
    strategy: str = "all"
    """Which continuations are drawn: all, early-stop, binary, adaptive (`labeling.strategies`)."""
    label: LabelRule = "hard"
    """hard: correct iff successes > threshold, with 0 the value label "MC estimate > 0" of VisualPRM
    (arXiv 2503.10291). soft: the MC estimate as score, no verdict. advantage (VisualPRM's too): correct
    if the estimate rose over the step before, neutral if it is equal, incorrect if it fell; the
    first step by its value."""
    last_step: LastStep = "rollout"
    """rollout: continued like any other. outcome: what the trace's final answer says, as in
    Med-PRM's labels; where the trace ends in no readable answer the step is rolled out after all."""
    after_first_error: AfterFirstError = "keep"
    """keep: as measured. incorrect: every step behind the first incorrect one is incorrect.
    not-measured: those steps have no label."""

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 <= self.threshold < self.k:
            raise InputError(
                f"A threshold of {self.threshold} of {self.k} continuations decides nothing.",
                remedy="give -k of at least 1 and a --threshold from 0 to k - 1",
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                option = name.replace("_", "-")
                raise InputError(
                    f"'{getattr(self, name)}' is no --{option}.",
                    remedy=f"use one of {', '.join(choices)}",
                )
        if self.label != "hard" and self.strategy != "all":
            raise InputError(
                f"--label {self.label} needs the MC estimate of every step.",
                remedy="use --strategy all",
            )

    @property
    def bounds(self) -> Bounds:
        """When a step's hard label is decided."""
        return Bounds(self.k, self.threshold)

    def as_dict(self) -> dict[str, Any]:
        """The configuration as the labeler stores it: what is not the default is named."""
        always = {"k", "threshold", "seed"}
        default = MonteCarloConfig()
        return {
            name: value
            for name, value in asdict(self).items()
            if name in always or value != getattr(default, name)
        }

    def rule(self) -> str:
        """The rule in words, for the label's meta."""
        if self.label == "soft":
            return "MC estimate"
        if self.label == "advantage":
            return "MC estimate above the step before"
        return f"successes > {self.threshold}"
