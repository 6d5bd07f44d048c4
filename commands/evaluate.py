"""`stepgold evaluate`: a labeler against the gold annotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.options import Dataset, Json, LabelerName, Resamples, Seed
from stepgold.outcome import Outcome
from stepgold.trials import ThresholdWish, evaluated_traces
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError

if TYPE_CHECKING:
    from evaluation.evaluated import EvaluatedTrace
    from evaluation.protocols.known import Protocol
    from evaluation.thresholds import FittedThreshold
    from storage import Store

PROTOCOLS = ("processbench", "macro-f1", "prmbench", "mr-ben", "mistake")
"""Those of `evaluation.protocols.known`, here so that the help text needs no numpy."""

GoldName = Annotated[str, typer.Option("--gold", help="The labeler taken as truth.")]
ProtocolName = Annotated[str, typer.Option("--protocol", help=f"One of {', '.join(PROTOCOLS)}.")]
Threshold = Annotated[
    str,
    typer.Option(
        "--threshold",
        help="A step is correct iff its score is at least this (prmbench: higher): "
        "a number, or fit:DATASET/SUBSET.",
    ),
]
InSample = Annotated[
    bool,
    typer.Option("--in-sample", help="Allow a threshold fitted on traces that are evaluated."),
]
Against = Annotated[
    str | None,
    typer.Option("--against", help="A second labeler: paired bootstrap of the difference."),
]
Subsets = Annotated[
    list[str] | None, typer.Option("--subset", help="Only this subset; may be repeated.")
]


def evaluate(
    ctx: typer.Context,
    dataset: Dataset,
    labeler: LabelerName,
    gold: GoldName = "gold",
    protocol: ProtocolName = "processbench",
    threshold: Threshold = "0.5",
    in_sample: InSample = False,
    against: Against = None,
    subset: Subsets = None,
    seed: Seed = 0,
    resamples: Resamples = 2000,
    json_output: Json = False,
) -> Outcome:
    """A labeler by one of the field's protocols, with bootstrap intervals by problem."""
    if protocol not in PROTOCOLS:
        known = f"{', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]}"
        raise InputError(f"'{protocol}' is not a protocol.", remedy=f"use {known}")
    wish = ThresholdWish.parse(threshold, in_sample=in_sample)
    from evaluation.protocols.known import PROTOCOLS as KNOWN

    workspace: WorkspaceFolder = ctx.obj
    trial = Trial(dataset, gold, KNOWN[protocol], wish, tuple(subset or ()), seed, resamples)
    with workspace.open_store() as store:
        first = trial.side(store, labeler)
        second = None if against is None else trial.side(store, against, may_lack_scores=True)
    document, words = trial.judged(first)
    if second is not None:
        told, more = trial.compared(first, second)
        document["against"] = told
        words += more
    return Outcome(document, "\n".join(words), as_json=json_output)


@dataclass(frozen=True, slots=True)
class Side:
    """One labeler on the traces of the trial."""

    labeler: str
    """Its name."""
    traces: list[EvaluatedTrace]
    """The traces with its words."""
    threshold: float
    """Below it a score is an error."""
    fit: FittedThreshold | None = None
    """Where the threshold comes from; None if the user gave it."""
    needs_none: bool = False
    """True for a labeler of verdicts, which no threshold changes, where one was to be fitted."""

    @property
    def source(self) -> str:
        """`given`, the split it was fitted on, or that there is nothing to fit."""
        if self.needs_none:
            return "none needed: verdicts"
        return "given" if self.fit is None else self.fit.source

    def provenance(self) -> dict[str, Any]:
        """Keys of the document."""
        return {
            "threshold": None if self.needs_none else self.threshold,
            "threshold_source": self.source,
            "threshold_fit": None if self.fit is None else self.fit.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """What is evaluated, and how."""

    dataset: str
    """The dataset."""
    gold: str
    """The labeler taken as truth."""
    protocol: Protocol
    """The rules."""
    wish: ThresholdWish
    """A threshold, or where to fit it."""
    subsets: tuple[str, ...]
    """Only these; empty for all."""
    seed: int
    """Of the bootstrap."""
    resamples: int
    """Of every interval."""

    def side(self, store: Store, labeler: str, *, may_lack_scores: bool = False) -> Side:
        """A labeler's traces and its threshold.

        Args:
            may_lack_scores: whether a labeler of verdicts is let through where a threshold is to
                be fitted, so that a PRM can be held beside a judge.
        """
        from evaluation.thresholds import decided_by_scores

        traces = evaluated_traces(store, self.dataset, labeler, self.gold, self.subsets)
        if may_lack_scores and self.wish.number is None and not decided_by_scores(traces):
            return Side(labeler, traces, 0.5, needs_none=True)
        threshold, fit = self.wish.resolve(
            store, self.dataset, labeler, self.gold, self.protocol, traces
        )
        return Side(labeler, traces, threshold, fit)

    def judged(self, side: Side) -> tuple[dict[str, Any], list[str]]:
        """The document and the words about one labeler."""
        from evaluation.diagnostics import diagnose

        report = self.protocol.evaluate(
            side.traces, side.threshold, self.seed, self.resamples, threshold_source=side.source
        )
        found = diagnose(side.traces, side.threshold, self.seed, self.resamples)
        document = report.as_json(dataset=self.dataset, labeler=side.labeler, gold=self.gold)
        document |= side.provenance()
        document |= {"resamples": self.resamples, "seed": self.seed}
        document["diagnostics"] = found.as_json()
        return document, [report.table(side.labeler), *found.lines()]

    def compared(self, first: Side, second: Side) -> tuple[dict[str, Any], list[str]]:
        """The document's key `against`, and the words for it."""
        pairs = self.protocol.compare(
            first.traces,
            second.traces,
            thresholds=(first.threshold, second.threshold),
            seed=self.seed,
            resamples=self.resamples,
        )
        document = {"labeler": second.labeler, **second.provenance()}
        document["measures"] = {measure: pair.as_json() for measure, pair in pairs.items()}
        lines = [pair.line(first.labeler, second.labeler) for pair in pairs.values()]
        if second.fit is not None:
            lines.append(
                f"threshold of {second.labeler}: {second.threshold:.6g} from {second.source}"
            )
        return document, lines
