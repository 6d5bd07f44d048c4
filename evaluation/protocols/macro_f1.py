"""Macro F1 over steps, as in VisualProcessBench (arXiv 2503.10291, 3.3): all wrong steps count.

The mean of the F1 of correct and of incorrect steps over all steps pooled. Steps that gold calls
neutral are left out, a missing call counts as the other class, a class absent from gold and calls
has F1 0. Where gold is only a first error, later steps are not scored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evaluation import measures
from evaluation.evaluated import EvaluatedTrace, split_by_gold
from evaluation.measures import (
    RESAMPLES,
    Estimate,
    Group,
    as_list,
    estimate,
    mean_estimate,
    whole_and_subsets,
)
from evaluation.protocols.protocol import GroupFigures, Paper, Protocol, ProtocolReport
from evaluation.wording import with_interval


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport(GroupFigures):
    """The step measures of one group of traces."""

    lead = "macro_f1"
    columns = (
        ("macro_f1", "macro_f1"),
        ("f1_correct", "f1_correct.value"),
        ("f1_incorrect", "f1_incorrect.value"),
        ("correct", "n_correct"),
        ("incorrect", "n_incorrect"),
        ("neutral", "n_neutral"),
        ("missing", "missing"),
    )

    macro_f1: Estimate
    """Mean of the two class F1s; None if no step can be scored."""
    f1_correct: Estimate
    f1_incorrect: Estimate
    step_accuracy: Estimate
    """Share of the scored steps called right."""
    n_correct: int
    """Scored steps that gold calls correct."""
    n_incorrect: int
    """Scored steps that gold calls incorrect."""
    n_neutral: int
    """Steps left out because gold calls them neutral."""
    missing: int
    """Scored steps that the labeler did not label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MacroF1Report(ProtocolReport[StepReport]):
    """The result of the protocol `macro-f1`."""

    protocol = "macro-f1"
    title = "macro-f1 over steps"
    figures = StepReport

    mean_of_subsets: Estimate
    """The unweighted mean over subsets, which some papers report; None if one is undefined."""

    def as_json(self, *, dataset: str, labeler: str, gold: str) -> dict[str, Any]:
        """The document of `stepgold evaluate --protocol macro-f1`."""
        document = ProtocolReport.as_json(self, dataset=dataset, labeler=labeler, gold=gold)
        mean = self.mean_of_subsets
        return document | {"mean_of_subsets": {"macro_f1": mean.value, "ci95": as_list(mean)}}

    def remark(self) -> str:
        """Gives the mean over subsets where there are several."""
        if len(self.subsets) < 2:
            return ""
        return (
            f"\nmacro_f1 as the unweighted mean over {len(self.subsets)} subsets:"
            f" {with_interval(self.mean_of_subsets)}"
        )


def evaluate_macro_f1(
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    threshold_source: str = "given",
) -> MacroF1Report:
    """Evaluate one labeler on all scored steps; arguments as in `evaluate_processbench`."""
    split = split_by_gold(traces)
    whole, groups = whole_and_subsets(split.usable, measures.step_rows, threshold)
    drawn = [group.resampled(seed, resamples) for group in groups.values()]
    return MacroF1Report(
        threshold=threshold,
        threshold_source=threshold_source,
        overall=_report(whole, seed, resamples),
        subsets={name: _report(group, seed, resamples) for name, group in groups.items()},
        gold_unusable=split.gold_unusable,
        gold_missing=split.gold_missing,
        mean_of_subsets=mean_estimate(
            measures.macro_f1, [sums for sums, _ in drawn], [draws for _, draws in drawn]
        ),
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
    """Share of the steps with gold on which the labeler agrees; unlabeled steps count as errors.

    None if no step can be scored.
    """
    rows = measures.step_rows(split_by_gold(traces).usable, threshold)
    value, defined = measures.step_accuracy_of(rows.sum(axis=0)[None, :])
    return float(value[0]) if defined[0] else None


PROTOCOL = Protocol(
    name="macro-f1",
    evaluate=evaluate_macro_f1,
    measures=("macro_f1", "step_accuracy"),
    rule=(
        "macro_f1 is the mean of the F1 of correct and of incorrect steps, all steps pooled;"
        " neutral steps are left out, a missing label counts as the other class, and where gold"
        " is a first error only, later steps are not scored"
    ),
    references=(
        Paper(
            cited="Wang et al., 2025",
            key="wang2025visualprm",
            author="Wang, Weiyun",
            title="VisualPRM: An Effective Process Reward Model for Multimodal Reasoning",
            arxiv="2503.10291",
        ),
    ),
)
