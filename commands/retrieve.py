"""`stepgold retrieve`: attach evidence to every problem of a dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.console import progress
from commands.options import Dataset, Encoder, Json, Replace
from commands.outcome import Outcome, Tally
from commands.retrieval_setup import open_retriever
from commands.workspace import Workspace


def retrieve(
    ctx: typer.Context,
    dataset: Dataset,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Passages a problem.")] = 5,
    encoder: Encoder = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Find evidence for the problems that have none yet."""
    from labeling.pipeline import retrieve_evidence

    workspace: Workspace = ctx.obj
    tally = Tally("retrieve", dataset)
    with workspace.open_store() as store:
        store.require_dataset(dataset)
        retriever = open_retriever(workspace, store, encoder, k)
        config = retriever.config() | {"corpus": store.corpus_fingerprint()}
        store.declare_retrieval(dataset, config, replace=replace)
        missing = store.problems_without_evidence(dataset)
        tally.unchanged = store.datasets()[dataset].problems - len(missing)
        for item in progress(
            retrieve_evidence(missing, retriever), total=len(missing), label="retrieve"
        ):
            tally.done += store.put_evidence(dataset, [item])
    return Outcome(tally.document(), tally.sentence(), tally.exit_code, json_output)
