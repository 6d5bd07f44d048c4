"""`stepgold export`: a labeler's word on a dataset as a file of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from commands.console import progress
from commands.options import Dataset, Json, LabelerName, OutFile
from commands.outcome import INCOMPLETE, OK, Outcome, Tally
from commands.workspace import Workspace

if TYPE_CHECKING:
    from storage import Store
    from traces.labels import Labeler, TraceLabel


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
    from formats import ExportRow, write_file

    workspace: Workspace = ctx.obj
    tally = Tally("export", dataset, labeler)
    with workspace.open_store() as store:
        who = store.labeler(dataset, labeler)
        labels = store.labels(dataset, labeler)
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
    if outcome.not_carried:
        lost = ", ".join(f"{part} ({count})" for part, count in outcome.not_carried.items())
        words += f"\nnot carried by {format} (traces): {lost}"
    document = tally.document(
        out=str(out), shortened=outcome.shortened, not_carried=dict(outcome.not_carried)
    )
    # A trace without a word is no failure of the export; a format that holds not one trace is.
    code = INCOMPLETE if labels and not outcome.written else OK
    return Outcome(document, words, code, json_output)


def _support(
    store: Store, dataset: str, who: Labeler
) -> dict[str, tuple[tuple[Labeler, TraceLabel], ...]]:
    """By trace id, the labels of the judge and the MC labeler that a consensus rests on.

    One that was removed or replaced since is left out: its words are not those agreed with.
    """
    from commands.consensus import source_of

    known = {summary.labeler.name for summary in store.labelers(dataset)}
    found: dict[str, tuple[tuple[Labeler, TraceLabel], ...]] = {}
    for source in (who.config.get(role) for role in ("judge", "mc")):
        name = source.get("labeler") if isinstance(source, dict) else None
        if name not in known or source_of(store, dataset, name) != source:
            continue
        labeler = store.labeler(dataset, name)
        for trace_id, label in store.labels(dataset, name).items():
            found[trace_id] = (*found.get(trace_id, ()), (labeler, label))
    return found
