"""How prefixes are continued and what the counts mean: every rule is an explicit option."""

from __future__ import annotations

from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, Literal, get_args

from labeling.strategies import Bounds
from traces import InputError

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
    """How prefixes are continued and what the counts mean; stored with the labeler."""

    k: int = 16
    """Continuations per prefix, at least 1."""
    _: KW_ONLY
    threshold: int = 0
    """Hard label: a step is correct iff successes > threshold (0: any success)."""
    seed: int = 0
    """Seed of the policy's sampling."""
    strategy: str = "all"
    """Which continuations to sample: all, early-stop, binary, adaptive (`labeling.strategies`)."""
    label: LabelRule = "hard"
    """hard: correct iff successes > threshold; with 0, the value label "MC estimate > 0" of
    VisualPRM (arXiv 2503.10291). soft: the MC estimate as score, without a verdict. advantage
    (VisualPRM's too): correct if the estimate rose from the step before, neutral if it stayed
    equal, incorrect if it fell; the first step by its value."""
    last_step: LastStep = "rollout"
    """rollout: continued like any other step. outcome: labeled by the trace's final answer, as in
    Med-PRM's labels; without a readable final answer it is continued after all."""
    after_first_error: AfterFirstError = "keep"
    """How to label steps after the first incorrect one. keep: as measured. incorrect: all
    incorrect. not-measured: no label."""

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 <= self.threshold < self.k:
            raise InputError(
                f"A threshold of {self.threshold} cannot be used with {self.k} continuations.",
                remedy="give -k of at least 1 and a --threshold from 0 to k - 1",
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                option = name.replace("_", "-")
                raise InputError(
                    f"'{getattr(self, name)}' is not a value of --{option}.",
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
        """The configuration as stored: k, threshold, seed, and options that are not default."""
        always = {"k", "threshold", "seed"}
        default = MonteCarloConfig()
        return {
            name: value
            for name, value in asdict(self).items()
            if name in always or value != getattr(default, name)
        }

    def rule(self) -> str:
        """The rule as text for the label's meta."""
        if self.label == "soft":
            return "MC estimate"
        if self.label == "advantage":
            return "MC estimate above the step before"
        return f"successes > {self.threshold}"
