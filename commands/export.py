"""`stepgold export`: a labeler's word on a dataset as a file of the field."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.console import progress
from commands.options import Dataset, Json, LabelerName, OutFile
from commands.outcome import Outcome, Tally
from commands.workspace import Workspace


def export(
    ctx: typer.Context,
    format: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT", help="traces, processbench, medprm, math-shepherd or trl."
        ),
    ],
    out: OutFile,
    dataset: Dataset,
    labeler: LabelerName,
    json_output: Json = False,
) -> Outcome:
    """Write the labels of one labeler, with everything the format can carry."""
    from formats import ExportRow, write_file

    workspace: Workspace = ctx.obj
    tally = Tally("export", dataset, labeler)
    with workspace.open_store() as store:
        who = store.labeler(dataset, labeler)
        labels = store.labels(dataset, labeler)
        rows = (
            ExportRow(
                context.problem, context.trace, labels[context.trace.id], who, context.evidence
            )
            for context in progress(
                store.contexts(dataset), total=None, label=f"export {format}"[:22]
            )
            if context.trace.id in labels
        )
        outcome = write_file(format, out, rows)
        tally.failed = len(store.unlabeled_trace_ids(dataset, labeler))
    tally.done = outcome.written
    for skipped in outcome.skipped:
        tally.abstained[skipped.reason.value] += 1
    left_out = len(outcome.skipped) + tally.failed
    words = (
        f"export {format}: {outcome.written} traces written to {out}, "
        f"{left_out} without a word left out"
    )
    if outcome.shortened:
        words += f", {outcome.shortened} cut after the first error (nobody labelled what follows)"
    # A trace without a word has nothing to export: that is no failure of the export.
    return Outcome(
        tally.document(out=str(out), shortened=outcome.shortened), words, as_json=json_output
    )
