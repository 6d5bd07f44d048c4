"""Two or more labelers beside each other: how far they agree, beyond chance, and on the first error.

Words are "incorrect" or not: neutral is no error, a score is incorrect below the labeler's threshold
(design.md section 3). Steps on which one of the two is silent are left out and so not held against
anybody. Intervals resample problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.agreement import alpha_of_counts, kappa_of_tables, pearson
from evaluation.bootstrap import (
    RESAMPLES,
    Estimate,
    as_list,
    estimate,
    generator,
    resampled_sums,
)
from evaluation.evaluated import EvaluatedTrace
from evaluation.first_error_confusion import FirstErrorConfusion, first_error_confusion
from evaluation.measures import Floats, Mask, ratio
from evaluation.paired import PairedReport, compare_by_measure
from evaluation.step_words import ComparedTrace, StepWords, WordTable, word_table

PAIRED_MEASURES = {"processbench_f1": True, "macro_f1": False}
"""Measures of the paired test against gold, and whether the whole is the mean over subsets."""


@dataclass(frozen=True, slots=True)
class PairComparison:
    """Two labelers on the same traces."""

    a: str
    """The first."""
    b: str
    """The second."""
    n_steps: int
    """Steps on which both have a word."""
    n_neutral: int
    """Of them, steps that one of the two calls neutral, which is taken as no error."""
    agreement: Estimate
    """Share of those steps on which they say the same."""
    cohen_kappa: Estimate
    """The same beyond chance, in [-1, 1]; None where both always say one word."""
    n_scored: int
    """Steps that both give a score."""
    pearson: float | None
    """Correlation of these scores; None below two steps or where one is constant."""
    n_first_errors: int
    """Traces on which both say where the first error is, or that there is none."""
    first_error_agreement: Estimate
    """Share of those on which they say the same."""
    first_errors: FirstErrorConfusion
    """How they differ, with gold (else b) as the measure."""
    paired: Mapping[str, PairedReport] | None = None
    """By measure: is a better than b? None where there is no gold, or one of them is it."""

    def as_json(self) -> dict[str, Any]:
        """As in the contract, with intervals and counts."""
        return {
            "a": self.a,
            "b": self.b,
            "n_steps": self.n_steps,
            "n_neutral": self.n_neutral,
            "agreement": self.agreement.value,
            "agreement_ci95": as_list(self.agreement),
            "cohen_kappa": self.cohen_kappa.value,
            "cohen_kappa_ci95": as_list(self.cohen_kappa),
            "n_scored": self.n_scored,
            "pearson": self.pearson,
            "n_first_errors": self.n_first_errors,
            "first_error_agreement": self.first_error_agreement.value,
            "first_error_agreement_ci95": as_list(self.first_error_agreement),
            "first_errors": self.first_errors.as_json(),
            "paired": None
            if self.paired is None
            else {measure: found.as_json() for measure, found in self.paired.items()},
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every pair of labelers, and all together."""

    table: WordTable
    """What they said."""
    pairs: tuple[PairComparison, ...]
    """Every two, in the order of the labelers."""
    krippendorff_alpha: Estimate
    """Nominal alpha of all of them; None where no step has two words or only one word was used."""
    n_alpha: int
    """Steps with at least two words."""

    def pair(self, first: str, second: str) -> PairComparison | None:
        """The pair of these two in either order; None if it was not compared."""
        return next((pair for pair in self.pairs if {pair.a, pair.b} == {first, second}), None)

    def as_json(self) -> dict[str, Any]:
        """The figures of `stepgold compare`, without the disagreements."""
        return {
            "labelers": list(self.table.words),
            "n_traces": len(self.table.traces),
            "n_steps": len(self.table.trace_of_step),
            "pairs": [pair.as_json() for pair in self.pairs],
            "krippendorff_alpha": self.krippendorff_alpha.value,
            "krippendorff_alpha_ci95": as_list(self.krippendorff_alpha),
            "n_krippendorff": self.n_alpha,
        }


def compare_labelers(
    traces: Sequence[ComparedTrace],
    names: Sequence[str],
    thresholds: Mapping[str, float],
    *,
    gold: str | None = None,
    paired_tests: bool = True,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare labelers on the same traces.

    Args:
        names: at least two labelers.
        thresholds: by labeler, the gold one too; a step is correct iff its score is at least that.
        gold: the labeler taken as truth, compared itself or not; None if there is none.
        paired_tests: whether every two are held against gold by a paired bootstrap.

    Raises:
        ValueError: a label has another number of steps than its trace.
    """
    table = word_table(traces, names, thresholds)
    pairs = tuple(
        _pair(
            table,
            (table.words[one], table.words[two]),
            gold,
            _paired(traces, (one, two), thresholds, gold, seed, resamples)
            if paired_tests
            else None,
            seed,
            resamples,
        )
        for one, two in combinations(names, 2)
    )
    alpha, n_alpha = _alpha(table, seed, resamples)
    return Comparison(table, pairs, alpha, n_alpha)


def _pair(
    table: WordTable,
    words: tuple[StepWords, StepWords],
    gold: str | None,
    paired: Mapping[str, PairedReport] | None,
    seed: int,
    resamples: int,
) -> PairComparison:
    one, two = words
    both = one.known & two.known
    scored = one.scored & two.scored
    # Columns: both correct, only b incorrect, only a incorrect, both incorrect.
    said = np.eye(4)[2 * one.incorrect[both] + two.incorrect[both]]
    sums, draws = _drawn(table.problem_of_step[both], said, "steps", seed, resamples)
    named = [
        (place, first == second)
        for place, (first, second) in enumerate(
            zip(one.first_errors, two.first_errors, strict=True)
        )
        if not (first.missing or second.missing)
    ]
    where = np.array([place for place, _ in named], dtype=np.int64)
    rows = np.array([(same, 1) for _, same in named], dtype=np.float64).reshape(-1, 2)
    firsts = _drawn(table.problem_of_trace[where], rows, "first-errors", seed, resamples)
    of, against = (two, one) if one.labeler == gold else (one, two)
    return PairComparison(
        one.labeler,
        two.labeler,
        int(both.sum()),
        int((both & (one.neutral | two.neutral)).sum()),
        estimate(_agreement, sums, draws),
        estimate(_kappa, sums, draws),
        int(scored.sum()),
        pearson(one.score[scored], two.score[scored]),
        len(named),
        estimate(_share, *firsts),
        first_error_confusion(of.labeler, against.labeler, of.first_errors, against.first_errors),
        paired,
    )


def _paired(
    traces: Sequence[ComparedTrace],
    names: tuple[str, str],
    thresholds: Mapping[str, float],
    gold: str | None,
    seed: int,
    resamples: int,
) -> Mapping[str, PairedReport] | None:
    if gold is None or gold in names:
        return None
    first, second = (against_gold(traces, name, gold) for name in names)
    return {
        measure: compare_by_measure(
            first,
            second,
            measure,
            averaged=averaged,
            threshold=thresholds[names[0]],
            second_threshold=thresholds[names[1]],
            seed=seed,
            resamples=resamples,
        )
        for measure, averaged in PAIRED_MEASURES.items()
    }


def against_gold(traces: Sequence[ComparedTrace], name: str, gold: str) -> list[EvaluatedTrace]:
    """The traces as an evaluation of one of the labelers looks at them."""
    return [
        EvaluatedTrace(
            trace.trace_id,
            trace.problem_id,
            trace.subset,
            trace.n_steps,
            trace.labels.get(gold),
            trace.labels.get(name),
            trace.final_answer_correct,
        )
        for trace in traces
    ]


def _alpha(table: WordTable, seed: int, resamples: int) -> tuple[Estimate, int]:
    words = table.words.values()
    steps = len(table.trace_of_step)
    said = sum((one.known for one in words), np.zeros(steps))
    bad = sum((one.known & one.incorrect for one in words), np.zeros(steps))
    paired = said > 1
    m, bad = said[paired], bad[paired]
    good = m - bad
    rows: Floats = np.stack([good, bad, 2 * good * bad / (m - 1)], axis=1).astype(np.float64)
    sums, draws = _drawn(table.problem_of_step[paired], rows, "alpha", seed, resamples)

    def alpha(counts: Floats) -> tuple[Floats, Mask]:
        return alpha_of_counts(counts[..., :2], counts[..., 2])

    return estimate(alpha, sums, draws), int(paired.sum())


def _drawn(
    problems: NDArray[np.int64], rows: Floats, name: str, seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Sums of the rows, shape (columns,), and over resampled problems, shape (resamples, columns)."""
    held, at = np.unique(problems, return_inverse=True)
    counts = np.zeros((len(held), rows.shape[1]))
    np.add.at(counts, at.reshape(-1), rows)
    return counts.sum(axis=0), resampled_sums(counts, generator(seed, name), resamples)


def _agreement(sums: Floats) -> tuple[Floats, Mask]:
    return ratio(sums[..., 0] + sums[..., 3], sums.sum(axis=-1))


def _kappa(sums: Floats) -> tuple[Floats, Mask]:
    return kappa_of_tables(sums.reshape(*sums.shape[:-1], 2, 2))


def _share(sums: Floats) -> tuple[Floats, Mask]:
    return ratio(sums[..., 0], sums[..., 1])
