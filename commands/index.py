"""`stepgold index`: passages -> vectors -> FAISS, with a manifest."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.console import progress
from commands.options import Encoder, Json
from commands.outcome import Outcome, Tally
from commands.workspace import Workspace
from traces.errors import CorpusError


def index(
    ctx: typer.Context,
    encoder: Encoder = None,
    kind: Annotated[str, typer.Option("--kind", help="auto, flat, hnsw or ivf.")] = "auto",
    json_output: Json = False,
) -> Outcome:
    """Build the index over all corpora; an index that is up to date is left alone."""
    from retrieval.embedding import encode_in_batches, text_to_embed
    from retrieval.encoder import load_encoder
    from retrieval.index import PassageIndex, require_kind

    workspace: Workspace = ctx.obj
    require_kind(kind)
    tally = Tally("index", None)
    with workspace.open_store() as store:
        fingerprint = store.corpus_fingerprint()
        passages = list(store.passages())
    if not passages:
        raise CorpusError(
            "There is no passage to index.",
            where=workspace.url,
            remedy="stepgold corpus add PATH --corpus NAME",
        )
    loaded = load_encoder(encoder)
    if PassageIndex.is_current(
        workspace.index_folder, encoder=loaded.name, corpus_fingerprint=fingerprint, kind=kind
    ):
        tally.unchanged = len(passages)
    else:
        texts = [text_to_embed(passage) for _, passage in passages]
        vectors = encode_in_batches(
            loaded, texts, lambda batches, n: progress(batches, total=n, label="encode passages")
        )
        built = PassageIndex.build([passage_id for passage_id, _ in passages], vectors, kind=kind)
        built.save(
            workspace.index_folder,
            encoder=loaded.name,
            encoder_spec=encoder,
            corpus_fingerprint=fingerprint,
        )
        tally.done = len(passages)
    words = f"index: {len(passages)} passages, encoder {loaded.name}" + (
        ", up to date" if tally.unchanged else ""
    )
    return Outcome(
        tally.document(encoder=loaded.name, passages=len(passages)), words, as_json=json_output
    )
