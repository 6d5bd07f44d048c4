"""`--threshold`: a number, or one fitted on a named split, which must not be the one that is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from commands.evaluated import evaluated_traces
from traces.errors import InputError

if TYPE_CHECKING:
    from evaluation.evaluated import EvaluatedTrace
    from evaluation.protocols import Protocol
    from evaluation.thresholds import FittedThreshold
    from storage import Store

FIT = "fit:"


@dataclass(frozen=True, slots=True)
class ThresholdWish:
    """What the user asked for."""

    spec: str
    """As it was written."""
    number: float | None
    """The threshold in [0, 1]; None if it is to be fitted."""
    in_sample: bool
    """Whether it may be fitted on traces that are evaluated."""

    @classmethod
    def parse(cls, spec: str, *, in_sample: bool = False) -> ThresholdWish:
        """Read `--threshold` and `--in-sample`.

        Raises:
            InputError: neither a number in [0, 1] nor a split, or `in_sample` with a number.
        """
        if spec.startswith(FIT):
            return cls(spec, None, in_sample)
        try:
            number = float(spec)
        except ValueError:
            number = None
        if number is None or not 0 <= number <= 1:
            raise InputError(
                f"'{spec}' is no threshold.",
                where="--threshold",
                remedy="give a number in [0, 1] or fit:DATASET/SUBSET",
            )
        if in_sample:
            raise InputError(
                "--in-sample goes with a fitted threshold.",
                remedy="give --threshold fit:DATASET/SUBSET",
            )
        return cls(spec, number, in_sample)

    def resolve(
        self,
        store: Store,
        dataset: str,
        labeler: str,
        gold: str,
        protocol: Protocol,
        evaluated: Sequence[EvaluatedTrace],
    ) -> tuple[float, FittedThreshold | None]:
        """The threshold of one labeler, and where it comes from if it had to be fitted.

        It is fitted for the protocol's leading measure on the labeler's own scores in that split.

        Args:
            evaluated: the traces that the threshold is to be used on.

        Raises:
            InputError: unknown split or labeler, no scores in it, another model's scores, or
                traces that are evaluated without `in_sample`.
        """
        if self.number is not None:
            return self.number, None
        from evaluation.thresholds import fit_threshold

        split, subset = _split(store, self.spec)
        _same_model(store, labeler, dataset, split)
        traces = evaluated_traces(store, split, labeler, gold, (subset,))
        shared = _shared_subsets(store, dataset, evaluated, split, traces)
        if shared and not self.in_sample:
            raise InputError(
                "The threshold would be fitted on traces that are evaluated "
                f"(subset {', '.join(shared)}).",
                where=f"--threshold {self.spec}",
                remedy="evaluate other subsets with --subset, or add --in-sample: every output "
                "then says so",
            )
        fitted = fit_threshold(traces, protocol.measures[0], dataset=split, subset=subset)
        return fitted.threshold, replace(fitted, in_sample=tuple(shared))


def _split(store: Store, spec: str) -> tuple[str, str]:
    """Dataset and subset of `fit:DATASET/SUBSET`; both may hold a slash themselves."""
    named = spec.removeprefix(FIT)
    known = store.datasets()
    parts = named.split("/")
    for cut in range(len(parts) - 1, 0, -1):
        dataset, subset = "/".join(parts[:cut]), "/".join(parts[cut:])
        if dataset in known:
            subsets = {
                context.trace.subset for context in store.contexts(dataset, with_evidence=False)
            }
            if subset in subsets:
                return dataset, subset
            raise InputError(
                f"Dataset '{dataset}' has no subset '{subset}'.",
                where=f"--threshold {spec}",
                remedy=f"its subsets: {', '.join(sorted(subsets))}",
            )
    raise InputError(
        f"'{named}' names no DATASET/SUBSET of this workspace.",
        where=f"--threshold {spec}",
        remedy=f"write fit:DATASET/SUBSET; datasets: {', '.join(sorted(known)) or 'none yet'}",
    )


def _same_model(store: Store, labeler: str, dataset: str, split: str) -> None:
    """A threshold fits the scores of one model only."""
    here, there = store.labeler(dataset, labeler), store.labeler(split, labeler)
    if here.model != there.model and None not in (here.model, there.model):
        raise InputError(
            f"Labeler '{labeler}' is '{there.model}' in dataset '{split}' and '{here.model}' here.",
            remedy="fit the threshold on scores of the same model",
        )


def _shared_subsets(
    store: Store,
    dataset: str,
    evaluated: Sequence[EvaluatedTrace],
    split: str,
    fitted_on: Sequence[EvaluatedTrace],
) -> list[str]:
    """Subsets of the evaluated traces that hold a trace of the split, under whatever dataset's name."""
    ids = {trace.trace_id for trace in fitted_on}
    if split == dataset:
        return sorted({trace.subset for trace in evaluated if trace.trace_id in ids})
    subset_of = {trace.trace_id: trace.subset for trace in evaluated}
    contents = {content for id, content in _contents(store, split) if id in ids}
    return sorted(
        {
            subset_of[id]
            for id, content in _contents(store, dataset)
            if id in subset_of and content in contents
        }
    )


def _contents(store: Store, dataset: str) -> list[tuple[str, Any]]:
    return [
        (context.trace.id, hash((context.problem.question, context.trace.steps)))
        for context in store.contexts(dataset, with_evidence=False)
    ]
