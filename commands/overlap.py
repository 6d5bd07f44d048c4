"""`stepgold overlap`: does the evaluation set stand in the training set?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import Dataset, Json
from commands.rejections import rejection_lines, row_document
from stepgold.outcome import Outcome
from stepgold.results import INCOMPLETE, OK
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError

if TYPE_CHECKING:
    from evaluation.overlap import EvaluatedProblem, TrainingRow
    from storage import Store
    from traces import RejectedRow, TraceInContext

LISTED = 10
"""Matches shown to a person; all of them stand in the JSON document."""


def overlap(
    ctx: typer.Context,
    dataset: Dataset,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="Exported training sets.")
    ] = None,
    other: Annotated[
        str | None, typer.Option("--with", help="Another dataset of the workspace.")
    ] = None,
    ngram: Annotated[int, typer.Option("--ngram", min=1, help="Words of an n-gram.")] = 13,
    json_output: Json = False,
) -> Outcome:
    """Find problems of a dataset in training sets, by id and by word n-grams."""
    if not files and other is None:
        raise InputError(
            "There is nothing to compare with.", remedy="name training files, or --with DATASET"
        )
    if other == dataset:
        raise InputError("A dataset overlaps with itself.", remedy="name another with --with")
    from evaluation.overlap import find_overlap

    rejected: list[RejectedRow] = []
    workspace: WorkspaceFolder = ctx.obj
    with workspace.open_store() as store:
        store.traces.require_dataset(dataset)
        if other is not None:
            store.traces.require_dataset(other)
        rows = _training_rows(store, files or (), other, rejected)
        report = find_overlap(list(_problems(store, dataset)), rows, ngram=ngram)
    document = {
        "command": "overlap",
        "dataset": dataset,
        "training": [*map(str, files or ()), *([other] if other else [])],
        **report.as_json(),
        "rejected": [row_document(row) for row in rejected],
    }
    words = [report.table(LISTED), *rejection_lines(rejected)]
    return Outcome(document, "\n".join(words), INCOMPLETE if rejected else OK, json_output)


def _problems(store: Store, dataset: str) -> Iterator[EvaluatedProblem]:
    """The problems of a dataset with their traces, in order of import."""
    from evaluation.overlap import EvaluatedProblem

    groups: dict[str, list[TraceInContext]] = {}
    for context in store.traces.contexts(dataset, with_evidence=False):
        groups.setdefault(context.problem.id, []).append(context)
    for contexts in groups.values():
        problem = contexts[0].problem
        yield EvaluatedProblem(
            problem.id,
            "\n".join([problem.question, *problem.options]),
            tuple(context.trace.id for context in contexts),
            tuple("\n".join(context.trace.steps) for context in contexts),
        )


def _training_rows(
    store: Store, files: Iterable[Path], other: str | None, rejected: list[RejectedRow]
) -> Iterator[TrainingRow]:
    from evaluation.overlap import TrainingRow
    from formats.row_texts import RowTexts, read_row_texts

    for path in files:
        for row in read_row_texts(path):
            if isinstance(row, RowTexts):
                yield TrainingRow(str(path), row.line, row.ids, row.texts)
            else:
                rejected.append(row)
    if other is not None:
        for context in store.traces.contexts(other, with_evidence=False):
            problem, trace = context.problem, context.trace
            yield TrainingRow(
                other,
                None,
                (trace.id, problem.id),
                (problem.question, *problem.options, *trace.steps),
            )
