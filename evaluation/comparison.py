"""Compares labelers with each other: agreement, chance-corrected agreement, first errors.

A step is "incorrect" or not: neutral is no error, a score is incorrect below the labeler's
threshold. Steps that one of two labelers did not label are left out. Intervals resample problems.

The formulas (Cohen's kappa, Krippendorff's alpha, Pearson's r) work on counts that add up over
steps, so that resampling problems gives their intervals; the functions on labels count first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.frames import Floats, Mask
from evaluation.label_table import (
    KINDS,
    ComparedTrace,
    ComparedTraces,
    FirstErrorConfusion,
    LabelTable,
    StepColumns,
    called_counts,
    first_error_confusion,
    label_table,
)
from evaluation.measures import (
    RESAMPLES,
    Estimate,
    as_list,
    estimate,
    generator,
    ratio,
    resampled_sums,
)
from evaluation.paired import PairedReport, compare_by_measure
from evaluation.wording import FigureTable, figure, figures_json, width_note, with_interval


def kappa_of_tables(tables: Floats) -> tuple[Floats, Mask]:
    """Cohen's kappa of cross tables, shape (..., classes, classes), and where it is defined.

    Undefined without steps, and where both labelers always give the same class.
    """
    n = tables.sum(axis=(-2, -1))
    agreed = np.trace(tables, axis1=-2, axis2=-1)
    by_chance = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1)
    # Counts are integers below 2**53, so the comparison is exact.
    defined = np.asarray(by_chance != n * n)
    room = np.where(defined, n * n - by_chance, 1.0)
    return np.where(defined, n * agreed - by_chance, 0.0) / room, defined


def alpha_of_counts(totals: Floats, observed: Floats) -> tuple[Floats, Mask]:
    """Krippendorff's nominal alpha, with a mask of where it is defined.

    Args:
        totals: labels by class on steps with at least two labels, shape (..., classes).
        observed: sum over those steps of (m² - sum of squared counts) / (m - 1) for m labels on a
            step, shape (...).
    """
    n = totals.sum(axis=-1)
    expected = n * n - (totals * totals).sum(axis=-1)
    defined = np.asarray(expected > 0)
    return 1 - np.where(defined, (n - 1) * observed, 0.0) / np.where(
        defined, expected, 1.0
    ), defined


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement beyond chance of two labelers on the same steps, in [-1, 1]; None where undefined.

    Raises:
        ValueError: the numbers of labels differ.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} labels and {len(second)} labels")
    numbers: dict[Hashable, int] = {}
    for label in (*first, *second):
        numbers.setdefault(label, len(numbers))
    table = np.zeros((len(numbers), len(numbers)))
    np.add.at(table, ([numbers[label] for label in first], [numbers[label] for label in second]), 1)
    value, defined = kappa_of_tables(table)
    return float(value) if defined else None


def pearson(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> float | None:
    """Correlation of two labelers' scores in [-1, 1]; None below two steps or if one is constant.

    Raises:
        ValueError: the numbers of scores differ.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} scores and {len(second)} scores")
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return _correlation(lambda: iter([(x, y)]))


def _correlation(parts: Callable[[], Iterator[tuple[Floats, Floats]]]) -> float | None:
    """As `pearson`, of scores that come in parts, which are read twice."""
    n, varied, sums, head = 0, np.zeros(2, np.bool_), np.zeros(2), np.zeros(2)
    for part in parts():
        if len(part[0]):
            head = head if n else np.array([part[0][0], part[1][0]])
            varied |= [(side != at).any() for side, at in zip(part, head, strict=True)]
            sums += [side.sum() for side in part]
            n += len(part[0])
    if n < 2 or not varied.all():
        return None
    product, squares, means = 0.0, np.zeros(2), sums / n
    for part in parts():
        x, y = (side - mean for side, mean in zip(part, means, strict=True))
        product += float(x @ y)
        squares += [x @ x, y @ y]
    length = float(np.sqrt(squares[0]) * np.sqrt(squares[1]))
    if length == 0:
        return None
    return max(-1.0, min(1.0, product / length))


def krippendorff_alpha(labels: Sequence[Sequence[Hashable | None]]) -> float | None:
    """Nominal alpha of any number of labelers, in [-1, 1]; labels may be missing.

    None if no step has two labels, or if all labels are of one class.

    Args:
        labels: one row per labeler, one column per step; None for an unlabeled step.

    Raises:
        ValueError: the rows have different lengths.
    """
    if len({len(row) for row in labels}) > 1:
        raise ValueError("the labelers have different numbers of steps")
    counts = [
        Counter(label for label in column if label is not None)
        for column in zip(*labels, strict=True)
    ]
    counts = [found for found in counts if found.total() > 1]
    totals = sum(counts, Counter[Hashable]())
    observed = sum(
        (found.total() ** 2 - sum(count * count for count in found.values())) / (found.total() - 1)
        for found in counts
    )
    value, defined = alpha_of_counts(
        np.array(list(totals.values()), dtype=np.float64), np.array(observed, dtype=np.float64)
    )
    return float(value) if defined else None


PAIRED_MEASURES = {"processbench_f1": True, "macro_f1": False}
"""Measures of the paired tests against gold, and whether the headline is the mean over subsets."""


@dataclass(frozen=True, slots=True)
class PairComparison:
    """Two labelers on the same traces."""

    a: str
    b: str
    n_steps: int
    """Steps that both label."""
    n_neutral: int
    """Of them, steps that one of the two calls neutral, which counts as no error."""
    agreement: Estimate
    """Share of those steps with the same label."""
    cohen_kappa: Estimate
    """Agreement beyond chance, in [-1, 1]; None where both always give one label."""
    n_scored: int
    """Steps that both score."""
    pearson: float | None
    """Correlation of the scores; None below two steps or if one is constant."""
    n_first_errors: int
    """Traces on which both give a first error or none."""
    first_error_agreement: Estimate
    """Share of those on which they agree."""
    first_errors: FirstErrorConfusion
    """How they differ, with gold (else b) as the reference."""
    paired: Mapping[str, PairedReport] | None = None
    """Tests by measure whether a is better than b; None without gold, or if one of them is gold."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return figures_json(self)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every pair of labelers, and all together."""

    table: LabelTable
    pairs: tuple[PairComparison, ...]
    """Every pair, in the order of the labelers."""
    krippendorff_alpha: Estimate
    """Nominal alpha of all labelers; None if no step has two labels or all labels are equal."""
    n_alpha: int
    """Steps with at least two labels."""

    def pair(self, first: str, second: str) -> PairComparison | None:
        """The pair of these two in either order; None if not compared."""
        return next((pair for pair in self.pairs if {pair.a, pair.b} == {first, second}), None)

    def as_json(self) -> dict[str, Any]:
        """The document of `stepgold compare`, without the disagreements."""
        return {
            "labelers": list(self.table.columns),
            "n_traces": len(self.table.frame),
            "n_steps": self.table.n_steps,
            "pairs": [pair.as_json() for pair in self.pairs],
            "krippendorff_alpha": self.krippendorff_alpha.value,
            "krippendorff_alpha_ci95": as_list(self.krippendorff_alpha),
            "n_krippendorff": self.n_alpha,
        }


def compare_labelers(
    traces: Sequence[ComparedTrace] | ComparedTraces,
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
        thresholds: by labeler, gold included; a step is correct iff its score is at least that.
        gold: the labeler taken as truth, whether or not it is compared; None if there is none.
        paired_tests: whether to compare every pair on gold by a paired bootstrap.

    Raises:
        ValueError: the numbers of steps of a label and its trace differ.
    """
    known = ComparedTraces.of(traces, [*names, *([] if gold is None else [gold])])
    table = label_table(known, names, thresholds)
    pairs = tuple(
        _pair(
            table,
            (table.columns[one], table.columns[two]),
            gold=gold,
            paired=_paired(
                known, (one, two), thresholds=thresholds, gold=gold, seed=seed, resamples=resamples
            )
            if paired_tests
            else None,
            seed=seed,
            resamples=resamples,
        )
        for one, two in combinations(names, 2)
    )
    alpha, n_alpha = _alpha(table, seed, resamples)
    return Comparison(table, pairs, alpha, n_alpha)


def _pair(
    table: LabelTable,
    columns: tuple[StepColumns, StepColumns],
    gold: str | None,
    paired: Mapping[str, PairedReport] | None,
    seed: int,
    resamples: int,
) -> PairComparison:
    one, two = columns
    steps = _common_steps(table, one, two)
    sums, draws = _resampled(steps.counts, name="steps", seed=seed, resamples=resamples)
    named = ~(one.first_errors.missing | two.first_errors.missing)
    same = one.first_errors.equal(two.first_errors)[named]
    problems = table.problem_of_trace[named]
    # Columns: the same first error, and all.
    counts = np.stack([_sums(problems, same), _sums(problems, np.ones(len(same)))], axis=1)
    firsts = _resampled(counts, name="first-errors", seed=seed, resamples=resamples)
    of, against = (two, one) if one.labeler == gold else (one, two)
    return PairComparison(
        a=one.labeler,
        b=two.labeler,
        n_steps=steps.n,
        n_neutral=steps.neutral,
        agreement=estimate(_agreement, sums, draws),
        cohen_kappa=estimate(_kappa, sums, draws),
        n_scored=steps.scored,
        pearson=_correlation(lambda: _common_scores(table, one, two)),
        n_first_errors=len(same),
        first_error_agreement=estimate(_share, *firsts),
        first_errors=first_error_confusion(
            of.labeler, against.labeler, of.first_errors, against.first_errors
        ),
        paired=paired,
    )


@dataclass(frozen=True, slots=True)
class _CommonSteps:
    """What two labelers say of the steps that both label."""

    counts: Floats
    """Steps by problem, shape (problems, 4): both correct, only b incorrect, only a incorrect, both
    incorrect."""
    n: int
    neutral: int
    """Steps that one of the two calls neutral."""
    scored: int
    """Steps that both score."""


def _common_steps(table: LabelTable, one: StepColumns, two: StepColumns) -> _CommonSteps:
    frame, neutral, scored = table.frame, 0, 0
    of_trace = np.zeros((4, len(frame)), np.int32)
    for traces, steps in frame.blocks():
        both, a, b = one.known[steps] & two.known[steps], one.incorrect[steps], two.incorrect[steps]
        neutral += int((both & (one.neutral(steps) | two.neutral(steps))).sum())
        scored += int((one.scored[steps] & two.scored[steps]).sum())
        for row, kind in zip(of_trace, (~a & ~b, ~a & b, a & ~b, a & b), strict=True):
            row[traces] = frame.total_of(both & kind, traces)
    counts = np.stack([_sums(table.problem_of_trace, row) for row in of_trace], axis=1)
    return _CommonSteps(counts, int(of_trace.sum()), neutral, scored)


def _common_scores(
    table: LabelTable, one: StepColumns, two: StepColumns
) -> Iterator[tuple[Floats, Floats]]:
    """The scores of the steps that both score, some traces at a time."""
    for _, steps in table.frame.blocks():
        scored = one.scored[steps] & two.scored[steps]
        yield one.score[steps][scored], two.score[steps][scored]


def _paired(
    traces: ComparedTraces,
    names: tuple[str, str],
    thresholds: Mapping[str, float],
    gold: str | None,
    seed: int,
    resamples: int,
) -> Mapping[str, PairedReport] | None:
    if gold is None or gold in names:
        return None
    first, second = (traces.against(name, gold) for name in names)
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


def _alpha(table: LabelTable, seed: int, resamples: int) -> tuple[Estimate, int]:
    problem, lengths, n_alpha = table.problem_of_trace, table.frame.n_steps, 0
    counts = np.zeros((int(problem.max()) + 1 if len(problem) else 0, 3))
    for traces, _, all_good, all_bad in called_counts(table):
        paired = all_good + all_bad > 1
        good, bad = all_good[paired].astype(np.int64), all_bad[paired].astype(np.int64)
        problems = np.repeat(problem[traces], lengths[traces])[paired]
        for column, each in enumerate((good, bad, 2 * good * bad / (good + bad - 1))):
            np.add.at(counts[:, column], problems, each)
        n_alpha += len(problems)
    sums, draws = _resampled(counts, name="alpha", seed=seed, resamples=resamples)

    def alpha(counts: Floats) -> tuple[Floats, Mask]:
        return alpha_of_counts(counts[..., :2], counts[..., 2])

    return estimate(alpha, sums, draws), n_alpha


def _resampled(counts: Floats, name: str, seed: int, resamples: int) -> tuple[Floats, Floats]:
    """Sums over problems, shape (columns,), and over resampled problems, shape (resamples,
    columns); problems without any count are left out."""
    held = counts[counts.any(axis=1)]
    return held.sum(axis=0), resampled_sums(held, generator(seed, name), resamples)


def _sums(problems: NDArray[Any], values: NDArray[Any]) -> Floats:
    """The sum of the values of each problem."""
    return np.bincount(problems, values).astype(np.float64)


def _agreement(sums: Floats) -> tuple[Floats, Mask]:
    return ratio(sums[..., 0] + sums[..., 3], sums.sum(axis=-1))


def _kappa(sums: Floats) -> tuple[Floats, Mask]:
    return kappa_of_tables(sums.reshape(*sums.shape[:-1], 2, 2))


def _share(sums: Floats) -> tuple[Floats, Mask]:
    return ratio(sums[..., 0], sums[..., 1])


def comparison_tables(
    found: Comparison, scored: Mapping[str, Sequence[Estimate]] | None = None
) -> list[FigureTable]:
    """The comparison as tables: agreement of pairs, first errors, and figures against gold.

    Args:
        found: the comparison.
        scored: by labeler its processbench_f1 and macro_f1 against gold; None without gold.
    """
    pairs = [
        (
            f"{pair.a} / {pair.b}",
            str(pair.n_steps),
            with_interval(pair.agreement),
            with_interval(pair.cohen_kappa),
            figure(pair.pearson),
        )
        for pair in found.pairs
    ]
    firsts = [
        (
            f"{pair.a} / {pair.b}",
            str(pair.n_first_errors),
            with_interval(pair.first_error_agreement),
        )
        for pair in found.pairs
    ]
    sizes = f"{len(found.table.frame)} traces, {found.table.n_steps} steps"
    against_gold = [
        (name, *map(with_interval, figures)) for name, figures in (scored or {}).items()
    ]
    return [
        FigureTable(
            title=f"{sizes}, 95% intervals by problem",
            head=("pair", "steps", "agreement", "kappa", "Pearson"),
            rows=pairs,
        ),
        FigureTable(
            title="agreement on the first error",
            head=("pair", "traces", "agreement"),
            rows=firsts,
        ),
        _first_error_table(found),
        *(
            [FigureTable(title="against gold", head=AGAINST_GOLD, rows=against_gold)]
            if against_gold
            else []
        ),
    ]


def _first_error_table(found: Comparison) -> FigureTable:
    """Who finds the first error how early; the column `left out` only where something is."""
    errors: list[tuple[str, ...]] = [
        (
            pair.first_errors.of,
            pair.first_errors.against,
            *(str(pair.first_errors.counts[kind]) for kind in KINDS),
            str(pair.first_errors.reference_missing),
        )
        for pair in found.pairs
    ]
    kinds = (kind.replace("_", " ") for kind in KINDS)
    errors_head: tuple[str, ...] = ("labeler", "against", *kinds, "left out")
    if not any(pair.first_errors.reference_missing for pair in found.pairs):
        errors_head, errors = errors_head[:-1], [row[:-1] for row in errors]
    return FigureTable(title="first errors", head=errors_head, rows=errors)


AGAINST_GOLD = ("labeler", "processbench_f1", "macro_f1")
"""Head of the table of figures against gold."""


def comparison_lines(
    found: Comparison, scored: Mapping[str, Sequence[Estimate]] | None = None
) -> list[str]:
    """The comparison as text: the tables, alpha, and the tests against gold."""
    tables = comparison_tables(found, scored)
    pairs, firsts, errors, *against_gold = tables
    return [
        pairs.plain(),
        f"Krippendorff's alpha of all: {with_interval(found.krippendorff_alpha)} "
        f"on {found.n_alpha} steps with two labels or more",
        firsts.plain(),
        errors.plain(),
        *(one.plain() for one in against_gold),
        *width_note(tables),
        *(
            report.line(pair.a, pair.b)
            for pair in found.pairs
            if pair.paired is not None
            for report in pair.paired.values()
        ),
    ]
