"""`stepgold score`: PRM step scores."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import (
    AllowPhi,
    BaseUrl,
    Concurrency,
    Dataset,
    Json,
    Limit,
    Name,
    Replace,
    refuse_idle,
)
from scoring.names import family_names
from stepgold.console import note
from stepgold.images import IgnoreImages, ImageOptions, ImagesFolder
from stepgold.labeling_run import evidence_source, label_missing
from stepgold.models import parse_spec
from stepgold.outcome import Outcome, Tally
from stepgold.scoring_run import (
    DtypeChoice,
    OverflowChoice,
    ScorerOptions,
    ScoreStage,
    note_unseen,
    open_scorer,
)
from stepgold.served_prm import PARITY_KEY, ServerOptions, open_server_scorer, pass_gate
from stepgold.workspace import WorkspaceFolder

if TYPE_CHECKING:
    from scoring import Scorer
    from scoring.server.scorer import ServerScorer
    from storage import Store
    from traces import Labeler

Prm = Annotated[
    str,
    typer.Option("--prm", help="hf:PATH, lab, or openai:MODEL behind a vLLM or SGLang server."),
]
FamilyName = Annotated[
    str | None,
    typer.Option(
        "--family",
        help=f"{family_names()} [default: recognised by tokens and heads; implicit-prm where a "
        "--reference is given].",
    ),
]
ReferenceModel = Annotated[
    str | None,
    typer.Option(
        "--reference",
        help="hf:PATH: the model that an implicit PRM (EurusPRM) was trained from, to compare with.",
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
        "--max-tokens",
        min=1,
        help="Window in tokens [default: the model's, at most 4096; visualprm's whole].",
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
CheckpointHere = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        help="hf:PATH: the PRM that openai:MODEL serves, on this machine, to lay out and to compare.",
    ),
]
RouteName = Annotated[
    str | None,
    typer.Option(
        "--route",
        help="How a server is asked: pooling or completions (vLLM), generate (SGLang) [default: pooling "
        "for heads, completions for signs].",
    ),
]
ParitySample = Annotated[
    int,
    typer.Option(
        "--parity-sample",
        min=1,
        help="Traces scored by server and checkpoint before any is stored.",
    ),
]
ParityLimit = Annotated[
    float,
    typer.Option(
        "--parity-limit", min=0, max=1, help="Largest difference of a step score between the two."
    ),
]


def score(
    ctx: typer.Context,
    dataset: Dataset,
    prm: Prm,
    family: FamilyName = None,
    reference: ReferenceModel = None,
    mode: Mode = "strict",
    name: Name = "prm",
    max_tokens: Window = None,
    overflow: WhenTooLong = "drop-documents",
    reserve: Reserve = 0,
    packing: Packing = "fit",
    device: Device = None,
    dtype: WeightsDtype = "auto",
    base_url: BaseUrl = None,
    checkpoint: CheckpointHere = None,
    route: RouteName = None,
    concurrency: Concurrency = None,
    allow_phi: AllowPhi = False,
    parity_sample: ParitySample = 32,
    parity_limit: ParityLimit = 0.02,
    images: ImagesFolder = None,
    ignore_images: IgnoreImages = False,
    limit: Limit = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Score every step with a process reward model; what does not fit is named, never cut."""
    shown = ImageOptions.of(ctx.obj, images, ignore=ignore_images)
    fitting = (max_tokens, overflow, reserve, packing)
    chosen = ScorerOptions(prm, family, *fitting, device, dtype, mode, shown, reference)
    chosen.check()
    if parse_spec(prm).kind != "openai":
        gate = ("parity_sample", "parity_limit", "concurrency", "allow_phi")
        refuse_idle(ctx, *gate, without="--prm openai:MODEL")
    served = ServerOptions(
        base_url, checkpoint, route, concurrency, allow_phi, parity_sample, parity_limit
    )
    how = Storing(dataset, name, limit, replace)
    return _scored(ctx.obj, chosen, served, how, json_output)


@dataclass(frozen=True, slots=True)
class Storing:
    """Where scores go."""

    dataset: str
    """The dataset."""
    name: str
    """The labeler."""
    limit: int | None
    """Only so many traces."""
    replace: bool
    """Whether another labeler of the name gives way."""


def _scored(
    workspace: WorkspaceFolder,
    chosen: ScorerOptions,
    served: ServerOptions,
    how: Storing,
    json_output: bool,
) -> Outcome:
    """Score what is missing, and say what was done."""
    from traces import Labeler, LabelerKind

    spec = parse_spec(chosen.prm)
    tally = Tally("score", how.dataset, how.name)
    with workspace.open_store() as store, ExitStack() as closing:
        store.traces.require_dataset(how.dataset)
        exist = store.traces.has_images(how.dataset)
        chosen = dataclasses.replace(chosen, images=chosen.images.for_prm(exist=exist))
        scorer = _scorer(store, chosen, served, how, closing)
        if exist:
            note_unseen(scorer.family)
        scorer.refuse_over_length(store.traces.contexts(how.dataset, limit=how.limit))
        if scorer.not_shared is not None:
            note(f"candidates are scored one by one: {scorer.not_shared}")
        labeler = Labeler(how.name, LabelerKind.PRM, scorer.config(), model=str(spec))
        if scorer.family.takes_documents:
            labeler = evidence_source(store, how.dataset, labeler)
        stage = ScoreStage(scorer, batched=spec.kind != "openai")
        label_missing(
            store,
            tally,
            labeler,
            stage,
            limit=how.limit,
            replace=how.replace,
            reading=stage.reading(store, how.dataset),
        )
    return _outcome(tally, stage, labeler, json_output)


def _scorer(
    store: Store,
    chosen: ScorerOptions,
    served: ServerOptions,
    how: Storing,
    closing: ExitStack,
) -> Scorer | ServerScorer:
    """The PRM on this machine; or one behind a server, which has been held against its checkpoint."""
    spec = parse_spec(chosen.prm)
    if spec.kind != "openai":
        served.refuse_without_server(chosen.prm)
        return open_scorer(chosen)
    scorer = open_server_scorer(spec, chosen, served, closing)
    pass_gate(store, how.dataset, how.name, scorer, chosen, served, anew=how.replace)
    return scorer


def _outcome(tally: Tally, stage: ScoreStage, labeler: Labeler, json_output: bool) -> Outcome:
    words = tally.sentence()
    if stage.shortened:
        words += f"\n{stage.shortened} of them with fewer documents: stepgold status names them"
    family = stage.scorer.family
    published = family.aggregation
    words += f"\nread as {family.name}, which was published with the aggregation {published}"
    more = {"shortened": stage.shortened, "family": family.name, "aggregation": published}
    gate = labeler.config.get(PARITY_KEY)
    document = tally.document(**more, **({} if gate is None else {PARITY_KEY: gate}))
    return Outcome(document, words, tally.exit_code, json_output)
