"""What evaluate, compare and report share: the traces of labelers, and the threshold of each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stepgold.options import BootstrapOptions, DatasetOptions
from traces import InputError, Need, meant, option

if TYPE_CHECKING:
    from evaluation import ComparedTraces, EvaluatedTraces, FittedThreshold, Protocol
    from storage import Store
    from traces import TraceLabel


FIT = "fit:"
"""Prefix of a threshold that is to be fitted."""
PROTOCOL = "processbench"
"""Thresholds of compare and report are fitted for this protocol's leading measure."""
GIVEN, NONE_NEEDED = "given", "none needed: verdicts"
"""Sources of a threshold that was not fitted."""


class TrialOptions(BootstrapOptions, DatasetOptions):
    """The threshold of step scores, and the bootstrap of intervals."""

    threshold: float | str = option(
        default=0.5,
        metavar="T",
        help="Steps with at least this score are correct (prmbench: above it): a number in [0, 1],"
        " or fit:DATASET/SUBSET.",
    )
    in_sample: bool = option(
        default=False,
        flags=("--in-sample",),
        help="Allow a threshold fitted on traces that are also evaluated.",
        needs=Need("--threshold fit:DATASET/SUBSET", lambda config: config.number is None),
    )

    def check(self) -> None:
        """Refuse a threshold that is neither a number in [0, 1] nor a split.

        Raises:
            InputError: it is not.
        """
        super().check()
        try:
            usable = self.number is None or 0 <= self.number <= 1
        except ValueError:
            usable = False
        if not usable:
            raise InputError(
                f"'{self.threshold}' is not a threshold.",
                where="--threshold",
                remedy="use a number in [0, 1], or fit:DATASET/SUBSET",
            )

    @property
    def number(self) -> float | None:
        """The threshold; None if it is to be fitted."""
        return None if str(self.threshold).startswith(FIT) else float(self.threshold)


@dataclass(frozen=True, slots=True)
class LabelerThreshold:
    """The threshold of one labeler, and where it comes from."""

    value: float
    """In [0, 1]; without effect for a labeler of verdicts."""
    source: str
    """`given`, the split it was fitted on, or that none is needed."""
    fit: FittedThreshold | None = None
    """How it was fitted; None if it was not."""

    def as_json(self) -> dict[str, Any]:
        """The keys of `stepgold evaluate`."""
        return {
            "threshold": None if self.source == NONE_NEEDED else self.value,
            "threshold_source": self.source,
            "threshold_fit": None if self.fit is None else self.fit.as_json(),
        }

    def line(self, labeler: str) -> str:
        """The threshold for a person."""
        return f"threshold of {labeler}: {self.value:.6g} from {self.source}"


def known_gold(store: Store, dataset: str, gold: str | None) -> str | None:
    """The labeler taken as truth: the one that was named, else `gold` if it exists.

    Raises:
        InputError: unknown dataset or labeler.
    """
    store.traces.require_dataset(dataset)
    if gold is not None:
        store.labels.labeler(dataset, gold)
        return gold
    names = {summary.labeler.name for summary in store.labels.labelers(dataset)}
    return "gold" if "gold" in names else None


def compared_traces(
    store: Store, dataset: str, names: Sequence[str], subsets: Collection[str] = ()
) -> ComparedTraces:
    """The labels that these labelers gave the traces of a dataset, as columns.

    Args:
        store: the workspace's database.
        dataset: name of the dataset.
        names: the labelers.
        subsets: only these; empty for all.

    Raises:
        InputError: unknown dataset, labeler or subset.
    """
    from evaluation import REASON_KEY, ComparedTraces, KeyedFrame

    store.traces.require_dataset(dataset)
    for name in names:
        store.labels.labeler(dataset, name)
    traces = KeyedFrame.of(store.traces.columns(dataset), subsets)
    refuse_unknown_subset(dataset, subsets, traces.frame.subsets)
    labels = {
        name: traces.labels(
            store.labels.columns(dataset, name), store.labels.flags(dataset, name, REASON_KEY)
        )
        for name in dict.fromkeys(names)
    }
    return ComparedTraces(traces.frame, labels)


def refuse_repeated(labelers: Sequence[str]) -> None:
    """Refuse a labeler that is named twice.

    Raises:
        InputError: there is one.
    """
    twice = [name for name in labelers if labelers.count(name) > 1]
    if twice:
        raise InputError(f"Labeler '{twice[0]}' is named twice.", remedy="name each labeler once")


def labels_on(
    labels: Mapping[str, Mapping[str, TraceLabel]], trace_id: str
) -> dict[str, TraceLabel]:
    """The labels of one trace by labeler, from those of several by labeler and trace."""
    return {name: given[trace_id] for name, given in labels.items() if trace_id in given}


def refuse_unknown_subset(dataset: str, asked: Collection[str], known: Collection[str]) -> None:
    """Refuse a subset that a dataset does not have.

    Raises:
        InputError: there is one.
    """
    if unknown := sorted(set(asked) - set(known)):
        raise InputError(
            f"Dataset '{dataset}' has no subset '{unknown[0]}'.",
            where="--subset",
            remedy=meant(unknown[0], known, f"its subsets: {', '.join(sorted(known))}"),
        )


def evaluated_traces(
    store: Store, dataset: str, labeler: str, *, gold: str, subsets: Collection[str] = ()
) -> EvaluatedTraces:
    """Every trace of a dataset with its gold and the labeler's label, where they exist.

    Raises:
        InputError: unknown dataset, labeler or subset.
    """
    return compared_traces(store, dataset, (labeler, gold), subsets).against(labeler, gold)


def labeler_thresholds(
    store: Store,
    options: TrialOptions,
    traces: ComparedTraces,
    names: Sequence[str],
    *,
    gold: str | None,
) -> Mapping[str, LabelerThreshold]:
    """The threshold of each labeler; one that gives verdicts needs none.

    Raises:
        InputError: a threshold is to be fitted and there is no gold, or as `resolve_threshold`.
    """
    if options.number is not None:
        return {name: LabelerThreshold(options.number, GIVEN) for name in names}
    if gold is None:
        raise InputError(
            "A threshold can only be fitted against gold, and the dataset has none.",
            where=f"--threshold {options.threshold}",
            remedy="name a labeler as truth with --gold, or use a number",
        )
    from evaluation import decided_by_scores, protocol_named

    found = {}
    for name in names:
        seen = traces.against(name, gold)
        if name == gold or not decided_by_scores(seen):
            found[name] = LabelerThreshold(0.5, NONE_NEEDED)
            continue
        found[name] = resolve_threshold(
            store, options, name, gold=gold, protocol=protocol_named(PROTOCOL), evaluated=seen
        )
    return found


def resolve_threshold(
    store: Store,
    options: TrialOptions,
    labeler: str,
    *,
    gold: str,
    protocol: Protocol,
    evaluated: EvaluatedTraces,
) -> LabelerThreshold:
    """The threshold of one labeler, given or fitted.

    It is fitted for the protocol's leading measure on the labeler's own scores in the split.

    Args:
        store: the workspace's database.
        options: what the user asked for.
        labeler: whose threshold.
        gold: the labeler taken as truth.
        protocol: the rules.
        evaluated: the traces that the threshold is used on.

    Raises:
        InputError: unknown split or labeler, no scores in it, another model's scores, or traces
            that are evaluated without `in_sample`.
    """
    if options.number is not None:
        return LabelerThreshold(options.number, GIVEN)
    from evaluation import fit_threshold

    split, subset = _split(store, str(options.threshold))
    _require_same_model(store, labeler, options.dataset, split)
    traces = evaluated_traces(store, split, labeler, gold=gold, subsets=(subset,))
    shared = _shared_subsets(
        store, evaluated, traces, dataset=options.dataset, fitted_dataset=split
    )
    if shared and not options.in_sample:
        raise InputError(
            "The threshold would be fitted on traces that are evaluated "
            f"(subset {', '.join(shared)}).",
            where=f"--threshold {options.threshold}",
            remedy="evaluate other subsets with --subset, or add --in-sample: every output then"
            " says so",
        )
    fitted = fit_threshold(traces, protocol.measures[0], dataset=split, subset=subset)
    fitted = replace(fitted, in_sample=tuple(shared))
    return LabelerThreshold(fitted.threshold, fitted.source, fitted)


def _split(store: Store, spec: str) -> tuple[str, str]:
    """Dataset and subset of `fit:DATASET/SUBSET`; both may contain a slash themselves."""
    named = spec.removeprefix(FIT)
    known = store.traces.datasets()
    parts = named.split("/")
    for cut in range(len(parts) - 1, 0, -1):
        dataset, subset = "/".join(parts[:cut]), "/".join(parts[cut:])
        if dataset in known:
            subsets = {each for page in store.traces.columns(dataset) for each in page.subsets}
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


def _require_same_model(store: Store, labeler: str, dataset: str, split: str) -> None:
    """A threshold fits the scores of one model only."""
    here, there = store.labels.labeler(dataset, labeler), store.labels.labeler(split, labeler)
    if here.model != there.model and None not in (here.model, there.model):
        raise InputError(
            f"Labeler '{labeler}' is '{there.model}' in dataset '{split}' and '{here.model}' here.",
            remedy="fit the threshold on scores of the same model",
        )


def _shared_subsets(
    store: Store,
    evaluated: EvaluatedTraces,
    fitted_on: EvaluatedTraces,
    *,
    dataset: str,
    fitted_dataset: str,
) -> list[str]:
    """Subsets of the evaluated traces that hold a trace of the split, whatever its dataset."""
    ids, frame = set(fitted_on.frame.ids), evaluated.frame
    subset_of = {
        id: frame.subsets[number] for id, number in zip(frame.ids, frame.subset, strict=True)
    }
    if fitted_dataset == dataset:
        return sorted({subset for id, subset in subset_of.items() if id in ids})
    contents = {content for id, content in _contents(store, fitted_dataset) if id in ids}
    return sorted(
        {
            subset_of[id]
            for id, content in _contents(store, dataset)
            if id in subset_of and content in contents
        }
    )


def _contents(store: Store, dataset: str) -> Iterator[tuple[str, int]]:
    return (
        (context.trace.id, hash((context.problem.question, context.trace.steps)))
        for context in store.traces.contexts(dataset, with_evidence=False)
    )
