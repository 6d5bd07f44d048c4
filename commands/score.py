"""`stepgold score`: PRM step scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from commands.backends import model_folder, parse_spec
from commands.labelling import Labelled, label_missing
from commands.options import Dataset, Json, Limit, Name, Replace
from commands.outcome import Outcome, Tally
from commands.workspace import Workspace

if TYPE_CHECKING:
    from scoring import Scorer
    from traces.context import TraceInContext


def score(
    ctx: typer.Context,
    dataset: Dataset,
    prm: Annotated[str, typer.Option("--prm", help="hf:PATH or lab.")],
    family: Annotated[
        str | None,
        typer.Option("--family", help="medprm, qwen-prm or likelihood [default: recognised]."),
    ] = None,
    name: Name = "prm",
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", min=1, help="Window in tokens [default: the model's, at most 4096]."
        ),
    ] = None,
    limit: Limit = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Score every step with a process reward model; what does not fit is named, never cut."""
    from scoring import load_scorer
    from traces.labels import Labeler, LabelerKind

    spec = parse_spec(prm)
    # The likelihood family reads a language model: in the lab that is the policy, never the judge.
    folder = model_folder(spec, "policy" if family == "likelihood" else "prm")
    workspace: Workspace = ctx.obj
    tally = Tally("score", dataset, name)
    with workspace.open_store() as store:
        store.require_dataset(dataset)
        scorer = load_scorer(folder, family=family, max_tokens=max_tokens)
        labeler = Labeler(name, LabelerKind.PRM, scorer.config(), model=str(spec))
        label_missing(
            store,
            tally,
            labeler,
            lambda contexts: _stage(contexts, scorer),
            limit=limit,
            replace=replace,
        )
    return Outcome(tally.document(), tally.sentence(), tally.exit_code, json_output)


def _stage(contexts: Iterable[TraceInContext], scorer: Scorer) -> Iterator[Labelled]:
    for label in scorer.score(contexts):
        yield Labelled(label, resolved_model=scorer.resolved_model)
