"""`import` and `import scores`: files in published formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from formats import (
    NeutralPolicy,
    ProblemIds,
    SubsetFiles,
    import_formats,
    read_file,
    read_scores,
    source_file,
)
from stepgold.console import progress
from stepgold.golds import list_unusable_golds
from stepgold.hub import InputFile, hub_path, input_files
from stepgold.models import parse_spec
from stepgold.options import DatasetOptions
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import INCOMPLETE, OK, counted
from traces import (
    ORIGIN,
    ImportedTrace,
    InputError,
    Labeler,
    LabelerKind,
    Need,
    Paths,
    RejectedRow,
    SourceFile,
    TraceLabel,
    argument,
    option,
    paths_of,
)

if TYPE_CHECKING:
    from inference import ModelSpec
    from stepgold.workspace import WorkspaceFolder
    from storage import ImportSummary, Store

SCORES = "scores"
"""The format of a third party's outputs for traces that were imported before."""
Item = TypeVar("Item")

AT_ONCE = 1000
"""Labels that are stored or read at once."""
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
        help="Files to read: .json or .jsonl, also gzipped (.gz), or .parquet; or on the Hub,"
        " hf://datasets/ORG/NAME[@REVISION][/PATH].",
    )
    subset: str | None = option(
        default=None,
        metavar="NAME",
        help="Name of the subset [default: the format's, else the Hub's split, else 'default'].",
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

    @property
    def reading(self) -> dict[str, Any]:
        """The options of the readers of files."""
        return {
            "subset": self.subset,
            "labeler": self.labeler,
            "kind": self.labeler_kind,
            "neutral": NeutralPolicy(self.neutral),
            "alternatives": self.alternatives,
            "prm": self.prm,
            "split": self.split,
        }

    def check(self) -> None:
        """Refuse options that have no effect on scores, and two files of the same name.

        Raises:
            InputError: there are some.
        """
        super().check()
        if self.format != SCORES:
            named = paths_of(self.files)
            _require_different_names(path for path in named if hub_path(path) is None)
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
    hub: tuple[Mapping[str, str], ...] = field(default=())
    """Repository, commit and path of every file that came from the Hub."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if a row was rejected or has gold that cannot be used."""
        return INCOMPLETE if any(not row.harmless for row in self.rejected + self.kept) else OK

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
            **({"hub": [dict(origin) for origin in self.hub]} if self.hub else {}),
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
    problems, subsets = ProblemIds(), SubsetFiles()
    # Checked before the store is opened: a typo must not create a workspace.
    sources = _sources(options, problems)
    names = [source.name for _, source, _ in sources]
    with workspace.new_store() as store:
        # If one file cannot be read completely, nothing is kept of all. What a replaced file drops
        # cannot be put back, except by one transaction.
        importing = store.traces.importing(options.dataset, names)
        with store.transaction() if options.replace else importing:
            problems.know(store.traces.shared_problems(options.dataset, names, inside=False))
            for file, source, rows in sources:
                # The files of one split are parts of a whole.
                watched = subsets.watched(file.path, rows) if file.split is None else rows
                shown = progress(watched, total=None, label=f"import {source.name}"[:22])
                outcome = store.traces.import_file(
                    options.dataset, source, shown, replace=options.replace
                )
                tally.done += outcome.done
                tally.unchanged += outcome.unchanged
                removed += outcome.removed
                rejected.extend(outcome.rejected)
                if not outcome.done:  # it may not have been read
                    mine = store.traces.shared_problems(options.dataset, [source.name], inside=True)
                    problems.know(mine)
        summary = store.traces.import_summary(options.dataset)
        golds = store.traces.golds(options.dataset, files=names)
        tally.unusable_golds = list_unusable_golds(golds)
    rejected += [] if options.subset else subsets.notes()
    tally.failed = sum(not row.imported for row in rejected)
    figures = tally.figures() | _sizes(summary)
    return ImportResult(
        **figures,
        removed=removed,
        rejected=tuple(row for row in rejected if not row.imported),
        kept=tuple(row for row in rejected if row.imported),
        hub=tuple(file.origin for file, _, _ in sources if file.origin),
    )


Rows = Iterator[ImportedTrace | RejectedRow]


def _sources(
    options: ImportOptions, problems: ProblemIds
) -> list[tuple[InputFile, SourceFile, Rows]]:
    """The files of an import, each with how it is stored and its rows, which are read lazily.

    Raises:
        InputError: an unknown format, options that do not fit it, or a file that is not there.
    """
    given = options.reading
    # The same file with another policy is another source; the default adds nothing.
    said = {name: value for name, value in given.items() if value and value != "keep"}
    files = input_files(paths_of(options.files), splits=options.subset is None)
    _require_different_names(file.path for file in files)
    found = []
    for file in files:
        source = _source(file, options.format, said)
        several = len(files) > 1 and file.split is None
        rows = read_file(options.format, file.path, problems=problems, several=several, **given)
        found.append((file, source, _placed(file, rows)))
    return found


def _source(file: InputFile, format: str, said: Mapping[str, Any]) -> SourceFile:
    """A file as it is stored, with where it came from.

    Raises:
        TraceFormatError: it cannot be read.
    """
    where = {"default_subset": file.split} if file.split else {}
    origin = {ORIGIN: dict(file.origin)} if file.origin else {}
    return replace(source_file(file.path, format, {**said, **where, **origin}), path=file.shown)


def _placed(file: InputFile, rows: Rows) -> Rows:
    """The rows, with their file as the user knows it, and its split where they have no subset."""
    for row in rows:
        if isinstance(row, RejectedRow):
            yield replace(row, file=file.shown)
        elif file.split is not None and row.trace.subset == "default":
            yield replace(row, trace=replace(row.trace, subset=file.split))
        else:
            yield row


def import_scores(workspace: WorkspaceFolder, options: ScoresOptions) -> ScoresResult:
    """Store a third party's labels, matched by trace id.

    Unknown ids, length mismatches and missing traces are listed.

    Raises:
        InputError: no row fits, or the labeler's name is taken by another configuration.
    """
    with workspace.open_store() as store:
        store.traces.require_dataset(options.dataset)
        files = input_files(paths_of(options.files), splits=False)
        known = {
            id: steps
            for page in store.traces.columns(options.dataset)
            for id, steps in zip(page.ids, page.n_steps.tolist(), strict=True)
        }
        found = _Scores(store, options, files, known)
        # A replaced labeler cannot be put back after a fault, except by one transaction.
        with store.transaction() if options.replace else nullcontext():
            found.store_all()
        summary = store.traces.import_summary(options.dataset)
    missing = [trace_id for trace_id in known if trace_id in found.missing]
    with_row = {row.id for row in found.rejected}
    unusable = len(found.rejected)
    rejected = found.rejected + [
        RejectedRow(files[0].shown, None, trace_id, "the file has no row for this trace")
        for trace_id in missing
        if trace_id not in with_row
    ]
    found.tally.failed = len(missing)
    figures = found.tally.figures() | _sizes(summary)
    scored = len(known) - len(missing)
    return ScoresResult(
        **figures,
        rejected=tuple(rejected),
        scored=scored,
        unusable=unusable,
        hub=tuple(file.origin for file in files if file.origin),
    )


class _Scores:
    """The labels of a third party on their way into the store, some at a time."""

    def __init__(
        self,
        store: Store,
        options: ScoresOptions,
        files: Sequence[InputFile],
        known: Mapping[str, int],
    ) -> None:
        """Nothing is read yet; `known` has the number of steps of every trace by id."""
        self.tally = Tally("import", options.dataset, options.labeler)
        self.missing = set(known)
        self.rejected: list[RejectedRow] = []
        self._store, self._options, self._known = store, options, known
        self._files = files

    def store_all(self) -> None:
        """Store all labels; after an error, none of this call.

        Raises:
            InputError: no row fits, or as `Labels.declare` and `read_scores`.
        """
        labels = self._labels()
        first = next(labels, None)
        if first is None:
            raise self._nothing_fits()
        options, labels_of = self._options, self._store.labels
        kind = options.labeler_kind or self._inferred_kind()
        before = {row.labeler.name for row in labels_of.labelers(options.dataset)}
        labeler = Labeler(options.labeler, kind, _config(self._files, options.columns))
        labels_of.declare(options.dataset, labeler, replace=options.replace)
        done = set[str]()
        if options.labeler in before:
            done = set(self._known)
            done -= set(labels_of.unlabeled_trace_ids(options.dataset, options.labeler))
        self.tally.unchanged = len(done)
        added: list[str] = []
        try:
            for chunk in chunks(chain([first], labels)):
                fresh = [label for label in chunk if label.trace_id not in done]
                labels_of.put(options.dataset, options.labeler, fresh)
                added += [label.trace_id for label in fresh]
                self.tally.count(fresh)
        except Exception:
            if options.labeler not in before:
                labels_of.remove_labeler(options.dataset, options.labeler)
            for ids in chunks(added if options.labeler in before else ()):
                labels_of.drop(options.dataset, options.labeler, ids)
            raise

    def _labels(self) -> Iterator[TraceLabel]:
        """The usable labels, one per trace; the other rows are listed."""
        for file, row in self._rows():
            if isinstance(row, RejectedRow):
                self.rejected.append(row)
            elif row.trace_id in self.missing:
                self.missing.remove(row.trace_id)
                yield row
            else:
                again = RejectedRow(file, None, row.trace_id, "a second row of this id")
                self.rejected.append(again)

    def _rows(self) -> Iterator[tuple[str, TraceLabel | RejectedRow]]:
        """The rows, each with the name of its file."""
        for file in self._files:
            for row in read_scores(file.path, self._known, columns=self._options.columns):
                if isinstance(row, RejectedRow):
                    row = replace(row, file=file.shown)
                yield file.shown, row

    def _inferred_kind(self) -> LabelerKind:
        """`prm` if any row has scores, else `judge`."""
        scored = any(
            step.score is not None
            for _, row in self._rows()
            if not isinstance(row, RejectedRow)
            for step in row.step_labels
        )
        return LabelerKind.PRM if scored else LabelerKind.JUDGE

    def _nothing_fits(self) -> InputError:
        rejected = self.rejected
        return InputError(
            f"No score row matches dataset '{self._options.dataset}': {len(rejected)} rejected.",
            where=self._files[0].shown,
            remedy=rejected[0].reason if rejected else "write rows as in docs/reference/formats.md",
        )


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
                remedy="rename one, or import it into another --dataset; of a repository on the"
                " Hub, name one folder at a time",
            )
        seen[path.name] = path


def _sizes(summary: ImportSummary) -> dict[str, Any]:
    return {
        "traces": summary.traces,
        "with_error": summary.with_error,
        "without_error": summary.without_error,
        "unlabelled": summary.unlabelled,
    }


def _config(files: Sequence[InputFile], columns: tuple[int, ...]) -> dict[str, Any]:
    """The configuration of the labeler: a hash of its files, and where they came from."""
    sources = [source_file(file.path, SCORES, {}) for file in files]
    chosen: dict[str, Any] = {"columns": list(columns)} if columns else {}
    if origins := [dict(file.origin) for file in files if file.origin]:
        chosen[ORIGIN] = origins
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
        whose = "" if row.harmless and row.id is None else f"{row.id or 'no id'}: "
        yield f"{what}: {place}: {whose}{row.reason}"
    if len(rejected) > SHOWN_ROWS:
        yield f"... and {len(rejected) - SHOWN_ROWS} more: --json lists them all"


def chunks(things: Iterable[Item]) -> Iterator[list[Item]]:
    """The things in lists of at most `AT_ONCE`, as they come."""
    left = iter(things)
    while chunk := list(islice(left, AT_ONCE)):
        yield chunk
