"""Best-of-N over many problems: what a labeler's scores are worth for choosing among candidates.

Rules. Candidates count in their order; the first wins a tie (in expectation, ties are shared). An
unscored candidate is never chosen by score and has no weight, but it votes in the plain majority and
counts for pass and mean accuracy. A candidate without an answer has no vote; where no candidate of any problem has one (formats without
final answers), the majorities are undefined and not wrong. A problem with fewer
than N candidates is left out of that N, one without any scored candidate out of what needs scores;
both are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.bootstrap import RESAMPLES, Estimate, as_list, estimate, generator, resampled_sums
from evaluation.measures import Floats, Mask, ratio
from evaluation.pools import AGGREGATIONS, Normalise, Pool
from evaluation.selection import Chances, expected, first_n
from evaluation.wording import figure, plain_table
from traces.errors import InputError

MEASURES = (*AGGREGATIONS, "majority", "weighted_majority", "pass", "mean_accuracy")
"""In the order of every output."""


@dataclass(frozen=True, slots=True)
class AtN:
    """Every measure at one N."""

    n: int
    """Candidates to choose from."""
    pools: int
    """Problems with at least n candidates: what the measures are means over."""
    short: int
    """Problems with fewer: left out."""
    unscored_pools: int
    """Of the former, problems without a scored candidate to choose: left out of what needs scores."""
    accuracy: Mapping[str, Estimate]
    """By measure (`MEASURES`), in [0, 1]; None without problems."""
    by_problem: Mapping[str, Chances]
    """By problem id, for paired comparisons."""

    def as_json(self) -> dict[str, Any]:
        """As in the contract, with intervals and counts."""
        return {
            **{name: self.accuracy[name].value for name in MEASURES},
            "ci95": {name: as_list(self.accuracy[name]) for name in MEASURES},
            "pools": self.pools,
            "short": self.short,
            "unscored_pools": self.unscored_pools,
        }


@dataclass(frozen=True, slots=True)
class BestOfNReport:
    """Best-of-N for one labeler on one set of pools."""

    pools: int
    """Problems."""
    candidates: int
    """Candidates of all problems."""
    unscored: int
    """Candidates without a score on every step."""
    unanswered: int
    """Candidates without an answer."""
    disputed_answers: int
    """Answers of a problem that are right for one candidate and wrong for another; the first decides."""
    expected: bool
    """True: over all subsets of size N; False: over the first N."""
    by_n: Mapping[int, AtN]
    """By N, in the order asked for."""

    def as_json(self) -> dict[str, Any]:
        """As in the contract, with the counts."""
        return {
            "pools": self.pools,
            "n": {str(n): found.as_json() for n, found in self.by_n.items()},
            "over": "all subsets of size N, ties shared"
            if self.expected
            else "the first N, the first wins ties",
            "candidates": self.candidates,
            "unscored": self.unscored,
            "unanswered": self.unanswered,
            "disputed_answers": self.disputed_answers,
        }

    def table(self, name: str) -> str:
        """The figures for a person, one line per N."""
        rows = [
            (str(n), *(figure(found.accuracy[measure].value) for measure in MEASURES), str(found.pools))
            for n, found in self.by_n.items()
        ]  # fmt: skip
        head = ("N", *(measure.replace("_", " ") for measure in MEASURES), "problems")
        over = "all subsets of N candidates" if self.expected else "the first N candidates"
        lines = [f"{name}: best-of-N over {over}", plain_table(head, rows)]
        if self.unscored:
            lines.append(f"{self.unscored} of {self.candidates} candidates have no scores")
        if self.candidates and self.unanswered == self.candidates:
            lines.append("no candidate has an answer: there is nothing to vote on")
        lines += [
            f"N={n}: {found.short} problems have fewer candidates and are left out"
            for n, found in self.by_n.items()
            if found.short
        ]
        lines += [
            f"N={n}: {found.unscored_pools} problems have no scored candidate to choose"
            for n, found in self.by_n.items()
            if found.unscored_pools
        ]
        return "\n".join(lines)


def evaluate_best_of_n(
    pools: Iterable[Pool],
    ns: Sequence[int],
    *,
    over_subsets: bool = False,
    normalise: Normalise | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> BestOfNReport:
    """Best-of-N at each N, with bootstrap intervals by problem.

    Args:
        pools: one per problem.
        ns: each at least 1.
        over_subsets: expectation over all subsets of size N instead of the first N.
        normalise: the form in which answers are compared; None compares them as they are.
        seed: of the bootstrap and of the subsets for the majorities.

    Raises:
        InputError: an N below 1, or two pools of one problem.
    """
    if bad := [n for n in ns if n < 1]:
        raise InputError(f"N is {bad[0]}.", remedy="give numbers of at least 1")
    held = [pool if normalise is None else pool.normalised(normalise) for pool in pools]
    if len({pool.problem_id for pool in held}) < len(held):
        raise InputError("Two pools have the same problem id.")
    everyone = [one for pool in held for one in pool.candidates]
    return BestOfNReport(
        len(held),
        len(everyone),
        sum(one.step_scores is None for one in everyone),
        sum(one.answer is None for one in everyone),
        sum(pool.disputed_answers() for pool in held),
        over_subsets,
        {n: _at(held, n, over_subsets, seed, resamples) for n in ns},
    )


def _at(pools: Sequence[Pool], n: int, over_subsets: bool, seed: int, resamples: int) -> AtN:
    long_enough = [pool for pool in pools if len(pool.candidates) >= n]
    found = {
        pool.problem_id: expected(pool, n, seed) if over_subsets else first_n(pool, n)
        for pool in long_enough
    }
    if all(one.answer is None for pool in pools for one in pool.candidates):
        nobody: Chances = {"majority": None, "weighted_majority": None}
        found = {problem: chances | nobody for problem, chances in found.items()}
    return AtN(
        n,
        len(long_enough),
        len(pools) - len(long_enough),
        sum(chances["min"] is None for chances in found.values()),
        {name: _accuracy(found, name, seed, resamples) for name in MEASURES},
        found,
    )


def _accuracy(found: Mapping[str, Chances], name: str, seed: int, resamples: int) -> Estimate:
    """Mean over the problems on which the measure is defined; problems are resampled."""
    known = [chances[name] for chances in found.values()]
    counts = np.array([(value, 1.0) for value in known if value is not None]).reshape(-1, 2)

    def mean(sums: Floats) -> tuple[Floats, Mask]:
        return ratio(sums[..., 0], sums[..., 1])

    return estimate(
        mean, counts.sum(axis=0), resampled_sums(counts, generator(seed, "best-of-n"), resamples)
    )
