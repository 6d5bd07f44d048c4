"""`stepgold import scores`: a third party's outputs, matched by trace id and never zipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from commands.outcome import INCOMPLETE, OK, Outcome, Tally
from commands.rejections import rejection_lines, row_document
from commands.workspace import Workspace
from traces.errors import InputError
from traces.labels import Labeler, LabelerKind, TraceLabel
from traces.records import RejectedRow


def import_scores(
    workspace: Workspace,
    files: list[Path],
    dataset: str,
    name: str | None,
    kind: LabelerKind | None,
    replace: bool,
    json_output: bool,
) -> Outcome:
    """Store the labels of score files; unknown ids, length mismatches and missing traces are listed."""
    if name is None:
        raise InputError("Scores need the name of their labeler.", remedy="add --labeler NAME")
    tally = Tally("import", dataset, name)
    with workspace.open_store() as store:
        store.require_dataset(dataset)
        known = {
            context.trace.id: len(context.trace.steps)
            for context in store.contexts(dataset, with_evidence=False)
        }
        labels, rejected = _read(files, known)
        unusable = len(rejected)
        if not labels:
            raise InputError(
                f"No row of the score file fits dataset '{dataset}': {len(rejected)} rejected.",
                where=str(files[0]),
                remedy=rejected[0].reason if rejected else "write rows as the README shows",
            )
        labeler = Labeler(name, kind or _inferred_kind(labels), _config(files))
        with store.transaction():
            store.declare_labeler(dataset, labeler, replace=replace)
            before = set(known) - set(store.unlabeled_trace_ids(dataset, name))
            fresh = [label for trace_id, label in labels.items() if trace_id not in before]
            store.put_labels(dataset, name, fresh)
        tally.count(fresh)
        tally.unchanged = len(before)
        summary = store.import_summary(dataset)
    missing = [trace_id for trace_id in known if trace_id not in labels]
    with_row = {row.id for row in rejected}
    rejected += [
        RejectedRow(str(files[0]), None, trace_id, "the file has no row for this trace")
        for trace_id in missing
        if trace_id not in with_row
    ]
    tally.failed = len(missing)
    document = tally.document(
        traces=summary.traces,
        with_error=summary.with_error,
        without_error=summary.without_error,
        unlabelled=summary.unlabelled,
        rejected=[row_document(row) for row in rejected],
    )
    words = [
        f"import scores '{name}': {len(labels)} traces scored, {len(missing)} missing, "
        f"{unusable} rows rejected",
        *rejection_lines(rejected),
    ]
    return Outcome(document, "\n".join(words), INCOMPLETE if rejected else OK, json_output)


def _read(
    files: list[Path], known: dict[str, int]
) -> tuple[dict[str, TraceLabel], list[RejectedRow]]:
    """All usable labels by trace id, and the rows that fit no trace."""
    from formats import read_scores

    labels: dict[str, TraceLabel] = {}
    rejected: list[RejectedRow] = []
    for path in files:
        for row in read_scores(path, known):
            if isinstance(row, RejectedRow):
                rejected.append(row)
            elif row.trace_id in labels:
                rejected.append(RejectedRow(str(path), None, row.trace_id, "the id stands twice"))
            else:
                labels[row.trace_id] = row
    return labels, rejected


def _inferred_kind(labels: dict[str, TraceLabel]) -> LabelerKind:
    """`prm` for scores, else `judge` (design.md section 3)."""
    scored = any(step.score is not None for label in labels.values() for step in label.step_labels)
    return LabelerKind.PRM if scored else LabelerKind.JUDGE


def _config(files: list[Path]) -> dict[str, Any]:
    """The configuration of the labeler is the content of its files."""
    from formats import source_file

    sources = [source_file(path, "scores", {}) for path in files]
    return {"files": [{"name": source.name, "sha256": source.sha256} for source in sources]}
