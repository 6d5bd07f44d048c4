"""`stepgold search`: ask the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.options import (
    Encoder,
    FusionConstant,
    Json,
    KeepDuplicates,
    Mmr,
    Mode,
    Quota,
    Rerank,
    retrieval_config,
)
from stepgold.outcome import Outcome
from stepgold.retrieval import open_retriever
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError

if TYPE_CHECKING:
    from rich.text import Text

    from storage import DocumentSource
    from traces import Evidence


def search(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for.")],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many passages.")] = 5,
    mode: Mode = "hybrid",
    constant: FusionConstant = 60,
    rerank: Rerank = None,
    mmr: Mmr = None,
    quota: Quota = None,
    keep_duplicates: KeepDuplicates = False,
    encoder: Encoder = None,
    json_output: Json = False,
) -> Outcome:
    """Show the passages for a text, with its words marked, similarity, source and offsets."""
    from retrieval.search.bm25 import highlights

    if not text.strip():
        raise InputError("There is no text to look for.", remedy="stepgold search 'SOME WORDS'")
    config = retrieval_config(
        k=k,
        mode=mode,
        constant=constant,
        rerank=rerank,
        mmr=mmr,
        quota=quota,
        keep_duplicates=keep_duplicates,
    )
    workspace: WorkspaceFolder = ctx.obj
    with workspace.open_store() as store:
        found = open_retriever(workspace, store, encoder, config).search(text)
        named = {(hit.passage.corpus, hit.passage.document) for hit in found}
        sources = store.corpora.document_sources(named)
    marked = [list(highlights(text, hit.passage.text)) for hit in found]
    places = [sources[hit.passage.corpus, hit.passage.document] for hit in found]
    hits = [
        _document(hit, spans, place)
        for hit, spans, place in zip(found, marked, places, strict=True)
    ]
    return Outcome({"hits": hits}, _words(found, marked, places), as_json=json_output)


def _document(
    hit: Evidence, spans: Sequence[tuple[int, int]], place: DocumentSource
) -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "similarity": hit.similarity,
        "corpus": hit.passage.corpus,
        "document": hit.passage.document,
        "passage": hit.passage.index,
        "start": hit.passage.start,
        "end": hit.passage.end,
        "text": hit.passage.text,
        "title": hit.passage.title,
        "source": place.source,
        "licence": place.licence,
        "highlights": [list(span) for span in spans],
    }


def _words(
    found: Sequence[Evidence],
    marked: Sequence[Sequence[tuple[int, int]]],
    places: Sequence[DocumentSource],
) -> Text | str:
    from rich.text import Text

    if not found:
        return "nothing found"
    shown = Text()
    for hit, spans, place in zip(found, marked, places, strict=True):
        passage = hit.passage
        # Without vectors there is no cosine to show.
        nearness = "  -  " if hit.similarity is None else f"{hit.similarity:.3f}"
        shown.append(f"{hit.rank + 1}. {nearness}  {passage.corpus}/{passage.document} ")
        shown.append(f"[{passage.start}:{passage.end}] {passage.title}\n")
        licence = f", licence {place.licence}" if place.licence else ""
        shown.append(f"   source: {place.source}{licence}\n")
        text = Text(passage.text)
        for start, end in spans:
            text.stylize("bold reverse", start, end)
        shown.append_text(text).append("\n\n")
    shown.rstrip()
    return shown
