"""`stepgold import scores`: a third party's outputs, matched by trace id and never zipped."""

from __future__ import annotations

from pathlib import Path

from commands.outcome import INCOMPLETE, OK, Outcome, Tally
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
    from formats import read_scores, source_file

    if name is None:
        raise InputError("Scores need the name of their labeler.", remedy="add --labeler NAME")
    tally = Tally("import", dataset, name)
    with workspace.open_store() as store:
        store.require_dataset(dataset)
        known = {
            context.trace.id: len(context.trace.steps)
            for context in store.contexts(dataset, with_evidence=False)
        }
        labels: dict[str, TraceLabel] = {}
        rejected: list[RejectedRow] = []
        for path in files:
            for row in read_scores(path, known):
                if isinstance(row, RejectedRow):
                    rejected.append(row)
                elif row.trace_id in labels:
                    rejected.append(
                        RejectedRow(str(path), None, row.trace_id, "the id stands twice")
                    )
                else:
                    labels[row.trace_id] = row
        if not labels:
            raise InputError(
                f"No row of the score file fits dataset '{dataset}': {len(rejected)} rejected.",
                where=str(files[0]),
                remedy=rejected[0].reason
                if rejected
                else 'rows are {"id", "scores" | "verdicts" | "first_error"}',
            )
        inferred = (
            LabelerKind.PRM
            if any(s.score is not None for x in labels.values() for s in x.step_labels)
            else LabelerKind.JUDGE
        )
        sources = [source_file(path, "scores", {}) for path in files]
        config = {"files": [{"name": source.name, "sha256": source.sha256} for source in sources]}
        with store.transaction():
            store.declare_labeler(dataset, Labeler(name, kind or inferred, config), replace=replace)
            before = set(known) - set(store.unlabeled_trace_ids(dataset, name))
            fresh = [label for trace_id, label in labels.items() if trace_id not in before]
            store.put_labels(dataset, name, fresh)
        tally.count(fresh)
        tally.unchanged = len(before)
        missing = [trace_id for trace_id in known if trace_id not in labels]
        summary = store.import_summary(dataset)
    rejected.extend(
        RejectedRow(str(files[0]), None, trace_id, "the file has no row for this trace")
        for trace_id in missing
    )
    tally.failed = len(rejected)
    document = tally.document(
        traces=summary.traces,
        with_error=summary.with_error,
        without_error=summary.without_error,
        unlabelled=summary.unlabelled,
        rejected=[
            {"file": r.file, "line": r.line, "id": r.id, "reason": r.reason} for r in rejected
        ],
    )
    words = [
        f"import scores '{name}': {len(labels)} traces scored, {len(missing)} missing, {len(rejected) - len(missing)} rows rejected"
    ]
    words += [f"rejected: {r.file}: {r.id or 'no id'}: {r.reason}" for r in rejected[:10]]
    return Outcome(document, "\n".join(words), INCOMPLETE if rejected else OK, json_output)
