"""`remove`: what goes is said, and on a terminal asked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepgold.console import confirm
from stepgold.contents import PURPOSE, calls_of, usd_per_trace
from stepgold.options import DatasetOptions
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import counted
from traces import Config, argument, option

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder
    from storage import LabelerSummary, Store


class RemoveDatasetOptions(Config):
    """Which dataset."""

    name: str = argument(kw_only=False, metavar="NAME", help="Name of the dataset.")


class RemoveLabelerOptions(DatasetOptions):
    """Which labeler of which dataset."""

    name: str = argument(kw_only=False, metavar="NAME", help="Name of the labeler.")


class RemoveDatasetAsked(RemoveDatasetOptions):
    """On the command line: whether to ask."""

    yes: bool = option(default=False, help="Remove it without asking.")


class RemoveLabelerAsked(RemoveLabelerOptions):
    """On the command line: whether to ask."""

    yes: bool = option(default=False, help="Remove it without asking.")


@dataclass(frozen=True, kw_only=True, repr=False)
class RemovalResult(LabelingResult):
    """What was removed."""

    def words(self) -> str:
        """One line."""
        if self.labeler is None:
            return f"dataset '{self.dataset}' removed"
        return f"labeler '{self.labeler}' removed from '{self.dataset}'"


def remove_dataset(workspace: WorkspaceFolder, options: RemoveDatasetOptions) -> RemovalResult:
    """Remove a dataset with all its labels; recorded model replies stay in the ledger.

    Raises:
        InputError: there is no such dataset.
    """
    tally = Tally("remove dataset", options.name)
    with workspace.open_store() as store:
        store.traces.remove_dataset(options.name)
    tally.done = 1
    return RemovalResult(**tally.figures())


def remove_labeler(workspace: WorkspaceFolder, options: RemoveLabelerOptions) -> RemovalResult:
    """Remove the labels of one labeler; recorded model replies stay in the ledger.

    Raises:
        InputError: there is no such dataset or labeler.
    """
    tally = Tally("remove labeler", options.dataset, options.name)
    with workspace.open_store() as store:
        store.labels.remove_labeler(options.dataset, options.name)
    tally.done = 1
    return RemovalResult(**tally.figures())


def remove_dataset_asked(workspace: WorkspaceFolder, options: RemoveDatasetAsked) -> RemovalResult:
    """`remove_dataset` after saying what goes and asking on the terminal.

    Raises:
        InputError: there is no such dataset, the answer is no, or nobody can be asked.
    """
    if not options.yes:
        with workspace.open_store() as store:
            store.traces.require_dataset(options.name)
            size = store.traces.datasets()[options.name]
            lost = _lost(store, store.labels.labelers(options.name))
        what = f"Dataset '{options.name}' goes with {counted(size.traces, 'trace')} and {lost}."
        confirm(what, unasked=_typed(workspace, ["dataset", options.name]))
    return remove_dataset(workspace, options)


def remove_labeler_asked(workspace: WorkspaceFolder, options: RemoveLabelerAsked) -> RemovalResult:
    """`remove_labeler` after saying what goes and asking on the terminal.

    Raises:
        InputError: there is no such dataset or labeler, the answer is no, or nobody can be asked.
    """
    if not options.yes:
        name, dataset = options.name, options.dataset
        with workspace.open_store() as store:
            store.labels.labeler(dataset, name)
            rows = store.labels.labelers(dataset)
            lost = _lost(store, [row for row in rows if row.labeler.name == name])
        what = f"Labeler '{name}' of '{dataset}' goes with {lost}."
        confirm(what, unasked=_typed(workspace, ["labeler", name, "--dataset", dataset]))
    return remove_labeler(workspace, options)


def _lost(store: Store, rows: Sequence[LabelerSummary]) -> str:
    """The labels that go, and what they cost at the mean cost of a trace."""
    spent, every = store.replies.spending(), store.labels.labelers()
    usd = sum(
        (usd_per_trace(row, every, calls_of(row, spent)) or 0) * row.traces
        for row in rows
        if row.labeler.kind in PURPOSE
    )
    count = sum(row.traces for row in rows)
    names = f" of {', '.join(row.labeler.name for row in rows)}" if rows else ""
    cost = f", which cost about {usd:.4f} USD; recorded replies stay" if usd else ""
    return f"the labels{names} on {counted(count, 'trace')}{cost}" if rows else "no labels"


def _typed(workspace: WorkspaceFolder, words: Sequence[str]) -> str:
    """The command line that removes without asking."""
    at = [] if workspace.folder == Path() else ["--workspace", str(workspace.folder)]
    return shlex.join(["stepgold", *at, "remove", *words, "--yes"])
