"""Consensus: keep what a judge and a Monte Carlo labeler agree on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from labeling import ConsensusConfig
from stepgold.labeling_run import label_missing, source_of
from stepgold.options import LabelingOptions
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import counted
from traces import InputError, Labeler, LabelerKind, option

if TYPE_CHECKING:
    from labeling import LabelerAnalysis
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import TraceLabel


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
            traces = counted(self.failed, "trace")
            lines.append(
                f"not labeled by both '{self.sources[0]}' and '{self.sources[1]}': {traces}"
            )
        return "\n".join([*lines, self.analysis.table()])


def consensus(workspace: WorkspaceFolder, options: ConsensusOptions) -> ConsensusResult:
    """Keep the labels on which both agree; disagreement is an abstention, not a failure.

    Raises:
        InputError: a labeler does not exist or has no labels yet.
    """
    from labeling import agree_on, analyze_labelers

    dataset, tally = options.dataset, Tally("consensus", options.dataset, options.name)
    with workspace.open_store() as store:
        judged = _labels(store, dataset, options.judge, command="judge")
        measured = _labels(store, dataset, options.mc, command="continue")
        sources = {
            "judge": source_of(store, dataset, options.judge),
            "mc": source_of(store, dataset, options.mc),
        }
        labeler = Labeler(options.name, LabelerKind.CONSENSUS, options.as_dict() | sources)
        label_missing(
            store,
            tally,
            labeler,
            partial(agree_on, judge_labels=judged, mc_labels=measured, config=options),
            options=options,
            # A trace that one labeler has not reached yet must not be stored as a disagreement.
            within=judged.keys() & measured.keys(),
        )
        agreed = store.labels.load(dataset, options.name) if tally.done or tally.unchanged else {}
    analysis = analyze_labelers(
        {options.judge: judged, options.mc: measured},
        judged.keys() | measured.keys(),
        consensus=agreed,
    )
    return ConsensusResult(
        **tally.figures(), sources=(options.judge, options.mc), analysis=analysis
    )


def _labels(store: Store, dataset: str, name: str, *, command: str) -> dict[str, TraceLabel]:
    """The labels of a labeler; one without any is refused."""
    store.labels.labeler(dataset, name)
    labels = store.labels.load(dataset, name)
    if not labels:
        raise InputError(
            f"Labeler '{name}' has no labels in dataset '{dataset}' yet.",
            remedy=f"run stepgold {command} first",
        )
    return labels
