"""The protocols by name: how each is evaluated, which measure leads it, how its whole is formed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Structure

from evaluation.evaluated import EvaluatedTrace
from evaluation.figures import RESAMPLES
from evaluation.paired import PairedReport, compare_by_measure
from evaluation.protocols.macro_f1 import evaluate_macro_f1
from evaluation.protocols.mistake import evaluate_mistake
from evaluation.protocols.mr_ben import evaluate_mr_ben
from evaluation.protocols.prmbench import ORIGINALS, evaluate_prmbench
from evaluation.protocols.processbench import evaluate_processbench


class Report(Structure):
    """What every protocol hands back."""

    def as_json(self, *, dataset: str, labeler: str, gold: str) -> dict[str, Any]:
        """The document of `stepgold evaluate`."""

    def table(self, labeler: str) -> str:
        """The figures for a person."""


class Evaluate(Structure):
    """One labeler on one dataset; arguments as `evaluate_processbench`."""

    def __call__(
        self,
        traces: Iterable[EvaluatedTrace],
        threshold: float = 0.5,
        seed: int = 0,
        resamples: int = RESAMPLES,
        *,
        threshold_source: str = "given",
    ) -> Report: ...


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to put a labeler on trial."""

    name: str
    """As `--protocol` takes it."""
    evaluate: Evaluate
    """All its figures."""
    measures: tuple[str, ...]
    """Names of `measures.MEASURES` by which two labelers are compared; the first one leads, and thresholds
    are fitted for it."""
    averaged: bool = False
    """Whether the whole is the unweighted mean over subsets; else all traces are pooled."""
    not_pooled: frozenset[str] = frozenset()
    """Subsets that the whole leaves out."""

    def pooled(self, traces: Iterable[EvaluatedTrace]) -> list[EvaluatedTrace]:
        """The traces that the whole is formed of."""
        return [trace for trace in traces if trace.subset not in self.not_pooled]

    def compare(
        self,
        first: Sequence[EvaluatedTrace],
        second: Sequence[EvaluatedTrace],
        *,
        thresholds: tuple[float, float],
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> Mapping[str, PairedReport]:
        """Two labelers on the same traces by each measure, with a paired bootstrap.

        Raises:
            InputError: the traces are not the same.
        """
        return {
            measure: compare_by_measure(
                self.pooled(first),
                self.pooled(second),
                measure,
                averaged=self.averaged,
                threshold=thresholds[0],
                second_threshold=thresholds[1],
                seed=seed,
                resamples=resamples,
            )
            for measure in self.measures
        }


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "processbench",
            evaluate_processbench,
            ("processbench_f1", "error_accuracy", "correct_accuracy", "first_error_precision"),
            averaged=True,
        ),
        Protocol("macro-f1", evaluate_macro_f1, ("macro_f1", "step_accuracy")),
        Protocol("prmbench", evaluate_prmbench, ("prmscore",), not_pooled=frozenset({ORIGINALS})),
        # Most labels do not say whether their reasons are right, so that MR-Score itself cannot lead.
        Protocol("mr-ben", evaluate_mr_ben, ("mcc", "error_step_accuracy")),
        Protocol(
            "mistake", evaluate_mistake, ("location_accuracy", "error_accuracy", "correct_accuracy")
        ),
    )
}
"""By name, in the order of the help text."""
