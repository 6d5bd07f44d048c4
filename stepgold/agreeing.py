"""Consensus: keep what a judge and a Monte Carlo labeler agree on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from labeling import ConsensusConfig
from stepgold.labeling_run import label_missing, source_of
from stepgold.options import LabelingOptions
from stepgold.outcome import LabelingResult, Tally
from traces import InputError, Labeler, LabelerKind, option

if TYPE_CHECKING:
    from labeling import LabelerAnalysis
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import LabeledTrace, TraceInContext, TraceLabel

AT_ONCE = 1000
"""Traces whose labels are held at once."""


class ConsensusOptions(ConsensusConfig, LabelingOptions):
    """Which labelers are combined, and how."""

    name: str = option(default="consensus", metavar="NAME", help="Name of the consensus labeler.")
    judge: str = option(metavar="LABELER", help="The judge's labeler.")
    mc: str = option(metavar="LABELER", help="The Monte Carlo labeler.")

    def check(self) -> None:
        """Refuse a labeler that is compared with itself, or replaced by what is made from it.

        Raises:
            InputError: two of the three names are the same.
        """
        super().check()
        if self.judge == self.mc:
            raise InputError(
                f"Cannot compare '{self.judge}' with itself.",
                remedy="name two labelers with --judge and --mc",
            )
        if self.name in (self.judge, self.mc):
            raise InputError(
                f"The consensus cannot be named '{self.name}', like a labeler it is made from.",
                remedy="choose another --name",
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class ConsensusResult(LabelingResult):
    """What was agreed on, and how far the two labelers cover and contradict each other."""

    sources: tuple[str, str]
    """The two labelers."""
    analysis: LabelerAnalysis
    """Coverage, overlap, conflict, and what the consensus keeps of each."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the analysis per labeler."""
        rows = {
            row.labeler: {
                "coverage": row.coverage,
                "overlap": row.overlap,
                "conflict": row.conflict,
            }
            for row in self.analysis.rows
        }
        return super().as_json() | {"analysis": rows}

    def words(self) -> str:
        """The counts and the table."""
        lines = [super().words()]
        if self.failed:
            traces = "1 trace" if self.failed == 1 else f"{self.failed} traces"
            lines.append(
                f"not labeled by both '{self.sources[0]}' and '{self.sources[1]}': {traces}"
            )
        return "\n".join([*lines, self.analysis.table()])


def consensus(workspace: WorkspaceFolder, options: ConsensusOptions) -> ConsensusResult:
    """Keep the labels on which both agree; disagreement is an abstention, not a failure.

    Raises:
        InputError: a labeler does not exist or has no labels yet.
    """
    from labeling import analyze_parts

    dataset, tally = options.dataset, Tally("consensus", options.dataset, options.name)
    with workspace.open_store() as store:
        _require_labels(store, dataset, options.judge, command="judge")
        _require_labels(store, dataset, options.mc, command="continue")
        sources = {
            "judge": source_of(store, dataset, options.judge),
            "mc": source_of(store, dataset, options.mc),
        }
        labeler = Labeler(options.name, LabelerKind.CONSENSUS, options.as_dict() | sources)
        label_missing(
            store,
            tally,
            labeler,
            partial(_agree, store, options),
            options=options,
            # A trace that one labeler has not reached yet must not be stored as a disagreement.
            within=frozenset(store.labels.labeled_ids(dataset, (options.judge, options.mc))),
        )
        agreed = bool(tally.done or tally.unchanged)
        analysis = analyze_parts(_parts(store, options, agreed=agreed))
    return ConsensusResult(
        **tally.figures(), sources=(options.judge, options.mc), analysis=analysis
    )


def _agree(
    store: Store, options: ConsensusOptions, contexts: Iterable[TraceInContext]
) -> Iterator[LabeledTrace]:
    """The stage, with the labels of some traces at a time."""
    from labeling import agree_on

    contexts = iter(contexts)
    while chunk := list(islice(contexts, AT_ONCE)):
        ids = [context.trace.id for context in chunk]
        yield from agree_on(
            chunk,
            judge_labels=store.labels.load(options.dataset, options.judge, ids),
            mc_labels=store.labels.load(options.dataset, options.mc, ids),
            config=options,
        )


def _parts(
    store: Store, options: ConsensusOptions, *, agreed: bool
) -> Iterator[tuple[dict[str, dict[str, TraceLabel]], Collection[str], dict[str, TraceLabel]]]:
    """The labels to analyze, of some traces at a time; without `agreed`, no consensus."""
    dataset, names = options.dataset, (options.judge, options.mc)
    for page in store.traces.columns(dataset, size=AT_ONCE):
        labels = {name: store.labels.load(dataset, name, page.ids) for name in names}
        consensus = store.labels.load(dataset, options.name, page.ids) if agreed else {}
        judged, measured = labels.values()
        yield labels, judged.keys() | measured.keys(), consensus


def _require_labels(store: Store, dataset: str, name: str, *, command: str) -> None:
    """Refuse a labeler without any labels."""
    known = {row.labeler.name: row.traces for row in store.labels.labelers(dataset)}
    store.labels.labeler(dataset, name)
    if not known[name]:
        raise InputError(
            f"Labeler '{name}' has no labels in dataset '{dataset}' yet.",
            remedy=f"run stepgold {command} first",
        )
