"""`stepgold search`: ask the index."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.options import Encoder, Json
from commands.outcome import Outcome
from commands.retrieval_setup import open_retriever
from commands.workspace import Workspace
from traces.errors import InputError


def search(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for.")],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many passages.")] = 5,
    encoder: Encoder = None,
    json_output: Json = False,
) -> Outcome:
    """Show the passages nearest to a text, with similarity and source offsets."""
    if not text.strip():
        raise InputError("There is no text to look for.", remedy="stepgold search 'SOME WORDS'")
    workspace: Workspace = ctx.obj
    with workspace.open_store() as store:
        found = open_retriever(workspace, store, encoder, k).search(text)
    hits = [
        {
            "rank": hit.rank,
            "similarity": hit.similarity,
            "corpus": hit.passage.corpus,
            "document": hit.passage.document,
            "passage": hit.passage.index,
            "start": hit.passage.start,
            "end": hit.passage.end,
            "text": hit.passage.text,
        }
        for hit in found
    ]
    words = "\n\n".join(
        f"{hit.rank + 1}. {hit.similarity:.3f}  {hit.passage.corpus}/{hit.passage.document} "
        f"[{hit.passage.start}:{hit.passage.end}] {hit.passage.title}\n{hit.passage.text}"
        for hit in found
    )
    return Outcome({"hits": hits}, words or "nothing found", as_json=json_output)
