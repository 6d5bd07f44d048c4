"""The traces of a dataset as a comparison of labelers looks at them, and the labelers' thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commands.thresholds import ThresholdWish
from traces.errors import InputError

if TYPE_CHECKING:
    from evaluation.step_words import ComparedTrace
    from evaluation.thresholds import FittedThreshold
    from storage import Store

PROTOCOL = "processbench"
"""Whose leading measure a threshold is fitted for."""


@dataclass(frozen=True, slots=True)
class LabelerThreshold:
    """The threshold of one labeler, and where it comes from."""

    value: float
    """In [0, 1]; what a labeler of verdicts has does not matter."""
    source: str
    """`given`, the split, or that none is needed."""
    fit: FittedThreshold | None = None
    """How it was fitted; None if it was not."""

    def as_json(self) -> dict[str, Any]:
        """As the keys of `evaluate`."""
        return {
            "threshold": None if self.source == NONE_NEEDED else self.value,
            "threshold_source": self.source,
            "threshold_fit": None if self.fit is None else self.fit.as_json(),
        }


NONE_NEEDED = "none needed: verdicts"


def known_gold(store: Store, dataset: str, gold: str | None) -> str | None:
    """The labeler taken as truth: the one that was named, else `gold` where there is one.

    Raises:
        InputError: unknown dataset, or the named labeler is not there.
    """
    store.require_dataset(dataset)
    if gold is not None:
        store.labeler(dataset, gold)
        return gold
    names = {summary.labeler.name for summary in store.labelers(dataset)}
    return "gold" if "gold" in names else None


def compared_traces(
    store: Store, dataset: str, names: Sequence[str], subsets: Sequence[str] = ()
) -> list[ComparedTrace]:
    """Every trace of the dataset with the words of these labelers.

    Args:
        subsets: only these; empty for all.

    Raises:
        InputError: unknown dataset, labeler or subset.
    """
    from evaluation.step_words import ComparedTrace

    store.require_dataset(dataset)
    for name in names:
        store.labeler(dataset, name)
    labels = {name: store.labels(dataset, name) for name in dict.fromkeys(names)}
    traces = [
        ComparedTrace(
            context.trace.id,
            context.problem.id,
            context.trace.subset,
            len(context.trace.steps),
            {name: found[context.trace.id] for name, found in labels.items() if context.trace.id in found},
            context.trace.final_answer,
            context.trace.final_answer_correct,
        )
        for context in store.contexts(dataset, with_evidence=False)
    ]  # fmt: skip
    known = {trace.subset for trace in traces}
    if unknown := sorted(set(subsets) - known):
        raise InputError(
            f"Dataset '{dataset}' has no subset '{unknown[0]}'.",
            where="--subset",
            remedy=f"its subsets: {', '.join(sorted(known))}",
        )
    return [trace for trace in traces if not subsets or trace.subset in subsets]


def labeler_thresholds(
    store: Store,
    dataset: str,
    traces: Sequence[ComparedTrace],
    names: Sequence[str],
    gold: str | None,
    wish: ThresholdWish,
) -> Mapping[str, LabelerThreshold]:
    """The threshold of each labeler; one that gives verdicts needs none.

    Raises:
        InputError: a threshold is to be fitted, and there is no gold, or as `ThresholdWish.resolve`.
    """
    if wish.number is not None:
        return {name: LabelerThreshold(wish.number, "given") for name in names}
    if gold is None:
        raise InputError(
            "A threshold can only be fitted against gold, and there is none.",
            where=f"--threshold {wish.spec}",
            remedy="name a labeler that is the truth with --gold, or give a number",
        )
    from evaluation.comparison import against_gold
    from evaluation.protocols import PROTOCOLS
    from evaluation.thresholds import decided_by_scores

    found = {}
    for name in names:
        seen = against_gold(traces, name, gold)
        if name == gold or not decided_by_scores(seen):
            found[name] = LabelerThreshold(0.5, NONE_NEEDED)
            continue
        value, fit = wish.resolve(store, dataset, name, gold, PROTOCOLS[PROTOCOL], seen)
        found[name] = LabelerThreshold(value, "given" if fit is None else fit.source, fit)
    return found
