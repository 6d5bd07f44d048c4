"""Best-of-N: how well a labeler's scores select among the candidate solutions of a problem.

Rules. The order of candidates counts; the first wins a tie (in expectation, ties are shared). An
unscored candidate is never selected by score and has no weight, but it votes in the plain majority
and counts for pass and mean accuracy. A candidate without an answer does not vote; if no candidate
of any problem has an answer (formats without final answers), the majorities are undefined, not
wrong. A problem with fewer than N candidates is left out of that N, one without any scored
candidate is left out of the measures that need scores; both are counted.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.frames import Floats, Mask
from evaluation.measures import (
    RESAMPLES,
    Estimate,
    as_list,
    estimate,
    generator,
    ratio,
    resampled_sums,
)
from evaluation.wording import FigureTable, width_note, with_interval
from traces import InputError

Normalize = Callable[[str], str]
"""Maps equal answers to equal strings."""


@dataclass(frozen=True, slots=True)
class PoolCandidate:
    """One solution of a problem."""

    answer: str | None
    """Its final answer; None if it has none."""
    correct: bool
    """Whether that answer is right."""
    step_scores: tuple[float, ...] | None
    """In [0, 1], one per step; None if any step is unscored: then it is never selected by score."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates of one problem, in the order in which "the first N" counts."""

    problem_id: str
    candidates: tuple[PoolCandidate, ...]

    def normalized(self, normalize: Normalize) -> Pool:
        """The same pool with normalized answers."""
        return replace(
            self,
            candidates=tuple(
                replace(one, answer=None if one.answer is None else normalize(one.answer))
                for one in self.candidates
            ),
        )

    def answer_is_correct(self) -> Mapping[str, bool]:
        """Whether each answer is right, according to the first candidate that gives it."""
        known: dict[str, bool] = {}
        for one in self.candidates:
            if one.answer is not None:
                known.setdefault(one.answer, one.correct)
        return known

    def disputed_answers(self) -> int:
        """Answers that are right for one candidate and wrong for another."""
        pairs = {(one.answer, one.correct) for one in self.candidates if one.answer is not None}
        return len(pairs) - len({answer for answer, _ in pairs})


def log_product(scores: Sequence[float]) -> float:
    """Logarithm of the product of scores in [0, 1], which never underflows; -inf for a score of 0.

    >>> log_product([0.5, 0.5]) == log_product([0.25])
    True
    """
    return math.fsum(map(math.log, scores)) if all(scores) else -math.inf


def mean(scores: Sequence[float]) -> float:
    """Mean of at least one score; exactly independent of their order."""
    return math.fsum(scores) / len(scores)


def last(scores: Sequence[float]) -> float:
    """The score of the last step."""
    return scores[-1]


AGGREGATIONS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "product": log_product,
    "last": last,
    "mean": mean,
}
"""A trace's step scores as one figure to rank by (for product its logarithm)."""


def rewards(pool: Pool, aggregation: str) -> list[float | None]:
    """The aggregated score of each candidate; None for an unscored one."""
    aggregate = AGGREGATIONS[aggregation]
    return [
        None if one.step_scores is None else aggregate(one.step_scores) for one in pool.candidates
    ]


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, the first of ties; None without answers.

    >>> majority(["A", None, "B", "B", None, None]), majority(["A", "B"]), majority([None])
    ('B', 'A', None)
    """
    return weighted_majority(answers, [1.0] * len(answers))


def weighted_majority(answers: Sequence[str | None], weights: Sequence[float | None]) -> str | None:
    """The answer with the highest sum of weights, the first of ties.

    Candidates without an answer or a weight do not vote; None if none is left.

    >>> weighted_majority(["A", "B", "B", None, "C"], [0.9, 0.5, 0.3, 5.0, None])
    'A'
    """
    sums: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None and weight is not None:
            sums[answer] = sums.get(answer, 0.0) + weight
    # max keeps the first of ties, and a dict its insertion order.
    return max(sums, key=lambda answer: sums[answer]) if sums else None


SUBSETS = 1000
"""Random subsets for the majorities, whose expectation has no closed form."""

Chances = dict[str, float | None]
"""By measure the probability of solving the problem; None where no candidate can be selected."""


def first_n(pool: Pool, n: int) -> Chances:
    """Every measure over the first n candidates: 1.0 solved, 0.0 not. The first wins a tie.

    None for the measures that need scores if none of the n is scored. A vote without any answer
    counts as not solved.
    """
    correct_answers = pool.answer_is_correct()
    cut = Pool(pool.problem_id, pool.candidates[:n])
    answers = [one.answer for one in cut.candidates]
    found: Chances = {}
    for name in AGGREGATIONS:
        best = best_index(rewards(cut, name))
        found[name] = None if best is None else float(cut.candidates[best].correct)
    voted = majority(answers)
    found["majority"] = float(voted is not None and correct_answers[voted])
    weights = rewards(cut, "min")
    chosen = weighted_majority(answers, weights)
    found["weighted_majority"] = (
        float(chosen is not None and correct_answers[chosen])
        if any(weight is not None for weight in weights)
        else None
    )
    found["pass"] = float(any(one.correct for one in cut.candidates))
    found["mean_accuracy"] = sum(one.correct for one in cut.candidates) / n
    return found


def best_index(figures: Sequence[float | None]) -> int | None:
    """Index of the highest figure, the first of ties; None without figures."""
    known = [(figure, index) for index, figure in enumerate(figures) if figure is not None]
    # max keeps the first of ties.
    return max(known, key=lambda pair: pair[0])[1] if known else None


def expected(pool: Pool, n: int, seed: int = 0, subsets: int = SUBSETS) -> Chances:
    """Every measure in expectation over all subsets of n candidates, ties shared equally.

    Exact, except for the two majorities of a problem with more than `subsets` subsets: these are
    means over that number of random ones, drawn from the seed and the problem's id. Subsets without
    a scored candidate are left out of the measures that need scores.
    """
    total = len(pool.candidates)
    right = sum(one.correct for one in pool.candidates)
    correct = [one.correct for one in pool.candidates]
    found: Chances = {name: expected_best(rewards(pool, name), correct, n) for name in AGGREGATIONS}
    drawn = _drawn_subsets(pool, n, seed, subsets)
    found["majority"] = _expected_vote(pool, drawn, [1.0] * total)
    found["weighted_majority"] = _expected_vote(pool, drawn, rewards(pool, "min"))
    found["pass"] = 1 - math.comb(total - right, n) / math.comb(total, n)
    found["mean_accuracy"] = right / total
    return found


def expected_best(figures: Sequence[float | None], correct: Sequence[bool], n: int) -> float | None:
    """Probability that the highest figure in a random subset of n belongs to a correct candidate.

    The number of subsets whose best has a given figure is the number of subsets at or below it
    minus the number below it (integers, so exact); tied candidates share the probability.
    Candidates without a figure rank below all others and are never selected; None if all lack one.
    """
    groups: dict[float, list[bool]] = defaultdict(list)
    for value, right in zip(figures, correct, strict=True):
        if value is not None:
            groups[value].append(right)
    below = sum(value is None for value in figures)
    possible = math.comb(len(figures), n) - math.comb(below, n)
    if not possible:
        return None
    won = 0.0
    for value in sorted(groups):
        tied = groups[value]
        subsets = math.comb(below + len(tied), n) - math.comb(below, n)
        won += subsets / possible * (sum(tied) / len(tied))
        below += len(tied)
    # Shares may add up to slightly more than one.
    return min(1.0, won)


def _drawn_subsets(pool: Pool, n: int, seed: int, subsets: int) -> NDArray[np.bool_]:
    """Subsets of n candidates as a mask, shape (subsets, candidates): all or `subsets` random
    ones."""
    total = len(pool.candidates)
    if math.comb(total, n) <= subsets:
        every = np.array(list(combinations(range(total), n)), dtype=np.int64)
        chosen = np.zeros((len(every), total), dtype=np.bool_)
        chosen[np.arange(len(every))[:, None], every] = True
        return chosen
    order = generator(seed, pool.problem_id).random((subsets, len(pool.candidates))).argsort(axis=1)
    return np.asarray(order.argsort(axis=1) < n)


def _expected_vote(
    pool: Pool, drawn: NDArray[np.bool_], weights: Sequence[float | None]
) -> float | None:
    """Share of the subsets with a weight whose vote is right; tied answers share."""
    correct_answers: Mapping[str, bool] = pool.answer_is_correct()
    names = {answer: column for column, answer in enumerate(correct_answers)}
    weight: Floats = np.array([0.0 if value is None else value for value in weights])
    known = np.array([value is not None for value in weights])
    usable = drawn[:, known].any(axis=1)
    if not usable.any():
        return None
    if not names:
        return 0.0
    of_answer = np.zeros((len(pool.candidates), len(names)))
    for row, one in enumerate(pool.candidates):
        if one.answer is not None:
            of_answer[row, names[one.answer]] = 1.0
    voting = (drawn & known)[usable].astype(np.float64)
    present = voting @ of_answer > 0
    sums = np.where(present, voting @ (of_answer * weight[:, None]), -1.0)
    # Weights are not negative, so -1 ranks answers that are absent from a subset below all others.
    winners = present & (sums == sums.max(axis=1, keepdims=True))
    right = winners @ np.array([correct_answers[name] for name in names], dtype=np.float64)
    won = winners.sum(axis=1)
    share = np.divide(right, won, out=np.zeros(len(right)), where=won > 0)
    return float(share.mean())


MEASURES = (*AGGREGATIONS, "majority", "weighted_majority", "pass", "mean_accuracy")
"""In output order."""
HEAD = (*(measure.replace("_", " ") for measure in MEASURES), "problems")
"""The columns after N."""


@dataclass(frozen=True, slots=True)
class AtN:
    """Every measure at one N."""

    n: int
    """Candidates to select from."""
    pools: int
    """Problems with at least n candidates, over which the measures are means."""
    short: int
    """Problems with fewer, which are left out."""
    unscored_pools: int
    """Of `pools`, problems without a scored candidate, left out of the measures that need
    scores."""
    accuracy: Mapping[str, Estimate]
    """By measure (`MEASURES`), in [0, 1]; None without problems."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name, with intervals and counts."""
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
    """Number of problems."""
    candidates: int
    unscored: int
    """Candidates without a score on every step."""
    unanswered: int
    """Candidates without an answer."""
    disputed_answers: int
    """Answers that are right for one candidate of a problem and wrong for another; the first
    counts."""
    expected: bool
    """Whether over all subsets of size N, not over the first N."""
    by_n: Mapping[int, AtN]

    def as_json(self) -> dict[str, Any]:
        """The document of `stepgold best-of-n`, without its names."""
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
        """The figures as text, one line per N, and what was left out."""
        table = by_measure(
            {f"N={n}": found for n, found in self.by_n.items()}, title=f"{name}: {self.title}"
        )
        lines = [table.plain(), *width_note([table]), *self.notes()]
        return "\n".join(lines)

    @property
    def title(self) -> str:
        """What the figures are means over."""
        over = "all subsets of N candidates" if self.expected else "the first N candidates"
        return f"best-of-N over {over}, 95% intervals by problem"

    def notes(self) -> list[str]:
        """What was left out."""
        lines = []
        if self.unscored:
            lines.append(f"{self.unscored} of {self.candidates} candidates have no scores")
        if self.candidates and self.unanswered == self.candidates:
            lines.append("no candidate has an answer to vote on")
        lines += [
            f"N={n}: {found.short} problems have fewer candidates and are left out"
            for n, found in self.by_n.items()
            if found.short
        ]
        lines += [
            f"N={n}: {found.unscored_pools} problems have no scored candidate"
            for n, found in self.by_n.items()
            if found.unscored_pools
        ]
        return lines

    def rows(self) -> list[tuple[str, ...]]:
        """One row of cells per N, with intervals."""
        return [
            (
                str(n),
                *(with_interval(found.accuracy[measure]) for measure in MEASURES),
                str(found.pools),
            )
            for n, found in self.by_n.items()
        ]

    def figures_table(self, name: str) -> FigureTable:
        """One line per N, with intervals."""
        return FigureTable(title=f"{name}: {self.title}", head=("N", *HEAD), rows=self.rows())


def by_measure(columns: Mapping[str, AtN], *, title: str) -> FigureTable:
    """A line per measure, a column per N or per labeler, with intervals; the best in bold."""
    rows, best = [], set()
    for at, measure in enumerate(MEASURES):
        found = [one.accuracy[measure] for one in columns.values()]
        # With three labelers, the table has room on a terminal.
        shown = measure.replace("weighted_majority", "weighted maj.").replace("_", " ")
        rows.append((shown, *map(with_interval, found)))
        known = {column: one.value for column, one in enumerate(found, 1) if one.value is not None}
        if len(set(known.values())) > 1:
            best |= {(at, one) for one, value in known.items() if value == max(known.values())}
    rows.append(("problems", *(str(one.pools) for one in columns.values())))
    return FigureTable(title=title, head=("", *columns), rows=rows, best=frozenset(best))


def evaluate_best_of_n(
    pools: Iterable[Pool],
    ns: Sequence[int],
    *,
    over_subsets: bool = False,
    normalize: Normalize | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> BestOfNReport:
    """Best-of-N at each N, with bootstrap intervals by problem.

    Args:
        pools: one per problem.
        ns: each at least 1.
        over_subsets: expectation over all subsets of size N instead of the first N.
        normalize: the form in which answers are compared; None compares them as they are.
        seed: of the bootstrap and of the subsets for the majorities.

    Raises:
        InputError: an N below 1, or two pools of one problem.
    """
    if bad := [n for n in ns if n < 1]:
        raise InputError(f"N is {bad[0]}.", remedy="give numbers of at least 1")
    held = [pool if normalize is None else pool.normalized(normalize) for pool in pools]
    if len({pool.problem_id for pool in held}) < len(held):
        raise InputError("Two pools have the same problem id.")
    everyone = [one for pool in held for one in pool.candidates]
    return BestOfNReport(
        pools=len(held),
        candidates=len(everyone),
        unscored=sum(one.step_scores is None for one in everyone),
        unanswered=sum(one.answer is None for one in everyone),
        disputed_answers=sum(pool.disputed_answers() for pool in held),
        expected=over_subsets,
        by_n={
            n: _at(held, n, over_subsets=over_subsets, seed=seed, resamples=resamples) for n in ns
        },
    )


def _at(pools: Sequence[Pool], n: int, *, over_subsets: bool, seed: int, resamples: int) -> AtN:
    long_enough = [pool for pool in pools if len(pool.candidates) >= n]
    found: dict[str, list[float | None]] = {name: [] for name in MEASURES}
    for pool in long_enough:
        chances = expected(pool, n, seed) if over_subsets else first_n(pool, n)
        for name, column in found.items():
            column.append(chances[name])
    if all(one.answer is None for pool in pools for one in pool.candidates):
        for name in ("majority", "weighted_majority"):
            found[name] = [None] * len(long_enough)
    return AtN(
        n=n,
        pools=len(long_enough),
        short=len(pools) - len(long_enough),
        unscored_pools=sum(chance is None for chance in found["min"]),
        accuracy={name: _accuracy(column, seed, resamples) for name, column in found.items()},
    )


def _accuracy(chances: Sequence[float | None], seed: int, resamples: int) -> Estimate:
    """Mean over the problems on which the measure is defined; problems are resampled."""
    counts = np.array([(value, 1.0) for value in chances if value is not None]).reshape(-1, 2)

    def mean(sums: Floats) -> tuple[Floats, Mask]:
        return ratio(sums[..., 0], sums[..., 1])

    return estimate(
        mean, counts.sum(axis=0), resampled_sums(counts, generator(seed, "best-of-n"), resamples)
    )


PUBLISHED_BEST_OF_N = "eth-medical-ai-lab/Med-PRM, python/4_scoring_PRM.py"
"""The script whose rules `published_best_of_n` repeats."""


@dataclass(frozen=True, slots=True)
class PublishedCandidate:
    """One solution as Med-PRM's scoring script sees it."""

    answer: str | None
    """As extracted; None is an answer like any other."""
    correct: bool
    """Whether the file says 1; unknown counts as wrong."""
    least: float | None
    """`PRM_min_score`; None for a skipped solution (-Infinity)."""


def published_best_of_n(
    pools: Sequence[Sequence[PublishedCandidate]], n: int
) -> dict[str, float | int | None]:
    """Med-PRM's own accuracies over the first n solutions of each question.

    Best-of-N takes the highest `PRM_min_score`, the first of ties; a skipped solution is never
    chosen, and a question without any other counts as wrong. The majority is the most frequent
    answer, null among them, the first of ties; it is right if one of its solutions is. A question
    with fewer than n solutions stays in, with those it has.

    Returns:
        `best_of_n` and `majority` in [0, 1] (None without questions), `questions`, and `skipped`:
        solutions without a score.
    """
    chosen = voted = 0
    for pool in pools:
        cut = pool[:n]
        best = best_index([one.least for one in cut])
        chosen += best is not None and cut[best].correct
        if cut:
            answer = Counter(one.answer for one in cut).most_common(1)[0][0]
            voted += any(one.correct for one in cut if one.answer == answer)
    return {
        "best_of_n": chosen / len(pools) if pools else None,
        "majority": voted / len(pools) if pools else None,
        "questions": len(pools),
        "skipped": sum(one.least is None for pool in pools for one in pool[:n]),
    }
