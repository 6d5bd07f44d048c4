"""`overlap`: whether problems of an evaluation set are in a training set."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stepgold.exchange import rejection_lines, row_document
from stepgold.hub import hub_path, input_files
from stepgold.options import DatasetOptions
from stepgold.results import INCOMPLETE, OK, Result
from traces import InputError, Paths, argument, option, paths_of

if TYPE_CHECKING:
    from evaluation import EvaluatedProblem, OverlapReport, TrainingRow
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import RejectedRow, TraceInContext

SHOWN_MATCHES = 10
"""Matches shown to a person; the JSON document lists all."""


class OverlapOptions(DatasetOptions):
    """The dataset, and the training sets to search."""

    files: Paths = argument(
        kw_only=False,
        default=(),
        metavar="FILE",
        help="Training sets to search, as exported files.",
    )
    other: str | None = option(
        default=None,
        flags=("--with",),
        metavar="NAME",
        help="Another dataset of the workspace to search.",
    )
    ngram: int = option(
        default=13, between=(1, None), metavar="N", help="Length of an n-gram, in words."
    )

    def check(self) -> None:
        """Refuse a comparison with nothing, or of a dataset with itself.

        Raises:
            InputError: it is one.
        """
        super().check()
        if not self.files and self.other is None:
            raise InputError(
                "No training set to search.", remedy="name training files, or add --with DATASET"
            )
        if self.other == self.dataset:
            raise InputError(
                "A dataset always overlaps with itself.", remedy="name another dataset with --with"
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class OverlapResult(Result):
    """Which problems were found in the training sets."""

    dataset: str
    """The evaluation set."""
    training: tuple[str, ...]
    """Files and datasets that it was compared with."""
    report: OverlapReport
    """The matches."""
    rejected: tuple[RejectedRow, ...]
    """Training rows that could not be read."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if a training row could not be read."""
        return INCOMPLETE if self.rejected else OK

    def as_json(self) -> dict[str, Any]:
        """The matches, and the rows that could not be read."""
        return {
            "command": "overlap",
            "dataset": self.dataset,
            "training": list(self.training),
            **self.report.as_json(),
            "rejected": [row_document(row) for row in self.rejected],
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per problem that was found."""
        return [match.as_json() for match in self.report.matches]

    def words(self) -> str:
        """The counts and the first matches."""
        return "\n".join([self.report.table(SHOWN_MATCHES), *rejection_lines(self.rejected)])


def overlap(workspace: WorkspaceFolder, options: OverlapOptions) -> OverlapResult:
    """Find problems of a dataset in training sets, by id and by word n-grams.

    Raises:
        InputError: a dataset is missing, or a file cannot be read.
    """
    from evaluation import find_overlap

    rejected: list[RejectedRow] = []
    with workspace.open_store() as store:
        store.traces.require_dataset(options.dataset)
        if options.other is not None:
            store.traces.require_dataset(options.other)
        rows = _training_rows(store, options, rejected)
        problems = list(evaluated_problems(store, options.dataset))
        report = find_overlap(problems, rows, ngram=options.ngram)
    files = [hub_path(path) or str(path) for path in paths_of(options.files)]
    return OverlapResult(
        dataset=options.dataset,
        training=(*files, *([options.other] if options.other else [])),
        report=report,
        rejected=tuple(rejected),
    )


def evaluated_problems(store: Store, dataset: str) -> Iterator[EvaluatedProblem]:
    """The problems of a dataset with their traces, in order of import."""
    from evaluation import EvaluatedProblem

    groups: dict[str, list[TraceInContext]] = {}
    for context in store.traces.contexts(dataset, with_evidence=False):
        groups.setdefault(context.problem.id, []).append(context)
    for contexts in groups.values():
        problem = contexts[0].problem
        yield EvaluatedProblem(
            problem.id,
            "\n".join([problem.shown_question, *problem.options]),
            tuple(context.trace.id for context in contexts),
            tuple("\n".join(context.trace.steps) for context in contexts),
        )


def _training_rows(
    store: Store, options: OverlapOptions, rejected: list[RejectedRow]
) -> Iterator[TrainingRow]:
    from evaluation import TrainingRow
    from formats import RowTexts, read_row_texts

    for file in input_files(paths_of(options.files), splits=False):
        for row in read_row_texts(file.path):
            if isinstance(row, RowTexts):
                yield TrainingRow(file.shown, row.line, row.ids, row.texts)
            else:
                rejected.append(replace(row, file=file.shown))
    if options.other is not None:
        yield from dataset_rows(store, options.other)


def dataset_rows(
    store: Store, dataset: str, *, within: Collection[str] | None = None
) -> Iterator[TrainingRow]:
    """The traces of a dataset as rows of a training set; with `within`, only those of these ids."""
    from evaluation import TrainingRow

    for context in store.traces.contexts(dataset, with_evidence=False):
        problem, trace = context.problem, context.trace
        if within is None or trace.id in within:
            texts = (problem.shown_question, *problem.options, *trace.steps)
            yield TrainingRow(dataset, None, (trace.id, problem.id), texts)
