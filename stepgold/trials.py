"""The traces of a dataset as a comparison of labelers looks at them, and the labelers' thresholds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from traces import InputError

if TYPE_CHECKING:
    from evaluation.evaluated import EvaluatedTrace
    from evaluation.protocols.known import Protocol
    from evaluation.step_words import ComparedTrace
    from evaluation.thresholds import FittedThreshold
    from storage import Store


def evaluated_traces(
    store: Store, dataset: str, labeler: str, gold: str, subsets: Collection[str] = ()
) -> list[EvaluatedTrace]:
    """Every trace of the dataset with the truth and the labeler's word, where they exist.

    Args:
        subsets: only these; empty for all.

    Raises:
        InputError: unknown dataset, labeler or subset.
    """
    from evaluation.evaluated import EvaluatedTrace

    store.traces.require_dataset(dataset)
    for name in (labeler, gold):
        store.labels.labeler(dataset, name)
    truth, predicted = store.labels.load(dataset, gold), store.labels.load(dataset, labeler)
    traces = [
        EvaluatedTrace(
            context.trace.id,
            context.problem.id,
            context.trace.subset,
            len(context.trace.steps),
            truth.get(context.trace.id),
            predicted.get(context.trace.id),
            context.trace.final_answer_correct,
        )
        for context in store.traces.contexts(dataset, with_evidence=False)
    ]
    known = {trace.subset for trace in traces}
    if unknown := sorted(set(subsets) - known):
        raise InputError(
            f"Dataset '{dataset}' has no subset '{unknown[0]}'.",
            where="--subset",
            remedy=f"its subsets: {', '.join(sorted(known))}",
        )
    return [trace for trace in traces if not subsets or trace.subset in subsets]


# --- `--threshold`: a number, or one fitted on a named split, which must not be the one that is


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
    known = store.traces.datasets()
    parts = named.split("/")
    for cut in range(len(parts) - 1, 0, -1):
        dataset, subset = "/".join(parts[:cut]), "/".join(parts[cut:])
        if dataset in known:
            subsets = {
                context.trace.subset
                for context in store.traces.contexts(dataset, with_evidence=False)
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
    here, there = store.labels.labeler(dataset, labeler), store.labels.labeler(split, labeler)
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
        for context in store.traces.contexts(dataset, with_evidence=False)
    ]


# --- The traces of a dataset as a comparison of labelers looks at them, and the labelers'


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
    store.traces.require_dataset(dataset)
    if gold is not None:
        store.labels.labeler(dataset, gold)
        return gold
    names = {summary.labeler.name for summary in store.labels.labelers(dataset)}
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

    store.traces.require_dataset(dataset)
    for name in names:
        store.labels.labeler(dataset, name)
    labels = {name: store.labels.load(dataset, name) for name in dict.fromkeys(names)}
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
        for context in store.traces.contexts(dataset, with_evidence=False)
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
    from evaluation.protocols.known import PROTOCOLS
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
