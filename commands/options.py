"""Options that several commands share, declared once so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document.")]
Dataset = Annotated[str, typer.Option("--dataset", help="The dataset in the workspace.")]
LabelerName = Annotated[str, typer.Option("--labeler", help="The labeler in the dataset.")]


def _one_line(name: str) -> str:
    """Checked here: the store would refuse the name only after the first call was paid for."""
    if not name.strip() or "\n" in name or "\r" in name:
        raise typer.BadParameter("a name is one line that is not blank")
    return name


Name = Annotated[
    str,
    typer.Option("--name", callback=_one_line, help="The labeler's name in the dataset."),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Replace what is stored under this name by another.")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Only the first N traces: a pilot before spending."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Resamples = Annotated[
    int, typer.Option("--resamples", min=1, help="Bootstrap resamples of every interval.")
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="Server address; else from the environment.")
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="A sentence-transformers model, path or hub id [default: all-MiniLM-L6-v2].",
    ),
]
OutFile = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, help="Requests in flight at once [default: by back end]."),
]
AllowPhi = Annotated[
    bool,
    typer.Option("--allow-phi", help="Send problems marked phi_removed: false to a hosted model."),
]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed", help="Go on when another version of the model answers than before."
    ),
]
Budget = Annotated[
    float | None, typer.Option("--budget", min=0, help="Stop before spending more, USD.")
]
