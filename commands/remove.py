"""`stepgold remove`: take a dataset or a labeler out of the workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.options import Dataset, Json
from stepgold.outcome import Outcome, Tally
from stepgold.workspace import WorkspaceFolder

app = typer.Typer(help="Remove a dataset or a labeler.", no_args_is_help=True)


@app.command("dataset")
def dataset(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset.")],
    json_output: Json = False,
) -> Outcome:
    """Remove a dataset with all its labels; recorded model replies stay in the ledger."""
    workspace: WorkspaceFolder = ctx.obj
    tally = Tally("remove dataset", name)
    with workspace.open_store() as store:
        store.traces.remove_dataset(name)
    tally.done = 1
    return Outcome(tally.document(), f"dataset '{name}' removed", as_json=json_output)


@app.command("labeler")
def labeler(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the labeler.")],
    dataset: Dataset,
    json_output: Json = False,
) -> Outcome:
    """Remove one labeler's labels; recorded model replies stay in the ledger."""
    workspace: WorkspaceFolder = ctx.obj
    tally = Tally("remove labeler", dataset, name)
    with workspace.open_store() as store:
        store.labels.remove_labeler(dataset, name)
    tally.done = 1
    return Outcome(
        tally.document(), f"labeler '{name}' removed from '{dataset}'", as_json=json_output
    )
