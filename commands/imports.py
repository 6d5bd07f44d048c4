"""`stepgold import`: files of the field into the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.options import Dataset, Json, Replace
from commands.rejections import rejection_lines, row_document
from stepgold.console import progress
from stepgold.outcome import Outcome, Tally
from stepgold.results import INCOMPLETE, OK
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError
from traces.labels import Labeler, LabelerKind, TraceLabel
from traces.records import RejectedRow

if TYPE_CHECKING:
    from formats import NeutralPolicy


def import_(
    ctx: typer.Context,
    format: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="traces, processbench, mr-ben, mr-gsm8k, big-bench-mistake, prmbench, prm800k, "
            "visualprocessbench, medprm, math-shepherd, trl, openrlhf, qwen-prm, sharegpt, or scores.",
        ),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help=".json or .jsonl, also .gz, or .parquet."),
    ],
    dataset: Dataset,
    subset: Annotated[
        str | None, typer.Option("--subset", help="Report these traces under this name.")
    ] = None,
    labeler: Annotated[
        str | None,
        typer.Option(
            "--labeler", help="Name of the labeler, where files do not say it (scores, trl)."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="Its kind: gold, judge, mc, consensus, prm or expert."),
    ] = None,
    neutral: Annotated[
        str,
        typer.Option(
            "--neutral",
            help="Neutral steps of prm800k and visualprocessbench: keep, positive, negative or ignore.",
        ),
    ] = "keep",
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Import traces, or a third party's scores, with every unusable row listed."""
    workspace: WorkspaceFolder = ctx.obj
    if format == "scores":
        if subset is not None or neutral != "keep":
            raise InputError(
                "Scores belong to traces that have a subset and gold already.",
                remedy="leave --subset and --neutral out",
            )
        return import_scores(workspace, files, dataset, labeler, _kind(kind), replace, json_output)
    given = {"subset": subset, "labeler": labeler, "kind": _kind(kind), "neutral": _policy(neutral)}
    return _import_traces(workspace, format, files, dataset, given, replace, json_output)


def _kind(kind: str | None) -> LabelerKind | None:
    from traces import LabelerKind

    if kind is None:
        return None
    if kind not in set(LabelerKind):
        raise InputError(
            f"'{kind}' is not a kind of labeler.", remedy=f"one of {', '.join(LabelerKind)}"
        )
    return LabelerKind(kind)


def _policy(neutral: str) -> NeutralPolicy:
    from formats import NeutralPolicy

    if neutral not in set(NeutralPolicy):
        raise InputError(
            f"'{neutral}' is no policy for neutral steps.",
            remedy=f"one of {', '.join(NeutralPolicy)}",
        )
    return NeutralPolicy(neutral)


def _require_own_names(files: list[Path]) -> None:
    """A dataset knows a file by its base name: a second one would stand for a new version of the first.

    Raises:
        InputError: two files of the call are called the same.
    """
    seen: dict[str, Path] = {}
    for path in files:
        if path.name in seen:
            raise InputError(
                f"Two files of this call are called '{path.name}', and a dataset knows a file by its name.",
                where=f"{seen[path.name]} and {path}",
                remedy="rename one of them, or import it into another --dataset",
            )
        seen[path.name] = path


def _import_traces(
    workspace: WorkspaceFolder,
    format: str,
    files: list[Path],
    dataset: str,
    given: dict[str, Any],
    replace: bool,
    json_output: bool,
) -> Outcome:
    from formats import read_file, source_file

    _require_own_names(files)
    tally = Tally("import", dataset)
    rejected: list[RejectedRow] = []
    removed = 0
    # The same file under another policy is another source; the default stands for no option.
    options = {name: value for name, value in given.items() if value and value != "keep"}
    # Before the store: a slip of the pen must not leave a workspace behind.
    sources = [
        (path, source_file(path, format, options), read_file(format, path, **given))
        for path in files
    ]
    with workspace.open_store(create=True) as store:
        # One transaction for all files: one that is unreadable to its end leaves nothing behind.
        with store.transaction():
            for path, source, rows in sources:
                outcome = store.traces.import_file(
                    dataset,
                    source,
                    progress(rows, total=None, label=f"import {path.name}"[:22]),
                    replace=replace,
                )
                tally.done += outcome.done
                tally.unchanged += outcome.unchanged
                removed += outcome.removed
                rejected.extend(outcome.rejected)
        summary = store.traces.import_summary(dataset)
    tally.failed = sum(not row.imported for row in rejected)
    document = tally.document(
        traces=summary.traces,
        with_error=summary.with_error,
        without_error=summary.without_error,
        unlabelled=summary.unlabelled,
        removed=removed,
        rejected=[row_document(row) for row in rejected],
    )
    gone = f", {removed} removed (no longer in the file)" if removed else ""
    words = [
        f"import: {tally.done} new, {tally.unchanged} unchanged{gone}; dataset '{dataset}' now has "
        f"{summary.traces} traces: {summary.with_error} with an error, "
        f"{summary.without_error} without, {summary.unlabelled} without usable gold",
        *rejection_lines(rejected),
    ]
    return Outcome(document, "\n".join(words), INCOMPLETE if rejected else OK, json_output)


# --- `stepgold import scores`: a third party's outputs, matched by trace id and never zipped


def import_scores(
    workspace: WorkspaceFolder,
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
        store.traces.require_dataset(dataset)
        known = {
            context.trace.id: len(context.trace.steps)
            for context in store.traces.contexts(dataset, with_evidence=False)
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
            store.labels.declare(dataset, labeler, replace=replace)
            before = set(known) - set(store.labels.unlabeled_trace_ids(dataset, name))
            fresh = [label for trace_id, label in labels.items() if trace_id not in before]
            store.labels.put(dataset, name, fresh)
        tally.count(fresh)
        tally.unchanged = len(before)
        summary = store.traces.import_summary(dataset)
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
