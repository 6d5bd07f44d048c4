"""Monte Carlo options, and which continuations to sample: all, or only those that decide labels.

A strategy is a pure function of what was sampled so far, so a run can be killed and resumed
anywhere. Every strategy samples a subset of what `all` samples: continuation `i` of a step is the
same in each of them.

`early-stop` leaves a step as soon as its hard label is decided, so hard labels equal those of
`all`.

`binary` searches for the first error by bisection, as OmegaPRM does (Luo et al., arXiv 2406.06592):
a prefix from which the answer can be reached has no error, one from which it cannot has one. That
assumes that no later prefix reaches the answer again. One probe after the error tests it; if the
probe succeeds, the trace is measured step by step instead.

`adaptive` bisects too, with as many continuations as the difficulty of the trace requires, after
EpicPRM's adaptive binary search (Sun et al., arXiv 2503.02382); the stopping test is our own. The
successes and failures of prefixes that do succeed give a Beta posterior of the chance of success.
A prefix without a success is given up once such a prefix would have failed that often with a
probability below `ERROR`. Until one prefix has succeeded, none is given up before `k`. Nothing
depends on other traces, so labels do not depend on what else is labeled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from traces import Config, Continuation, InputError, Wanted, defaults_of, option

ERROR = 0.0001
"""Largest probability with which `adaptive` gives up a prefix that can succeed. Success after a
slip that the policy can still repair is rarer than the earlier prefixes suggest: with 0.01, lab
traces lost such prefixes (1.7 points more wrong first errors) to save 2% of the tokens."""
FIRST_LOOK = 4
"""Continuations of a prefix before `adaptive` judges how difficult the trace is."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """When the hard label of a step is decided."""

    k: int
    """Maximum number of continuations."""
    threshold: int
    """A step is correct iff successes > threshold among `k`."""


@dataclass(slots=True)
class TraceProgress:
    """What was sampled of one trace so far; strategies see nothing else."""

    steps: int
    """Number of steps."""
    known: Mapping[int, bool] = field(default_factory=dict)
    """Hard labels that need no continuation (a last step labeled by the trace's outcome)."""
    by_step: list[list[Continuation]] = field(init=False)
    """Continuations by step, in order of their number."""
    rounds: int = 0
    """Number of rounds in which something was sampled."""
    prefilled_tokens: int = 0
    """Prefix tokens computed for it."""
    near_ties: int | None = None
    """As in `TraceContinuations`, summed over the rounds."""

    def __post_init__(self) -> None:
        self.by_step = [[] for _ in range(self.steps)]

    def add(self, continuations: Iterable[Continuation]) -> None:
        """Add the continuations of a round."""
        for one in continuations:
            self.by_step[one.step_index].append(one)
        for of_step in self.by_step:
            of_step.sort(key=lambda one: one.index)
        self.rounds += 1

    def count_near_ties(self, more: int | None) -> None:
        """Add a round's near ties; None if the policy does not count them."""
        if more is not None:
            self.near_ties = more + (self.near_ties or 0)

    def all_continuations(self) -> list[Continuation]:
        """The continuations of all steps."""
        return [one for of_step in self.by_step for one in of_step]

    def n(self, step: int) -> int:
        """Continuations of a step so far."""
        return len(self.by_step[step])

    def successes(self, step: int) -> int:
        """Continuations of a step that reached the gold answer."""
        return sum(one.correct is True for one in self.by_step[step])

    def decided(self, step: int, bounds: Bounds) -> bool | None:
        """The hard label that `k` continuations will give whatever the rest are; None if open."""
        if step in self.known:
            return self.known[step]
        successes = self.successes(step)
        if successes > bounds.threshold:
            return True
        left = bounds.k - self.n(step)
        return False if successes + left <= bounds.threshold else None


def every(progress: TraceProgress, bounds: Bounds) -> list[Wanted]:
    """`all`: everything that is missing, in one round."""
    return [
        Wanted(step, progress.n(step), bounds.k - progress.n(step))
        for step in range(progress.steps)
        if step not in progress.known and progress.n(step) < bounds.k
    ]


def early_stop(progress: TraceProgress, bounds: Bounds) -> list[Wanted]:
    """`early-stop`: the next continuations of every step that is still open."""
    return [
        _double(progress, step, bounds)
        for step in range(progress.steps)
        if progress.decided(step, bounds) is None
    ]


def binary(progress: TraceProgress, bounds: Bounds) -> list[Wanted]:
    """`binary`: the next continuations of the one step under test."""
    alive, dead = -1, progress.steps
    while dead - alive > 1:
        middle = (alive + dead) // 2
        right = progress.decided(middle, bounds)
        if right is None:
            return [_double(progress, middle, bounds)]
        alive, dead = (middle, dead) if right else (alive, middle)
    past = dead + 1
    if past >= progress.steps:
        return []
    reached_again = progress.decided(past, bounds)
    if reached_again is None:
        return [_double(progress, past, bounds)]
    return early_stop(progress, bounds) if reached_again else []


def _double(progress: TraceProgress, step: int, bounds: Bounds) -> Wanted:
    """As many again as there are (1, 1, 2, 4, 8): few rounds, and little is sampled in vain."""
    have = progress.n(step)
    return Wanted(step, have, min(bounds.k - have, max(1, have)))


def adaptive(progress: TraceProgress, bounds: Bounds) -> list[Wanted]:
    """`adaptive`: the next continuations of the one step under test."""
    alive, dead = -1, progress.steps
    while dead - alive > 1:
        # Look early in the trace first: most prefixes there succeed and show how easy it is.
        first = (alive, dead) == (-1, progress.steps)
        step = progress.steps // 3 if first else (alive + dead) // 2
        right = _adaptive_verdict(progress, step, bounds)
        if right is None:
            have = progress.n(step)
            untouched = all(progress.n(other) == 0 for other in range(progress.steps))
            size = FIRST_LOOK if untouched else 1 if have < 2 else 2
            return [Wanted(step, have, min(size, bounds.k - have))]
        alive, dead = (step, dead) if right else (alive, step)
    return []


def given_up(progress: TraceProgress, step: int, bounds: Bounds) -> bool:
    """Whether `adaptive` has tried a step often enough, given how the others went."""
    if progress.successes(step) > bounds.threshold:
        return False
    successes = failures = 0
    for other in range(progress.steps):
        if other != step and progress.successes(other) > bounds.threshold:
            successes += progress.successes(other)
            failures += progress.n(other) - progress.successes(other)
    if successes == 0 or bounds.threshold > 0:
        return False
    chance = 1.0
    for failed in range(progress.n(step)):
        chance *= (1 + failures + failed) / (2 + successes + failures + failed)
    return chance <= ERROR


def _adaptive_verdict(progress: TraceProgress, step: int, bounds: Bounds) -> bool | None:
    """Whether the answer can be reached from the step's prefix; None if open."""
    decided = progress.decided(step, bounds)
    if decided and step not in progress.known and not _looked(progress, bounds):
        return None
    if decided is None and given_up(progress, step, bounds):
        return False
    return decided


def _looked(progress: TraceProgress, bounds: Bounds) -> bool:
    """Whether the prefixes that succeed were sampled often enough to tell how easy the trace is."""
    total = sum(
        progress.n(step)
        for step in range(progress.steps)
        if progress.successes(step) > bounds.threshold
    )
    return total >= min(FIRST_LOOK, bounds.k)


Strategy = Callable[[TraceProgress, Bounds], list[Wanted]]
"""What to sample next; empty once the trace is decided."""

STRATEGIES: dict[str, Strategy] = {
    "all": every,
    "early-stop": early_stop,
    "binary": binary,
    "adaptive": adaptive,
}
"""Strategies by the name given to `--strategy`."""


def strategy_named(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        InputError: there is no such strategy.
    """
    if name not in STRATEGIES:
        raise InputError(
            f"'{name}' is not a strategy.", remedy=f"use one of {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[name]


LabelRule = Literal["hard", "soft", "advantage"]
LastStep = Literal["rollout", "outcome"]
AfterFirstError = Literal["keep", "incorrect", "not-measured"]


class MonteCarloConfig(Config):
    """How prefixes are continued and what the counts mean; stored with the labeler.

    The rules of `label` are VisualPRM's (arXiv 2503.10291): hard with threshold 0 is its value
    label "MC estimate > 0"; advantage is correct if the estimate rose from the step before, neutral
    if it stayed equal, incorrect if it fell, and judges the first step by its value. `last_step`
    "outcome" follows Med-PRM's labels.
    """

    k: int = option(
        default=16,
        flags=("--k", "-k"),
        metavar="N",
        between=(1, None),
        help="Continuations per prefix.",
    )
    strategy: str = option(
        default="all",
        choices=tuple(STRATEGIES),
        help="all: k continuations per prefix; early-stop: until the label is decided; binary,"
        " adaptive: bisect for the first error.",
    )
    threshold: int = option(
        default=0,
        metavar="N",
        between=(0, None),
        help="A step is correct if more than N continuations reach the gold answer.",
    )
    label: LabelRule = option(
        default="hard",
        choices=get_args(LabelRule),
        help="hard: successes above the threshold; soft: the MC estimate; advantage: its change.",
    )
    last_step: LastStep = option(
        default="rollout",
        choices=get_args(LastStep),
        help="Continue the last step like any other, or label it by the final answer if readable.",
    )
    after_first_error: AfterFirstError = option(
        default="keep",
        choices=get_args(AfterFirstError),
        help="How to label steps after the first error: as measured, incorrect, or not at all.",
    )
    seed: int = option(
        default=0, metavar="N", between=(0, None), help="Seed of the policy's sampling."
    )
    answer_tolerance: float = option(
        default=1e-6,
        metavar="X",
        between=(0, 0.5),
        help="Relative difference up to which a decimal answer equals another number.",
    )

    def check(self) -> None:
        """Refuse rules that do not fit each other.

        Raises:
            InputError: a threshold that decides nothing, or a label that needs every step.
        """
        super().check()
        if self.threshold >= self.k:
            raise InputError(
                f"A threshold of {self.threshold} cannot be used with {self.k} continuations.",
                remedy="give a --threshold from 0 to k - 1",
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
        defaults = defaults_of(MonteCarloConfig)
        return {
            name: getattr(self, name)
            for name in defaults
            if name in always or getattr(self, name) != defaults[name]
        }

    def rule(self) -> str:
        """The rule as text for the label's meta."""
        if self.label == "soft":
            return "MC estimate"
        if self.label == "advantage":
            return "MC estimate above the step before"
        return f"successes > {self.threshold}"
