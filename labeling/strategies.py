"""What has been drawn of one trace so far: continuations by step, and what is known without any.

`adaptive`: search for the first error, with as many continuations as the trace's difficulty asks for.

After EpicPRM's adaptive binary search (Sun et al., arXiv 2503.02382), which starts where the problem's
difficulty suggests and draws more where it is hard; the test below is our own. How easy a trace is,
its own continuations say: successes and failures from prefixes that are alive give a Beta posterior of
the chance of success, and a prefix without any success is given up as soon as an alive one would have
failed as often with a probability below `ERROR`. While no prefix is known to be alive nothing is given
up before `k`. Nothing here looks at other traces, so labels do not depend on what else is labelled.

`binary`: search for the first error by halving, with a probe past it.

As in OmegaPRM (Luo et al., arXiv 2406.06592): a prefix from which the answer can still be reached
holds no error, one from which it cannot holds one, and the first error lies between. That assumes
that no later prefix reaches the answer again. One probe behind the error found tests it; where it
fails the trace is measured step by step instead.

Which continuations are worth drawing: all of them, or only what decides the labels.

A strategy is a pure function of what was drawn so far, so that a run can be killed anywhere and go
on, and every strategy draws a subset of what `all` draws: continuation `i` of a step is the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from traces.errors import InputError
from traces.problem import Wanted
from traces.records import Continuation


@dataclass(frozen=True, slots=True)
class Bounds:
    """When the hard label of a step is decided."""

    k: int
    """Continuations at most."""
    threshold: int
    """A step is correct iff successes > threshold among `k`."""


@dataclass(slots=True)
class Drawn:
    """Counts of one trace, step by step; strategies look at nothing else."""

    steps: int
    """Steps of the trace."""
    known: Mapping[int, bool] = field(default_factory=dict)
    """Hard labels that need no continuation (a last step taken from the outcome)."""
    by_step: list[list[Continuation]] = field(init=False)
    """Continuations by step, by number."""
    rounds: int = 0
    """How often something was drawn."""
    prefilled_tokens: int = 0
    """Tokens of prefixes computed for it."""
    near_ties: int | None = None
    """Choices of tokens that another batch might make otherwise; None where the policy does not count."""

    def __post_init__(self) -> None:
        self.by_step = [[] for _ in range(self.steps)]

    def add(self, continuations: Iterable[Continuation]) -> None:
        """Take what was drawn in a round."""
        for one in continuations:
            self.by_step[one.step_index].append(one)
        for of_step in self.by_step:
            of_step.sort(key=lambda one: one.index)
        self.rounds += 1

    def count_near_ties(self, more: int | None) -> None:
        """Add what the policy counted in a round, if it does."""
        if more is not None:
            self.near_ties = more + (self.near_ties or 0)

    def n(self, step: int) -> int:
        """Continuations of a step so far."""
        return len(self.by_step[step])

    def successes(self, step: int) -> int:
        """Of these, how many reached the gold answer."""
        return sum(one.correct is True for one in self.by_step[step])

    def decided(self, step: int, bounds: Bounds) -> bool | None:
        """The hard label that all `k` continuations give, whatever the rest says; None if open."""
        if step in self.known:
            return self.known[step]
        successes = self.successes(step)
        if successes > bounds.threshold:
            return True
        left = bounds.k - self.n(step)
        return False if successes + left <= bounds.threshold else None


# --- `adaptive`: search for the first error, with as many continuations as the trace's


ERROR = 0.0001
"""Chance at most that an alive prefix is given up, by the posterior. Prefixes behind a slip that the
policy may still mend are rarer successes than the alive ones before it say: on lab traces 0.01 gave up
such prefixes (1.7 points more wrong first errors on the policy's own traces) to save 2% of the tokens."""
FIRST_LOOK = 4
"""Continuations of a prefix before anything is decided about the trace's difficulty."""


def adaptive(drawn: Drawn, bounds: Bounds) -> list[Wanted]:
    """The next continuations of the one step under test."""
    alive, dead = -1, drawn.steps
    while dead - alive > 1:
        # The first look is early in the trace: most prefixes there are alive and tell how easy it is.
        first = (alive, dead) == (-1, drawn.steps)
        step = drawn.steps // 3 if first else (alive + dead) // 2
        right = _verdict(drawn, step, bounds)
        if right is None:
            return [_next(drawn, step, bounds)]
        alive, dead = (step, dead) if right else (alive, step)
    return []


def given_up(drawn: Drawn, step: int, bounds: Bounds) -> bool:
    """Whether a step without enough successes has been tried often enough, given the others."""
    if drawn.successes(step) > bounds.threshold:
        return False
    successes = failures = 0
    for other in range(drawn.steps):
        if other != step and drawn.successes(other) > bounds.threshold:
            successes += drawn.successes(other)
            failures += drawn.n(other) - drawn.successes(other)
    if successes == 0 or bounds.threshold > 0:
        return False
    chance = 1.0
    for failed in range(drawn.n(step)):
        chance *= (1 + failures + failed) / (2 + successes + failures + failed)
    return chance <= ERROR


def _verdict(drawn: Drawn, step: int, bounds: Bounds) -> bool | None:
    """Alive, dead or open."""
    decided = drawn.decided(step, bounds)
    if decided and step not in drawn.known and not _looked(drawn, step, bounds):
        return None
    if decided is None and given_up(drawn, step, bounds):
        return False
    return decided


def _looked(drawn: Drawn, step: int, bounds: Bounds) -> bool:
    """Whether enough is known of how easy the trace is: a first look at one alive step."""
    total = sum(
        drawn.n(other) for other in range(drawn.steps) if drawn.successes(other) > bounds.threshold
    )
    return total >= min(FIRST_LOOK, bounds.k)


def _next(drawn: Drawn, step: int, bounds: Bounds) -> Wanted:
    have = drawn.n(step)
    untouched = all(drawn.n(other) == 0 for other in range(drawn.steps))
    size = FIRST_LOOK if untouched else 1 if have < 2 else 2
    return Wanted(step, have, min(size, bounds.k - have))


# --- `early-stop`: a step is left as soon as its hard label is decided, so hard labels equal


def early_stop(drawn: Drawn, bounds: Bounds) -> list[Wanted]:
    """The next continuations of every step that is still open."""
    return [
        next_of(drawn, step, bounds)
        for step in range(drawn.steps)
        if drawn.decided(step, bounds) is None
    ]


def next_of(drawn: Drawn, step: int, bounds: Bounds) -> Wanted:
    """As many again as there are: 1, 1, 2, 4, 8, so that few rounds overshoot by little."""
    have = drawn.n(step)
    return Wanted(step, have, min(bounds.k - have, max(1, have)))


# --- `binary`: search for the first error by halving, with a probe past it


def binary(drawn: Drawn, bounds: Bounds) -> list[Wanted]:
    """The next continuations of the one step under test."""
    alive, dead = -1, drawn.steps
    while dead - alive > 1:
        middle = (alive + dead) // 2
        right = drawn.decided(middle, bounds)
        if right is None:
            return [next_of(drawn, middle, bounds)]
        alive, dead = (middle, dead) if right else (alive, middle)
    past = dead + 1
    if past >= drawn.steps:
        return []
    reached_again = drawn.decided(past, bounds)
    if reached_again is None:
        return [next_of(drawn, past, bounds)]
    return early_stop(drawn, bounds) if reached_again else []


# --- `all`: every prefix `k` times


def every(drawn: Drawn, bounds: Bounds) -> list[Wanted]:
    """Everything that is not there yet, in one round."""
    return [
        Wanted(step, drawn.n(step), bounds.k - drawn.n(step))
        for step in range(drawn.steps)
        if step not in drawn.known and drawn.n(step) < bounds.k
    ]


# --- Which continuations are worth drawing: all of them, or only what decides the labels


Strategy = Callable[[Drawn, Bounds], list[Wanted]]
"""What to draw next; nothing once the trace is decided."""

STRATEGIES: dict[str, Strategy] = {
    "all": every,
    "early-stop": early_stop,
    "binary": binary,
    "adaptive": adaptive,
}
"""By the name given to `--strategy`."""


def strategy(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        InputError: there is none.
    """
    if name not in STRATEGIES:
        raise InputError(
            f"'{name}' is not a strategy.", remedy=f"use one of {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[name]
