"""Macro F1 over steps, as VisualProcessBench reports it (arXiv 2503.10291, section 3.3): all wrong steps count.

Mean of the F1 of correct and of incorrect steps over all steps pooled; steps that gold calls
neutral are out, a missing call counts as the other class, a class absent from both sides has F1 0.
Where gold is a first error only, the steps behind it are not scored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evaluation import measures
from evaluation.bootstrap import RESAMPLES, Estimate, estimate
from evaluation.evaluated import EvaluatedTrace, split_by_gold
from evaluation.groups import Group, whole_and_subsets
from evaluation.wording import figure, left_out_note, plain_table, threshold_note, with_interval


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
            "ci95": None if self.macro_f1.ci95 is None else list(self.macro_f1.ci95),
            "f1_correct": self.f1_correct.value,
            "f1_incorrect": self.f1_incorrect.value,
            "n_correct": self.n_correct,
            "n_incorrect": self.n_incorrect,
            "n_neutral": self.n_neutral,
            "missing": self.missing,
        }


@dataclass(frozen=True, slots=True)
class MacroF1Report:
    """The protocol's result for one labeler on one dataset."""

    threshold: float
    """A step is correct iff its score is at least this."""
    threshold_source: str
    """`given`, or the subset it was fitted on."""
    overall: StepReport
    """All steps pooled."""
    subsets: dict[str, StepReport]
    """By subset name, in alphabetical order."""
    gold_unusable: int
    """Traces left out because their gold is an abstention."""
    gold_missing: int
    """Traces left out because they have no gold."""

    def as_json(self, *, dataset: str, labeler: str, gold: str) -> dict[str, Any]:
        """The document of `stepgold evaluate --protocol macro-f1`."""
        return {
            "protocol": "macro-f1",
            "dataset": dataset,
            "labeler": labeler,
            "gold": gold,
            "threshold": self.threshold,
            "threshold_source": self.threshold_source,
            "overall": self.overall.as_json(),
            "subsets": {name: report.as_json() for name, report in self.subsets.items()},
            "gold_unusable": self.gold_unusable,
            "gold_missing": self.gold_missing,
        }

    def table(self, labeler: str) -> str:
        """The figures for a person, one line per subset."""
        rows = [
            (
                name,
                with_interval(report.macro_f1),
                figure(report.f1_correct.value),
                figure(report.f1_incorrect.value),
                str(report.n_correct),
                str(report.n_incorrect),
                str(report.n_neutral),
                str(report.missing),
            )
            for name, report in [*self.subsets.items(), ("overall", self.overall)]
        ]
        head = (
            "subset",
            "macro_f1",
            "f1_correct",
            "f1_incorrect",
            "correct",
            "incorrect",
            "neutral",
            "missing",
        )
        return (
            f"{labeler}: macro-f1 over steps, 95% intervals by problem\n{plain_table(head, rows)}"
            f"{threshold_note(self.threshold, self.threshold_source)}"
            f"{left_out_note(self.gold_unusable + self.gold_missing)}"
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
        threshold,
        threshold_source,
        _report(whole, seed, resamples),
        {name: _report(group, seed, resamples) for name, group in groups.items()},
        split.gold_unusable,
        split.gold_missing,
    )


def _report(group: Group, seed: int, resamples: int) -> StepReport:
    sums, drawn = group.resampled(seed, resamples)
    right, over, under, found, neutral, missing = (int(count) for count in sums)
    return StepReport(
        estimate(measures.macro_f1, sums, drawn),
        estimate(measures.f1_correct, sums, drawn),
        estimate(measures.f1_incorrect, sums, drawn),
        estimate(measures.step_accuracy_of, sums, drawn),
        right + over,
        under + found,
        neutral,
        missing,
    )


def step_accuracy(traces: Iterable[EvaluatedTrace], threshold: float = 0.5) -> float | None:
    """Share of the steps with gold on which the labeler agrees; silence is no agreement.

    None if no step can be scored.
    """
    rows = measures.rows_of(split_by_gold(traces).usable, measures.step_row, threshold)
    value, defined = measures.step_accuracy_of(rows.sum(axis=0)[None, :])
    return float(value[0]) if defined[0] else None
