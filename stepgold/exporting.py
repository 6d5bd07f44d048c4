"""`export`: one labeler's labels in a published format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats import ExportRow, FormatLimit, export_formats, write_file
from labeling import (
    FilterCounts,
    Filtered,
    QualityFilters,
    Selection,
    TraceFilters,
    beta_label,
)
from stepgold.console import note, progress
from stepgold.exchange import SHOWN_ROWS, chunks
from stepgold.hub import Output, hub_path, output_file
from stepgold.labeling_run import source_of, sources_in
from stepgold.options import DatasetOptions
from stepgold.outcome import LabelingResult, Tally
from stepgold.releasing import release_folder, release_lines, shares_of, write_release
from stepgold.results import INCOMPLETE, OK, counted
from traces import (
    AbstentionReason,
    InputError,
    Labeler,
    LabelerKind,
    Need,
    StrPath,
    TraceInContext,
    argument,
    may_hold_phi,
    option,
)

if TYPE_CHECKING:
    from formats import SkippedTrace
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import TraceLabel


_WITH_SUPPORT = ("case", "critique")
"""Formats that also show the labels that a consensus is made from."""
_ON_HUB = Need("a path on the Hub", lambda config: any(map(hub_path, config.targets)))
_RELEASE = Need("--release DIR", lambda config: config.release is not None)


class ExportOptions(QualityFilters, DatasetOptions):
    """The labels to write, the format and the file."""

    format: str = argument(kw_only=False, metavar="FORMAT", help=f"{', '.join(export_formats())}.")
    out: StrPath | None = argument(
        kw_only=False,
        default=None,
        metavar="OUT",
        help="File to write, or where to push it: hf://datasets/ORG/NAME[@REVISION][/PATH].",
    )
    labeler: str = option(metavar="NAME", help="Labeler in the dataset.")
    select: str | None = option(
        default=None,
        metavar="HOW:AMOUNT",
        help="Of the traces that pass the filters, write a share of each subset or a number: "
        "bis:0.1 (mixed but reliable Monte Carlo counts), uncertain:500, random:500.",
    )
    soft: str | None = option(
        default=None,
        choices=("beta",),
        metavar="NAME",
        help="Write soft labels in place of verdicts. beta: the posterior mean of the Monte Carlo "
        "counts, (successes + 1) / (continuations + 2).",
    )
    release: StrPath | None = option(
        default=None,
        metavar="DIR",
        help="Write a release to this folder or repository on the Hub: splits by problem, "
        "checksums, schema and dataset card. OUT is not needed then.",
    )
    splits: str = option(
        default="0.8,0.1,0.1",
        metavar="A,B,C",
        help="Shares of train, dev and test; problems are assigned by the hash of their id.",
        needs=_RELEASE,
    )
    against: Sequence[str] = option(
        default=(),
        metavar="NAME",
        help="A dataset of the workspace (a benchmark) whose problems are looked up in the release;"
        " may be repeated.",
        needs=_RELEASE,
    )
    license: str | None = option(
        default=None,
        metavar="ID",
        help="License of the labels for the card, such as apache-2.0 [default: unknown].",
        needs=_RELEASE,
    )
    private: bool = option(
        default=False,
        help="On the Hub: create the repository as a private one, and push to no public one.",
        flags=("--private",),
        needs=_ON_HUB,
    )
    allow_phi: bool = option(
        default=False,
        flags=("--allow-phi",),
        help="On the Hub: also push problems that say phi_removed: false.",
        needs=_ON_HUB,
    )

    @property
    def targets(self) -> tuple[StrPath, ...]:
        """What is written: the file or the release."""
        return tuple(one for one in (self.out, self.release) if one is not None)

    def check(self) -> None:
        """Refuse an export without a target, and shares or a selection that cannot be read.

        Raises:
            InputError: no file and no release, no three shares, or a selection that
                `labeling.Selection.parse` refuses.
        """
        super().check()
        if not self.targets:
            raise InputError(
                "An export needs a file or a release to write.",
                remedy="name the file OUT, or add --release DIR",
            )
        shares_of(self.splits)
        self.selection()

    def selection(self) -> Selection | None:
        """What is chosen of the traces that pass the filters; None for all."""
        return None if self.select is None else Selection.parse(self.select)


@dataclass(frozen=True, kw_only=True, repr=False)
class ExportResult(LabelingResult):
    """What was written, and what the format cannot represent."""

    format: str
    """The format of the file."""
    out: StrPath
    """The file: a path, or on the Hub its address as text."""
    commit: str | None
    """The commit on the Hub that has the file; None for a file here."""
    shortened: int
    """Traces cut after the first error, because later steps have no labels."""
    not_carried: Mapping[str, int]
    """Traces by the part of them that the format has no place for."""
    unfit: tuple[SkippedTrace, ...]
    """Labeled traces that the format cannot hold."""
    filters: FilterCounts
    """What the filters and the selection removed of the labeled traces."""
    filtered: tuple[tuple[str, Filtered], ...]
    """Those traces, each with the reason."""
    release: Mapping[str, Any] | None = None
    """What the card of a release says, as data; None for a file."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if there are labels and the format holds none of their traces.

        A trace without a label or removed by a filter is no failure of the export.
        """
        unwritten = sum(self.abstained.values()) - len(self.filtered)
        return INCOMPLETE if not self.done and unwritten else OK

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the file and what it does not hold."""
        return super().as_json() | {
            "out": str(self.out),
            **({} if self.commit is None else {"commit": self.commit}),
            "shortened": self.shortened,
            "not_carried": dict(self.not_carried),
            "unfit": [{"id": one.trace_id, "reason": one.detail} for one in self.unfit],
            "filters": self.filters.as_json(),
            "filtered": [
                {"id": id, "filter": why.name, "detail": why.detail} for id, why in self.filtered
            ],
            **({} if self.release is None else {"release": dict(self.release)}),
        }

    def words(self) -> str:
        """The counts, and the first traces that were left out."""
        silent = sum(self.abstained.values()) - len(self.unfit) - len(self.filtered)
        silent += self.failed
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
        if self.filtered:
            lines += [
                self.filters.table(),
                *(
                    f"filtered: {id}: {why.detail} ({why.name})"
                    for id, why in self.filtered[:SHOWN_ROWS]
                ),
            ]
        if self.release is not None:
            lines += release_lines(self.release)
        if self.commit is not None:
            lines.append(f"pushed as commit {self.commit}")
        if self.not_carried:
            lost = ", ".join(f"{part} ({count})" for part, count in self.not_carried.items())
            lines.append(f"not carried by {self.format} (traces): {lost}")
        return "\n".join(lines)


def export(workspace: WorkspaceFolder, options: ExportOptions) -> ExportResult:
    """Write the labels of one labeler, with everything that the format can carry.

    Raises:
        InputError: an unknown format, dataset or labeler; a file that cannot be written or pushed;
            or a push of a problem that says `phi_removed: false`, without `--allow-phi`.
    """
    tally = Tally("export", options.dataset, options.labeler)
    if len(options.targets) == 2:
        export(workspace, options.but(release=None))
        note(f"{options.out} is written too")
        options = options.but(out=None)
    (target,) = options.targets
    facts = None
    filtered: list[tuple[str, Filtered]] = []
    with workspace.open_store() as store:
        rows = _filtered_rows(store, options, filtered)
        if hub_path(target) is not None and not options.allow_phi:
            rows = _refusing_phi(rows)
        with _target(options) as out:
            if options.release is None:
                outcome = write_file(options.format, out.path, rows)
            else:
                outcome, facts = write_release(
                    workspace, store, options, rows=rows, filtered=filtered, folder=out.path
                )
        tally.failed = len(store.labels.unlabeled_trace_ids(options.dataset, options.labeler))
    tally.done = outcome.written
    for skipped in outcome.skipped:
        tally.abstained[skipped.reason.value] += 1
    if filtered:
        tally.abstained[AbstentionReason.FILTERED.value] += len(filtered)
    unfit = tuple(one for one in outcome.skipped if one.reason is FormatLimit.NOT_CARRIED)
    removed = Counter(why.name for _, why in filtered)
    return ExportResult(
        **tally.figures(),
        format=options.format,
        out=out.shown,
        commit=out.commit,
        shortened=outcome.shortened,
        not_carried=outcome.not_carried,
        release=facts,
        unfit=unfit,
        filters=FilterCounts.of(outcome.written + len(unfit), removed),
        filtered=tuple(filtered),
    )


def _target(options: ExportOptions) -> AbstractContextManager[Output]:
    """Where the file or the release is written."""
    if options.out is not None:
        ends = {"parquet": ".parquet", "medprm": ".json"}
        name = f"{options.dataset}{ends.get(options.format, '.jsonl')}"
        return output_file(Path(options.out), name=name, private=options.private)
    return release_folder(options.release or "", private=options.private)


def _refusing_phi(rows: Iterator[ExportRow]) -> Iterator[ExportRow]:
    for row in rows:
        if may_hold_phi(row.problem.meta) or may_hold_phi(row.trace.meta):
            raise InputError(
                "The problem says phi_removed: false, and such a problem is not pushed."
                " Nothing was pushed.",
                where=row.trace.id,
                remedy="export to a file, or allow it with --allow-phi",
            )
        yield row


def _filtered_rows(
    store: Store, options: ExportOptions, filtered: list[tuple[str, Filtered]]
) -> Iterator[ExportRow]:
    """The rows that pass the filters and the selection; the others are added to `filtered`.

    Without a filter that compares traces, the labels are read once, some at a time.
    """
    filters = TraceFilters(options, options.selection())
    if filters.compares:
        for row in _export_rows(store, options, first_look=True):
            context, sources, measured = _parts_of(row)
            made = _made(options, row.label, measured)
            if row.label.abstention is None and not isinstance(made, Filtered):
                filters.see(context, row.label, sources, measured=measured)
    for row in _export_rows(store, options):
        if row.label.abstention is not None:
            yield row
            continue
        context, sources, measured = _parts_of(row)
        made = _made(options, row.label, measured)
        made = filters.reason(context, row.label, sources) or made
        if isinstance(made, Filtered):
            filtered.append((row.trace.id, made))
        else:
            yield replace(row, label=made)


def _made(
    options: ExportOptions, label: TraceLabel, measured: TraceLabel | None
) -> TraceLabel | Filtered:
    """The label to write, or why there is none: a trace without a soft label takes no place in a
    selection."""
    return label if options.soft is None else beta_label(label, measured)


def _parts_of(
    row: ExportRow,
) -> tuple[TraceInContext, tuple[TraceLabel, ...], TraceLabel | None]:
    """The trace, the labels that may hold its quotes, and its Monte Carlo label if it has one."""
    sources = ((row.labeler, row.label), *row.support)
    measured = [label for one, label in sources if one.kind is LabelerKind.MC]
    context = TraceInContext(row.problem, row.trace, row.evidence)
    return context, tuple(label for _, label in sources), next(iter(measured), None)


def _export_rows(
    store: Store, options: ExportOptions, *, first_look: bool = False
) -> Iterator[ExportRow]:
    """The labeled traces of a dataset as rows of a file; an unknown labeler is refused at once.

    Args:
        store: where they are.
        options: which, and for which format.
        first_look: whether the rows are not to be written, but compared.
    """
    dataset = options.dataset
    labeler = store.labels.labeler(dataset, options.labeler)
    needed = options.format in _WITH_SUPPORT or options.require_verified_quote
    needed = needed or options.select is not None or options.soft is not None
    sources = _support(store, dataset, labeler) if needed else []
    label = f"export {options.format}"[:22]
    contexts: Iterable[TraceInContext] = store.traces.contexts(
        dataset, with_evidence=not first_look
    )
    if not first_look:
        contexts = progress(contexts, total=None, label=label)

    def rows() -> Iterator[ExportRow]:
        for chunk in chunks(contexts):
            ids = [context.trace.id for context in chunk]
            labels = store.labels.load(dataset, options.labeler, ids)
            support = [(one, store.labels.load(dataset, one.name, ids)) for one in sources]
            for context in chunk:
                id = context.trace.id
                if id in labels:
                    yield ExportRow(
                        problem=context.problem,
                        trace=context.trace,
                        label=labels[id],
                        labeler=labeler,
                        evidence=context.evidence,
                        support=tuple((one, of[id]) for one, of in support if id in of),
                    )

    return rows()


def _support(store: Store, dataset: str, consensus: Labeler) -> list[Labeler]:
    """The labelers that a consensus rests on.

    A labeler that was removed or replaced since is left out: the consensus did not see its labels.
    """
    known = {summary.labeler.name for summary in store.labels.labelers(dataset)}
    found = []
    for source in sources_in(consensus.config):
        name = source.get("labeler")
        if name in known and source_of(store, dataset, name) == source:
            found.append(store.labels.labeler(dataset, name))
    return found
