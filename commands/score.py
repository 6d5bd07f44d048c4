"""`stepgold score`: PRM step scores."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.backends import parse_spec
from commands.console import note
from commands.labelling import evidence_source, label_missing
from commands.options import Dataset, Json, Limit, Name, Replace
from commands.outcome import Outcome, Tally
from commands.score_run import (
    DtypeChoice,
    OverflowChoice,
    ProblemByProblem,
    ScorerOptions,
    ScoreStage,
    open_scorer,
)
from commands.workspace import Workspace

Prm = Annotated[str, typer.Option("--prm", help="hf:PATH or lab.")]
FamilyName = Annotated[
    str | None,
    typer.Option(
        "--family",
        help="medprm, medprm-orm, qwen-prm, qwen-prm800k, math-shepherd, rlhflow-mistral, "
        "rlhflow-deepseek, skywork-o1, trl, pure, likelihood, or a FILE.toml that describes another "
        "PRM [default: recognised by tokens and heads].",
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        "--mode",
        help="strict, or medprm-compat: as Med-PRM's released script, to compare with its numbers.",
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", min=1, help="Window in tokens [default: the model's, at most 4096]."
    ),
]
WhenTooLong = Annotated[
    OverflowChoice,
    typer.Option("--overflow", help="A trace too long with all its documents: what then."),
]
Reserve = Annotated[
    int,
    typer.Option(
        "--reserve",
        min=0,
        help="Tokens kept free for question and solution: traces up to this length see the "
        "same documents.",
    ),
]
Packing = Annotated[
    str,
    typer.Option(
        "--packing", help="Documents in the prompt: fit, or medprm-compat (its published rule)."
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:N or mps [default: the fastest there is]."),
]
WeightsDtype = Annotated[
    DtypeChoice,
    typer.Option("--dtype", help="Of the weights; auto: float32 on a processor, else bfloat16."),
]


def score(
    ctx: typer.Context,
    dataset: Dataset,
    prm: Prm,
    family: FamilyName = None,
    mode: Mode = "strict",
    name: Name = "prm",
    max_tokens: Window = None,
    overflow: WhenTooLong = "drop-documents",
    reserve: Reserve = 0,
    packing: Packing = "fit",
    device: Device = None,
    dtype: WeightsDtype = "auto",
    limit: Limit = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Score every step with a process reward model; what does not fit is named, never cut."""
    from traces.labels import Labeler, LabelerKind

    spec = parse_spec(prm)
    workspace: Workspace = ctx.obj
    tally = Tally("score", dataset, name)
    with workspace.open_store() as store:
        store.require_dataset(dataset)
        if store.has_images(dataset):
            note("Problems have images, which a PRM is not shown: their steps are scored as text.")
        scorer = open_scorer(
            ScorerOptions(prm, family, max_tokens, overflow, reserve, packing, device, dtype, mode)
        )
        scorer.refuse_over_length(store.contexts(dataset, limit=limit))
        if scorer.not_shared is not None:
            note(f"candidates are scored one by one: {scorer.not_shared}")
        labeler = Labeler(name, LabelerKind.PRM, scorer.config(), model=str(spec))
        if scorer.family.takes_documents:
            labeler = evidence_source(store, dataset, labeler)
        stage = ScoreStage(scorer)
        label_missing(
            store,
            tally,
            labeler,
            stage,
            limit=limit,
            replace=replace,
            reading=ProblemByProblem(store, dataset, scorer.expected_work),
        )
    words = tally.sentence()
    if stage.shortened:
        words += f"\n{stage.shortened} of them with fewer documents: stepgold status names them"
    family_read = scorer.family.name
    published = scorer.family.aggregation
    words += f"\nread as {family_read}, which was published with the aggregation {published}"
    document = tally.document(shortened=stage.shortened, family=family_read, aggregation=published)
    return Outcome(document, words, tally.exit_code, json_output)
