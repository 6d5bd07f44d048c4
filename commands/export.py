"""`stepgold export`: a labeler's word on a dataset as a file of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import Dataset, Json, LabelerName, OutFile
from commands.rejections import SHOWN_ROWS
from stepgold.console import progress
from stepgold.outcome import Outcome, Tally
from stepgold.results import INCOMPLETE, OK
from stepgold.workspace import WorkspaceFolder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from formats import SkippedTrace, WriteOutcome
    from storage import Store
    from traces import Labeler, TraceLabel


def export(
    ctx: typer.Context,
    format: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="A format of `import` (not scores), or parquet (of traces), or case.",
        ),
    ],
    out: OutFile,
    dataset: Dataset,
    labeler: LabelerName,
    json_output: Json = False,
) -> Outcome:
    """Write the labels of one labeler, with everything the format can carry."""
    from formats import ExportRow, FormatLimit, write_file

    workspace: WorkspaceFolder = ctx.obj
    tally = Tally("export", dataset, labeler)
    with workspace.open_store() as store:
        who = store.labels.labeler(dataset, labeler)
        labels = store.labels.load(dataset, labeler)
        support = _support(store, dataset, who) if format == "case" else {}
        rows = (
            ExportRow(
                context.problem,
                context.trace,
                labels[context.trace.id],
                who,
                context.evidence,
                support.get(context.trace.id, ()),
            )
            for context in progress(
                store.traces.contexts(dataset), total=None, label=f"export {format}"[:22]
            )
            if context.trace.id in labels
        )
        outcome = write_file(format, out, rows)
        tally.failed = len(store.labels.unlabeled_trace_ids(dataset, labeler))
    tally.done = outcome.written
    for skipped in outcome.skipped:
        tally.abstained[skipped.reason.value] += 1
    unfit = [one for one in outcome.skipped if one.reason is FormatLimit.NOT_CARRIED]
    document = tally.document(
        out=str(out),
        shortened=outcome.shortened,
        not_carried=dict(outcome.not_carried),
        unfit=[{"id": one.trace_id, "reason": one.detail} for one in unfit],
    )
    words = _words(format, out, outcome, tally.failed, unfit)
    # A trace without a word is no failure of the export; a format that holds not one trace is.
    code = INCOMPLETE if labels and not outcome.written else OK
    return Outcome(document, words, code, json_output)


def _words(
    format: str, out: Path, outcome: WriteOutcome, unlabelled: int, unfit: Sequence[SkippedTrace]
) -> str:
    silent = len(outcome.skipped) - len(unfit) + unlabelled
    words = f"export {format}: {outcome.written} traces written to {out}, {silent} without a word left out"
    if unfit:
        words += f", {len(unfit)} that the format cannot hold"
    if outcome.shortened:
        words += f", {outcome.shortened} cut after the first error (nobody labelled what follows)"
    lines = [words, *(f"left out: {one.trace_id}: {one.detail}" for one in unfit[:SHOWN_ROWS])]
    if len(unfit) > SHOWN_ROWS:
        lines.append(f"... and {len(unfit) - SHOWN_ROWS} more: --json lists them all")
    if outcome.not_carried:
        lost = ", ".join(f"{part} ({count})" for part, count in outcome.not_carried.items())
        lines.append(f"not carried by {format} (traces): {lost}")
    return "\n".join(lines)


def _support(
    store: Store, dataset: str, who: Labeler
) -> dict[str, tuple[tuple[Labeler, TraceLabel], ...]]:
    """By trace id, the labels of the judge and the MC labeler that a consensus rests on.

    One that was removed or replaced since is left out: its words are not those agreed with.
    """
    from stepgold.agreeing import source_of

    known = {summary.labeler.name for summary in store.labels.labelers(dataset)}
    found: dict[str, tuple[tuple[Labeler, TraceLabel], ...]] = {}
    for source in (who.config.get(role) for role in ("judge", "mc")):
        name = source.get("labeler") if isinstance(source, dict) else None
        if name not in known or source_of(store, dataset, name) != source:
            continue
        labeler = store.labels.labeler(dataset, name)
        for trace_id, label in store.labels.load(dataset, name).items():
            found[trace_id] = (*found.get(trace_id, ()), (labeler, label))
    return found
