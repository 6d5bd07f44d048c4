"""`stepgold retrieve`: attach evidence to every problem of a dataset, or measure how it is found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.options import (
    AllowPhi,
    BaseUrl,
    Concurrency,
    Dataset,
    Encoder,
    FusionConstant,
    Json,
    KeepDuplicates,
    Mmr,
    Mode,
    Quota,
    Replace,
    Rerank,
    refuse_idle,
    retrieval_config,
)
from stepgold.outcome import Outcome, Tally
from stepgold.results import OK
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError

QueryKind = Annotated[
    str,
    typer.Option("--query", help="problem; step (one query a step, evidence a trace); or rewrite."),
]
Rewriter = Annotated[
    str | None,
    typer.Option("--rewriter", help="--query rewrite: gemini:MODEL, openai:MODEL or hf:PATH."),
]
Budget = Annotated[
    float | None, typer.Option("--budget", min=0, help="Rewriting: stop before spending more, USD.")
]
Qrels = Annotated[
    Path | None,
    typer.Option(
        "--evaluate", help="Relevance judgements (TREC or JSONL): measure, attach nothing."
    ),
]


def retrieve(
    ctx: typer.Context,
    dataset: Dataset,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Passages a problem.")] = 5,
    mode: Mode = "hybrid",
    constant: FusionConstant = 60,
    rerank: Rerank = None,
    mmr: Mmr = None,
    quota: Quota = None,
    keep_duplicates: KeepDuplicates = False,
    query: QueryKind = "problem",
    rewriter: Rewriter = None,
    budget: Budget = None,
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    allow_phi: AllowPhi = False,
    evaluate: Qrels = None,
    encoder: Encoder = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Find evidence for the problems (or traces) that have none yet."""
    from stepgold.retrieval import Rewriting, attach_evidence
    from stepgold.retrieval_quality import measure_retrieval

    if (query == "rewrite") != (rewriter is not None):
        raise InputError(
            "--query rewrite and --rewriter belong together.",
            remedy="name the model that writes queries: --query rewrite --rewriter openai:MODEL",
        )
    if rewriter is None:
        asking = ("budget", "base_url", "concurrency", "allow_phi")
        refuse_idle(ctx, *asking, without="--query rewrite")
    config = retrieval_config(
        k=k,
        mode=mode,
        constant=constant,
        rerank=rerank,
        mmr=mmr,
        quota=quota,
        keep_duplicates=keep_duplicates,
        query=query,
    )
    rewriting = (
        None if rewriter is None else Rewriting(rewriter, base_url, concurrency, budget, allow_phi)
    )
    workspace: WorkspaceFolder = ctx.obj
    tally = Tally("retrieve", dataset)
    with workspace.open_store() as store:
        store.traces.require_dataset(dataset)
        if evaluate is not None:
            measured = measure_retrieval(
                workspace, store, dataset, config, rewriting, evaluate, encoder
            )
            document = {"command": "retrieve", "dataset": dataset} | measured.document
            return Outcome(document, measured.words, OK, json_output)
        attach_evidence(workspace, store, tally, config, rewriting, encoder, replace=replace)
    return Outcome(tally.document(), tally.sentence(), tally.exit_code, json_output)
