"""PRMBench's PRMScore (arXiv 2501.03124; ssmisya/PRMBench, task.py): good and bad steps by error.

Per class, over all its steps pooled: the F1 of good steps and the F1 of bad steps; PRMScore is
their mean. `multi_solutions` has no bad steps: its PRMScore is the F1 of good steps alone. A step
is good iff its score > threshold. Unlabeled steps are left out and counted. The overall figures
pool the steps of all classes but `correct`, whose items are the unmodified originals. The
redundancy scores that the official code reads for two classes are not used: our labelers have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluation import measures
from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces, split_by_gold
from evaluation.frames import VERDICT_CODES
from evaluation.measures import RESAMPLES, Estimate, Group, estimate, whole_and_subsets
from evaluation.protocols.protocol import (
    GroupFigures,
    Paper,
    Protocol,
    ProtocolReport,
    Published,
)
from traces import Verdict

GOOD_STEPS_ONLY = "multi_solutions"
"""The class without bad steps."""
ORIGINALS = "correct"
"""The class of unmodified solutions, which the overall figures leave out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassReport(GroupFigures):
    """The measures of one class, or of several pooled."""

    lead = "prmscore"
    columns = (
        ("prmscore", "prmscore"),
        ("f1", "f1.value"),
        ("f1_negative", "f1_negative.value"),
        ("traces", "n"),
        ("missing", "missing"),
        ("validity rate", "validity_rate"),
    )

    prmscore: Estimate
    """Mean of the two F1s; None if one is not defined."""
    f1: Estimate
    """F1 of good steps; None if there is none on either side."""
    f1_negative: Estimate
    """F1 of bad steps; None if there is none on either side, or the class can have none."""
    n: int
    """Traces with usable gold."""
    missing: int
    """Of these, traces without any labeled step."""
    n_steps: int
    """Steps with gold, unlabeled ones included, neutral ones left out."""
    missing_steps: int
    """Of these, unlabeled steps."""

    @property
    def validity_rate(self) -> float | None:
        """Share of the traces that could be scored, in [0, 1]; None without any."""
        return (self.n - self.missing) / self.n if self.n else None


class PrmBenchReport(ProtocolReport[ClassReport]):
    """The result of the protocol `prmbench`; the groups are PRMBench's classes."""

    __slots__ = ()
    protocol = title = "prmbench"
    figures = ClassReport
    groups_key, group = "classes", "class"

    @property
    def classes(self) -> dict[str, ClassReport]:
        """By class (the traces' subset), in alphabetical order."""
        return self.subsets

    def as_json(self, *, dataset: str, labeler: str, gold: str) -> dict[str, Any]:
        """The document of `stepgold evaluate --protocol prmbench`."""
        document = super().as_json(dataset=dataset, labeler=labeler, gold=gold)
        return document | {"validity_rate": self.overall.validity_rate}


def evaluate_prmbench(
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    threshold_source: str = "given",
) -> PrmBenchReport:
    """Evaluate one labeler by PRMScore; the class of a trace is its subset.

    Args:
        traces: every trace of the dataset, with gold and prediction where they exist.
        threshold: in [0, 1]; a step is good iff its score is higher.
        seed: of the bootstrap; the same seed gives the same intervals.
        resamples: draws of problems.
    """
    split = split_by_gold(traces)
    whole, groups = whole_and_subsets(
        split.usable, measures.kept_step_rows, threshold, not_pooled=ORIGINALS
    )
    return PrmBenchReport(
        threshold=threshold,
        threshold_source=threshold_source,
        subsets={name: _report(group, seed, resamples) for name, group in groups.items()},
        overall=_report(whole, seed, resamples),
        gold_unusable=split.gold_unusable,
        gold_missing=split.gold_missing,
    )


def _report(group: Group, seed: int, resamples: int) -> ClassReport:
    sums, drawn = group.resampled(seed, resamples)
    good = estimate(measures.good_step_f1, sums, drawn)
    if group.name == GOOD_STEPS_ONLY:
        prmscore, bad = good, Estimate(None, None)
    else:
        prmscore = estimate(measures.prmscore, sums, drawn)
        bad = estimate(measures.bad_step_f1, sums, drawn)
    scored = group.rows[:, :4].sum(axis=1)
    unlabeled = group.rows[:, 5]
    return ClassReport(
        prmscore=prmscore,
        f1=good,
        f1_negative=bad,
        n=len(group),
        missing=int(((scored == 0) & (unlabeled > 0)).sum()),
        n_steps=int(scored.sum() + unlabeled.sum()),
        missing_steps=int(unlabeled.sum()),
    )


SCRIPT = "ssmisya/PRMBench, mr_eval/tasks/prmtest_classified/task.py"


def published_prmbench(traces: Iterable[EvaluatedTrace], threshold: float) -> Published:
    """The figures of PRMBench's own script (commit a1ae4ea).

    A trace whose error steps are all outside its process counts as wholly correct. A precision or
    recall whose denominator is 0 is -1 and enters the F1; an F1 whose denominator is 0 is -1 too.
    """
    known = EvaluatedTraces.of(traces)
    outside = int((known.gold.present & known.gold.abstained).sum())
    kept = _as_script_reads(known)
    whole, groups = whole_and_subsets(
        kept, measures.kept_step_rows, threshold, not_pooled=ORIGINALS
    )
    causes = []
    if outside:
        causes.append(
            f"{outside} traces whose error steps are all outside the process count as wholly"
            " correct; strict leaves them out"
        )
    overall, minus = _script_figures(whole)
    found = {name: _script_figures(group) for name, group in groups.items()}
    undefined = [name for name, (_, bad) in (*found.items(), ("overall", (overall, minus))) if bad]
    if undefined:
        causes.append(f"the script gives undefined ratios the value -1 ({', '.join(undefined)})")
    return Published(
        source=SCRIPT,
        overall=overall,
        subsets={name: figures for name, (figures, _) in found.items()},
        causes=tuple(causes),
    )


def _as_script_reads(traces: EvaluatedTraces) -> EvaluatedTraces:
    """The traces with gold; where it names only error steps outside it, read as "no error"."""
    gold = traces.gold
    outside = np.repeat(gold.abstained, traces.frame.n_steps)
    correct = VERDICT_CODES[Verdict.CORRECT]
    read = replace(
        gold,
        abstained=np.zeros_like(gold.abstained),
        given=gold.given & ~gold.abstained,
        verdict=np.where(outside, correct, gold.verdict).astype(np.uint8),
    )
    return replace(traces, gold=read).where(gold.present)


def _script_figures(group: Group) -> tuple[dict[str, float | None], bool]:
    """The figures of one class or of all, and whether a ratio is undefined."""
    tp, fn, fp, tn = group.rows[:, :4].sum(axis=0).tolist()
    good, bad = _script_f1(tp, fp, fn), _script_f1(tn, fn, fp)
    if group.name == GOOD_STEPS_ONLY:
        return {"prmscore": good, "f1": good}, not (tp + fp and tp + fn and tp)
    undefined = not all((tp + fp, tp + fn, tn + fn, tn + fp, tp, tn))
    return {"prmscore": 0.5 * good + 0.5 * bad, "f1": good, "f1_negative": bad}, undefined


def _script_f1(hits: float, false_alarms: float, misses: float) -> float:
    precision = hits / (hits + false_alarms) if hits + false_alarms else -1
    recall = hits / (hits + misses) if hits + misses else -1
    return 2 * precision * recall / (precision + recall) if precision + recall else -1


PROTOCOL = Protocol(
    name="prmbench",
    evaluate=evaluate_prmbench,
    measures=("prmscore",),
    not_pooled=frozenset({ORIGINALS}),
    as_published=published_prmbench,
    rule=(
        "prmscore is the mean of the F1 of good and of bad steps, all steps of a class pooled;"
        " a step is good if its score is above the threshold, and steps without a label are left"
        " out"
    ),
    references=(
        Paper(
            cited="Song et al., 2025",
            key="song2025prmbench",
            author="Song, Mingyang",
            title="PRMBench: A Fine-grained and Challenging Benchmark for Process-Level Reward"
            " Models",
            arxiv="2501.03124",
        ),
    ),
)
