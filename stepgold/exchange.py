"""`import`, `import scores` and `export`: files in published formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats import (
    ExportRow,
    FormatLimit,
    NeutralPolicy,
    ProblemIds,
    export_formats,
    import_formats,
    read_file,
    read_scores,
    source_file,
    write_file,
)
from stepgold.console import progress
from stepgold.golds import list_unusable_golds
from stepgold.labeling_run import source_of
from stepgold.models import parse_spec
from stepgold.options import DatasetOptions
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import INCOMPLETE, OK, counted
from traces import (
    InputError,
    Labeler,
    LabelerKind,
    Need,
    Paths,
    RejectedRow,
    StrPath,
    TraceLabel,
    argument,
    option,
    paths_of,
)

if TYPE_CHECKING:
    from formats import SkippedTrace
    from inference import ModelSpec
    from stepgold.workspace import WorkspaceFolder
    from storage import ImportSummary, Store

SCORES = "scores"
"""The format of a third party's outputs for traces that were imported before."""
SHOWN_ROWS = 10
"""Rows shown to a person; the JSON document lists all."""


class _SourceOptions(DatasetOptions):
    """The labeler of the files, and whether stored labels are replaced."""

    kind: LabelerKind | str | None = option(
        default=None, choices=tuple(LabelerKind), help="Kind of labeler [default: by format]."
    )
    replace: bool = option(
        default=False, help="Replace what this file or labeler stored before.", flags=("--replace",)
    )

    @property
    def labeler_kind(self) -> LabelerKind | None:
        """The kind, if one was given."""
        return None if self.kind is None else LabelerKind(self.kind)


class ImportOptions(_SourceOptions):
    """The files, and what their format does not record."""

    format: str = argument(
        kw_only=False, metavar="FORMAT", help=f"{', '.join(import_formats())}, or {SCORES}."
    )
    files: Paths = argument(
        kw_only=False,
        metavar="FILE",
        help="Files to read: .json or .jsonl, also gzipped (.gz), or .parquet.",
    )
    subset: str | None = option(
        default=None,
        metavar="NAME",
        help="Name of the subset [default: the format's, else 'default'].",
    )
    labeler: str | None = option(
        default=None,
        metavar="NAME",
        help="Name of the labeler, for files without one (scores, trl).",
    )
    neutral: NeutralPolicy | str = option(
        default="keep",
        choices=tuple(NeutralPolicy),
        help="How to import neutral steps (prm800k, visualprocessbench).",
    )
    alternatives: bool = option(
        default=False, help="Also import prm800k's rated alternative steps as traces."
    )
    prm: str | None = option(
        default=None,
        metavar="MODEL",
        help="medprm: checkpoint (hf:PATH) that computed the PRM scores of a scored file.",
    )
    split: str | None = option(
        default=None,
        metavar="RULE",
        help="responses: how to find the steps: blank-lines, numbered, markers:REGEX or auto"
        " [default: auto].",
    )
    column: str | None = option(
        default=None,
        metavar="N[,N]",
        help="scores: if a step has a list of class probabilities, sum these classes (0-based).",
        needs=Need("the format scores", lambda config: config.format == SCORES),
    )

    def check(self) -> None:
        """Refuse options that have no effect on scores, and two files of the same name.

        Raises:
            InputError: there are some.
        """
        super().check()
        if self.format != SCORES:
            _require_different_names(paths_of(self.files))
        elif any((self.subset, self.alternatives, self.prm, self.split)) or self.neutral != "keep":
            raise InputError(
                "Scores belong to traces that already have steps, a subset and gold.",
                remedy="remove --subset, --neutral, --alternatives, --prm and --split",
            )
        if self.prm is not None:
            object.__setattr__(self, "prm", str(_checkpoint(self.prm)))


def _checkpoint(prm: str) -> ModelSpec:
    """The checkpoint that scores come from.

    Raises:
        InputError: it is not one on this machine or the Hub.
    """
    spec = parse_spec(prm)
    if spec.kind not in ("hf", "lab"):
        raise InputError(
            f"'{prm}' is not a checkpoint.", where="--prm", remedy="name it as --prm hf:PATH"
        )
    return spec


class ScoresOptions(_SourceOptions):
    """The scores of a third party, and its name."""

    files: Paths = argument(
        kw_only=False,
        metavar="FILE",
        help="Rows with an id and scores, verdicts, or first_error.",
    )
    labeler: str = option(metavar="NAME", help="Name of the labeler that the scores come from.")
    column: str | None = option(
        default=None,
        metavar="N[,N]",
        help="If a step has a list of class probabilities, sum these classes (0-based).",
    )

    @property
    def columns(self) -> tuple[int, ...]:
        """The classes; empty if a step's score is a single number.

        Raises:
            InputError: they are not numbers.
        """
        parts = [] if self.column is None else self.column.split(",")
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise InputError(
                f"'{self.column}' is not a list of columns.",
                where="--column",
                remedy="give numbers from 0: 1,2",
            )
        return tuple(map(int, parts))


@dataclass(frozen=True, kw_only=True, repr=False)
class ImportResult(LabelingResult):
    """The outcome of an import, and the size of the dataset."""

    traces: int
    """Traces of the dataset."""
    with_error: int
    """Traces in which gold has an error."""
    without_error: int
    """Traces in which gold has none."""
    unlabelled: int
    """Traces without usable gold."""
    removed: int | None = None
    """Traces that the files no longer have; None for scores."""
    rejected: tuple[RejectedRow, ...] = field(default=())
    """Rows that were not imported."""
    kept: tuple[RejectedRow, ...] = field(default=())
    """Rows that were changed on import."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if a row was rejected."""
        return INCOMPLETE if self.rejected or self.kept else OK

    def as_json(self) -> dict[str, Any]:
        """The contract's document of an import."""
        return super().as_json() | {
            "traces": self.traces,
            "with_error": self.with_error,
            "without_error": self.without_error,
            "unlabelled": self.unlabelled,
            **({} if self.removed is None else {"removed": self.removed}),
            "rejected": [row_document(row) for row in self.rejected],
            "notes": [row_document(row) for row in self.kept],
        }

    def words(self) -> str:
        """The counts, and the first rejected rows."""
        gone = f", {self.removed} removed (no longer in the file)" if self.removed else ""
        counts = (
            f"import: {self.done} new, {self.unchanged} unchanged{gone}; dataset '{self.dataset}'"
            f" now has {counted(self.traces, 'trace')}: {self.with_error} with an error, "
            f"{self.without_error} without, {self.unlabelled} without usable gold"
        )
        return "\n".join([counts, *rejection_lines((*self.rejected, *self.kept))])


@dataclass(frozen=True, kw_only=True, repr=False)
class ScoresResult(ImportResult):
    """The outcome of importing a third party's scores."""

    scored: int
    """Traces that now have a label of this labeler."""
    unusable: int
    """Rows that fit no trace."""

    def words(self) -> str:
        """The counts, and the first rejected rows and missing traces."""
        counts = (
            f"import scores '{self.labeler}': {counted(self.scored, 'trace')} scored,"
            f" {self.failed} missing, {counted(self.unusable, 'row')} rejected"
        )
        return "\n".join([counts, *rejection_lines(self.rejected)])


def import_(workspace: WorkspaceFolder, options: ImportOptions) -> ImportResult:
    """Import traces with the labels they carry; every row that cannot be used is listed.

    With the format `scores` it is `import_scores`.

    Raises:
        InputError: an unknown format, or a file that cannot be read; nothing is imported.
    """
    if options.format == SCORES:
        return import_scores(workspace, _as_scores(options))
    tally, rejected, removed = Tally("import", options.dataset), list[RejectedRow](), 0
    given: dict[str, Any] = {
        "subset": options.subset,
        "labeler": options.labeler,
        "kind": options.labeler_kind,
        "neutral": NeutralPolicy(options.neutral),
        "alternatives": options.alternatives,
        "prm": options.prm,
        "split": options.split,
    }
    # The same file with another policy is another source; the default adds nothing.
    said = {name: value for name, value in given.items() if value and value != "keep"}
    # Checked before the store is opened: a typo must not create a workspace.
    problems = ProblemIds()
    sources = [
        (
            path,
            source_file(path, options.format, said),
            read_file(options.format, path, problems=problems, **given),
        )
        for path in paths_of(options.files)
    ]
    with workspace.open_store(create=True) as store:
        # One transaction for all files: if one cannot be read completely, nothing is kept.
        with store.transaction():
            for path, source, rows in sources:
                shown = progress(rows, total=None, label=f"import {path.name}"[:22])
                outcome = store.traces.import_file(
                    options.dataset, source, shown, replace=options.replace
                )
                tally.done += outcome.done
                tally.unchanged += outcome.unchanged
                removed += outcome.removed
                rejected.extend(outcome.rejected)
        summary = store.traces.import_summary(options.dataset)
        tally.unusable_golds = list_unusable_golds(store.traces.problems(options.dataset))
    tally.failed = sum(not row.imported for row in rejected)
    figures = tally.figures() | _sizes(summary)
    return ImportResult(
        **figures,
        removed=removed,
        rejected=tuple(row for row in rejected if not row.imported),
        kept=tuple(row for row in rejected if row.imported),
    )


def import_scores(workspace: WorkspaceFolder, options: ScoresOptions) -> ScoresResult:
    """Store a third party's labels, matched by trace id.

    Unknown ids, length mismatches and missing traces are listed.

    Raises:
        InputError: no row fits, or the labeler's name is taken by another configuration.
    """
    tally = Tally("import", options.dataset, options.labeler)
    files = paths_of(options.files)
    with workspace.open_store() as store:
        store.traces.require_dataset(options.dataset)
        known = {
            context.trace.id: len(context.trace.steps)
            for context in store.traces.contexts(options.dataset, with_evidence=False)
        }
        labels, rejected = _read_labels(files, known, options.columns)
        unusable = len(rejected)
        if not labels:
            raise InputError(
                f"No score row matches dataset '{options.dataset}': {unusable} rejected.",
                where=str(files[0]),
                remedy=rejected[0].reason
                if rejected
                else "write rows as in docs/reference/formats.md",
            )
        kind = options.labeler_kind or _inferred_kind(labels)
        labeler = Labeler(options.labeler, kind, _config(files, options.columns))
        with store.transaction():
            store.labels.declare(options.dataset, labeler, replace=options.replace)
            unlabeled = store.labels.unlabeled_trace_ids(options.dataset, options.labeler)
            before = set(known) - set(unlabeled)
            fresh = [label for trace_id, label in labels.items() if trace_id not in before]
            store.labels.put(options.dataset, options.labeler, fresh)
        tally.count(fresh)
        tally.unchanged = len(before)
        summary = store.traces.import_summary(options.dataset)
    missing = [trace_id for trace_id in known if trace_id not in labels]
    with_row = {row.id for row in rejected}
    rejected += [
        RejectedRow(str(files[0]), None, trace_id, "the file has no row for this trace")
        for trace_id in missing
        if trace_id not in with_row
    ]
    tally.failed = len(missing)
    figures = tally.figures() | _sizes(summary)
    return ScoresResult(**figures, rejected=tuple(rejected), scored=len(labels), unusable=unusable)


def _as_scores(options: ImportOptions) -> ScoresOptions:
    if options.labeler is None:
        raise InputError("No labeler named for the scores.", remedy="add --labeler NAME")
    return ScoresOptions(
        paths_of(options.files),
        dataset=options.dataset,
        labeler=options.labeler,
        kind=options.kind,
        replace=options.replace,
        column=options.column,
    )


def _require_different_names(files: Iterable[Path]) -> None:
    """Refuse two files of the same base name: the second would count as a new version.

    Raises:
        InputError: two files of the call have the same name.
    """
    seen: dict[str, Path] = {}
    for path in files:
        if path.name in seen:
            raise InputError(
                f"Two input files are named '{path.name}', and a dataset identifies a file by"
                " its name.",
                where=f"{seen[path.name]} and {path}",
                remedy="rename one, or import it into another --dataset",
            )
        seen[path.name] = path


def _sizes(summary: ImportSummary) -> dict[str, Any]:
    return {
        "traces": summary.traces,
        "with_error": summary.with_error,
        "without_error": summary.without_error,
        "unlabelled": summary.unlabelled,
    }


def _read_labels(
    files: Sequence[Path], known: Mapping[str, int], columns: tuple[int, ...]
) -> tuple[dict[str, TraceLabel], list[RejectedRow]]:
    """All usable labels by trace id, and the rows that fit no trace."""
    labels: dict[str, TraceLabel] = {}
    rejected: list[RejectedRow] = []
    for path in files:
        for row in read_scores(path, known, columns=columns):
            if isinstance(row, RejectedRow):
                rejected.append(row)
            elif row.trace_id in labels:
                rejected.append(
                    RejectedRow(str(path), None, row.trace_id, "a second row of this id")
                )
            else:
                labels[row.trace_id] = row
    return labels, rejected


def _inferred_kind(labels: Mapping[str, TraceLabel]) -> LabelerKind:
    """`prm` for scores, else `judge`."""
    scored = any(step.score is not None for label in labels.values() for step in label.step_labels)
    return LabelerKind.PRM if scored else LabelerKind.JUDGE


def _config(files: Iterable[Path], columns: tuple[int, ...]) -> dict[str, Any]:
    """The configuration of the labeler: a hash of its files."""
    sources = [source_file(path, SCORES, {}) for path in files]
    chosen = {"columns": list(columns)} if columns else {}
    named = [{"name": source.name, "sha256": source.sha256} for source in sources]
    return {"files": named} | chosen


def row_document(row: RejectedRow) -> dict[str, Any]:
    """A rejected row as the contract lists it."""
    return {"file": row.file, "line": row.line, "id": row.id, "reason": row.reason}


def rejection_lines(rejected: Sequence[RejectedRow]) -> Iterator[str]:
    """One line per row, and a last one that counts those not shown."""
    for row in rejected[:SHOWN_ROWS]:
        place = row.file if row.line is None else f"{row.file}:{row.line}"
        what = "note" if row.imported else "rejected"
        yield f"{what}: {place}: {row.id or 'no id'}: {row.reason}"
    if len(rejected) > SHOWN_ROWS:
        yield f"... and {len(rejected) - SHOWN_ROWS} more: --json lists them all"


class ExportOptions(DatasetOptions):
    """The labels to write, the format and the file."""

    format: str = argument(kw_only=False, metavar="FORMAT", help=f"{', '.join(export_formats())}.")
    out: StrPath = argument(kw_only=False, metavar="OUT", help="File to write.")
    labeler: str = option(metavar="NAME", help="Labeler in the dataset.")


@dataclass(frozen=True, kw_only=True, repr=False)
class ExportResult(LabelingResult):
    """What was written, and what the format cannot represent."""

    format: str
    """The format of the file."""
    out: Path
    """The file."""
    shortened: int
    """Traces cut after the first error, because later steps have no labels."""
    not_carried: Mapping[str, int]
    """Traces by the part of them that the format has no place for."""
    unfit: tuple[SkippedTrace, ...]
    """Labeled traces that the format cannot hold."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if there are labels and the format holds none of their traces.

        A trace without a label is no failure of the export.
        """
        return INCOMPLETE if not self.done and self.abstained else OK

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the file and what it does not hold."""
        return super().as_json() | {
            "out": str(self.out),
            "shortened": self.shortened,
            "not_carried": dict(self.not_carried),
            "unfit": [{"id": one.trace_id, "reason": one.detail} for one in self.unfit],
        }

    def words(self) -> str:
        """The counts, and the first traces that were left out."""
        silent = sum(self.abstained.values()) - len(self.unfit) + self.failed
        counts = (
            f"export {self.format}: {counted(self.done, 'trace')} written to {self.out},"
            f" {silent} without a label left out"
        )
        if self.unfit:
            counts += f", {len(self.unfit)} that the format cannot hold"
        if self.shortened:
            counts += f", {self.shortened} cut after the first error (later steps have no labels)"
        left_out = [f"left out: {one.trace_id}: {one.detail}" for one in self.unfit[:SHOWN_ROWS]]
        lines = [counts, *left_out]
        if len(self.unfit) > SHOWN_ROWS:
            lines.append(f"... and {len(self.unfit) - SHOWN_ROWS} more: --json lists them all")
        if self.not_carried:
            lost = ", ".join(f"{part} ({count})" for part, count in self.not_carried.items())
            lines.append(f"not carried by {self.format} (traces): {lost}")
        return "\n".join(lines)


def export(workspace: WorkspaceFolder, options: ExportOptions) -> ExportResult:
    """Write the labels of one labeler, with everything that the format can carry.

    Raises:
        InputError: an unknown format, dataset or labeler, or a file that cannot be written.
    """
    tally = Tally("export", options.dataset, options.labeler)
    out = Path(options.out)
    with workspace.open_store() as store:
        outcome = write_file(options.format, out, _export_rows(store, options))
        tally.failed = len(store.labels.unlabeled_trace_ids(options.dataset, options.labeler))
    tally.done = outcome.written
    for skipped in outcome.skipped:
        tally.abstained[skipped.reason.value] += 1
    return ExportResult(
        **tally.figures(),
        format=options.format,
        out=out,
        shortened=outcome.shortened,
        not_carried=outcome.not_carried,
        unfit=tuple(one for one in outcome.skipped if one.reason is FormatLimit.NOT_CARRIED),
    )


def _export_rows(store: Store, options: ExportOptions) -> Iterator[ExportRow]:
    """The labeled traces of a dataset as rows of a file; an unknown labeler is refused at once."""
    dataset = options.dataset
    labeler, labels = (
        store.labels.labeler(dataset, options.labeler),
        store.labels.load(dataset, options.labeler),
    )
    support = _support(store, dataset, labeler) if options.format == "case" else {}
    label = f"export {options.format}"[:22]
    return (
        ExportRow(
            problem=context.problem,
            trace=context.trace,
            label=labels[context.trace.id],
            labeler=labeler,
            evidence=context.evidence,
            support=support.get(context.trace.id, ()),
        )
        for context in progress(store.traces.contexts(dataset), total=None, label=label)
        if context.trace.id in labels
    )


def _support(
    store: Store, dataset: str, consensus: Labeler
) -> dict[str, tuple[tuple[Labeler, TraceLabel], ...]]:
    """By trace id, the labels of the judge and the MC labeler that a consensus rests on.

    A labeler that was removed or replaced since is left out: the consensus did not see its labels.
    """
    known = {summary.labeler.name for summary in store.labels.labelers(dataset)}
    found: dict[str, tuple[tuple[Labeler, TraceLabel], ...]] = {}
    for source in (consensus.config.get(role) for role in ("judge", "mc")):
        name = source.get("labeler") if isinstance(source, dict) else None
        if name not in known or source_of(store, dataset, name) != source:
            continue
        labeler = store.labels.labeler(dataset, name)
        for trace_id, label in store.labels.load(dataset, name).items():
            found[trace_id] = (*found.get(trace_id, ()), (labeler, label))
    return found
