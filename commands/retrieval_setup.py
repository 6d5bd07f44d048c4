"""The workspace's encoder and index, put together for the commands that search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commands.workspace import Workspace
from traces.errors import IndexMismatch

if TYPE_CHECKING:
    from retrieval.retriever import DenseRetriever
    from storage import Store


def open_retriever(
    workspace: Workspace, store: Store, encoder_spec: str | None, k: int
) -> DenseRetriever:
    """The retriever over the workspace's index, checked against encoder and corpus.

    Raises:
        IndexMismatch: there is no index, or it belongs to another encoder or corpus state.
    """
    from retrieval.encoder import load_encoder
    from retrieval.index import PassageIndex
    from retrieval.retriever import DenseRetriever

    if not workspace.index_folder.is_dir():
        raise IndexMismatch(
            "The workspace has no index yet.",
            where=str(workspace.index_folder),
            remedy="stepgold index",
        )
    if encoder_spec is None:
        encoder_spec = PassageIndex.encoder_spec(workspace.index_folder)
    encoder = load_encoder(encoder_spec)
    index = PassageIndex.load(
        workspace.index_folder, encoder=encoder.name, corpus_fingerprint=store.corpus_fingerprint()
    )
    return DenseRetriever(index, encoder, store.passages_by_id, k)
