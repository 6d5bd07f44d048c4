"""`stepgold evaluate`: a labeler against the gold annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import Dataset, Json, LabelerName, Seed
from commands.outcome import Outcome
from commands.workspace import Workspace
from traces.errors import InputError

if TYPE_CHECKING:
    from evaluation.evaluated import EvaluatedTrace
    from evaluation.macro_f1 import MacroF1Report
    from evaluation.processbench import ProcessBenchReport
    from storage import Store

PROTOCOLS = ("processbench", "macro-f1")


def evaluate(
    ctx: typer.Context,
    dataset: Dataset,
    labeler: LabelerName,
    gold: Annotated[str, typer.Option("--gold", help="The labeler taken as truth.")] = "gold",
    protocol: Annotated[
        str, typer.Option("--protocol", help="processbench or macro-f1.")
    ] = "processbench",
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", min=0, max=1, help="A step is correct iff its score is at least this."
        ),
    ] = 0.5,
    seed: Seed = 0,
    json_output: Json = False,
) -> Outcome:
    """First-error metrics or macro F1, with bootstrap intervals."""
    if protocol not in PROTOCOLS:
        raise InputError(f"'{protocol}' is not a protocol.", remedy=f"use {' or '.join(PROTOCOLS)}")
    workspace: Workspace = ctx.obj
    with workspace.open_store() as store:
        traces = evaluated_traces(store, dataset, labeler, gold)
    report: MacroF1Report | ProcessBenchReport
    if protocol == "macro-f1":
        from evaluation.macro_f1 import evaluate_macro_f1

        report = evaluate_macro_f1(traces, threshold=threshold, seed=seed)
    else:
        from evaluation.processbench import evaluate_processbench

        report = evaluate_processbench(traces, threshold=threshold, seed=seed)
    document = report.as_json(dataset=dataset, labeler=labeler, gold=gold)
    return Outcome(document, report.table(labeler), as_json=json_output)


def evaluated_traces(store: Store, dataset: str, labeler: str, gold: str) -> list[EvaluatedTrace]:
    """Every trace of the dataset with the truth and the labeler's word, where they exist."""
    from evaluation.evaluated import EvaluatedTrace

    store.require_dataset(dataset)
    for name in (labeler, gold):
        store.labeler(dataset, name)
    truth, predicted = store.labels(dataset, gold), store.labels(dataset, labeler)
    return [
        EvaluatedTrace(
            context.trace.id,
            context.problem.id,
            context.trace.subset,
            len(context.trace.steps),
            truth.get(context.trace.id),
            predicted.get(context.trace.id),
        )
        for context in store.contexts(dataset, with_evidence=False)
    ]
