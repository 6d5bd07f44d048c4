"""Macro F1 over steps, as VisualProcessBench reports it (arXiv 2503.10291, section 3.3): all wrong steps count.

Mean of the F1 of correct and of incorrect steps over all steps pooled; steps that gold calls
neutral are out, a missing call counts as the other class, a class absent from both sides has F1 0.
Where gold is a first error only, the steps behind it are not scored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evaluation import figures as measures
from evaluation.evaluated import EvaluatedTrace, split_by_gold
from evaluation.figures import RESAMPLES, Estimate, Group, as_list, estimate, whole_and_subsets
from evaluation.protocols.table import PooledReport
from evaluation.wording import figure, with_interval


@dataclass(frozen=True, slots=True)
class StepReport:
    """The step measures of one group of traces."""

    macro_f1: Estimate
    """Mean of the two; None if no step can be scored."""
    f1_correct: Estimate
    """F1 of the class of correct steps."""
    f1_incorrect: Estimate
    """F1 of the class of incorrect steps."""
    step_accuracy: Estimate
    """Share of the scored steps called as they are."""
    n_correct: int
    """Scored steps that are correct."""
    n_incorrect: int
    """Scored steps that are not."""
    n_neutral: int
    """Steps left out because gold calls them neutral."""
    missing: int
    """Scored steps on which the labeler is silent."""

    def as_json(self) -> dict[str, Any]:
        """As in the contract, with the interval of macro_f1."""
        return {
            "macro_f1": self.macro_f1.value,
            "ci95": as_list(self.macro_f1),
            "f1_correct": self.f1_correct.value,
            "f1_incorrect": self.f1_incorrect.value,
            "n_correct": self.n_correct,
            "n_incorrect": self.n_incorrect,
            "n_neutral": self.n_neutral,
            "missing": self.missing,
        }

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        return (
            with_interval(self.macro_f1),
            figure(self.f1_correct.value),
            figure(self.f1_incorrect.value),
            str(self.n_correct),
            str(self.n_incorrect),
            str(self.n_neutral),
            str(self.missing),
        )


class MacroF1Report(PooledReport[StepReport]):
    """The protocol's result for one labeler on one dataset."""

    __slots__ = ()
    protocol = "macro-f1"
    title = "macro-f1 over steps"
    columns = (
        "macro_f1",
        "f1_correct",
        "f1_incorrect",
        "correct",
        "incorrect",
        "neutral",
        "missing",
    )


def evaluate_macro_f1(
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    threshold_source: str = "given",
) -> MacroF1Report:
    """Evaluate one labeler on all scored steps; arguments as `evaluate_processbench`."""
    split = split_by_gold(traces)
    whole, groups = whole_and_subsets(split.usable, measures.step_row, threshold)
    return MacroF1Report(
        threshold=threshold,
        threshold_source=threshold_source,
        overall=_report(whole, seed, resamples),
        subsets={name: _report(group, seed, resamples) for name, group in groups.items()},
        gold_unusable=split.gold_unusable,
        gold_missing=split.gold_missing,
    )


def _report(group: Group, seed: int, resamples: int) -> StepReport:
    sums, drawn = group.resampled(seed, resamples)
    right, over, under, found, neutral, missing = (int(count) for count in sums)
    return StepReport(
        macro_f1=estimate(measures.macro_f1, sums, drawn),
        f1_correct=estimate(measures.f1_correct, sums, drawn),
        f1_incorrect=estimate(measures.f1_incorrect, sums, drawn),
        step_accuracy=estimate(measures.step_accuracy_of, sums, drawn),
        n_correct=right + over,
        n_incorrect=under + found,
        n_neutral=neutral,
        missing=missing,
    )


def step_accuracy(traces: Iterable[EvaluatedTrace], threshold: float = 0.5) -> float | None:
    """Share of the steps with gold on which the labeler agrees; silence is no agreement.

    None if no step can be scored.
    """
    rows = measures.rows_of(split_by_gold(traces).usable, measures.step_row, threshold)
    value, defined = measures.step_accuracy_of(rows.sum(axis=0)[None, :])
    return float(value[0]) if defined[0] else None
