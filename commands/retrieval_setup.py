"""The workspace's encoder, index and lexical index, put together for the commands that search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commands.console import note
from commands.workspace import Workspace
from traces.errors import CorpusError, IndexMismatch, InputError

if TYPE_CHECKING:
    from retrieval.bm25 import LexicalIndex
    from retrieval.candidates import Dense
    from retrieval.config import RetrievalConfig
    from retrieval.retriever import PassageRetriever
    from storage import Store

_WORTH_A_WORD = 20_000
"""Passages from which building the lexical index takes long enough to be mentioned."""


def open_retriever(
    workspace: Workspace,
    store: Store,
    encoder_spec: str | None,
    config: RetrievalConfig,
    fingerprint: str | None = None,
) -> PassageRetriever:
    """The retriever over the workspace's indexes, checked against encoder and corpora.

    Raises:
        IndexMismatch: there is no index, or it belongs to another encoder or corpus state.
        InputError: a quota names no corpus of the store, or a model cannot be loaded.
    """
    from retrieval.rerank import load_reranker
    from retrieval.retriever import PassageRetriever

    corpora = {summary.name for summary in store.corpora()}
    for corpus in config.quotas:
        if corpus not in corpora:
            raise InputError(
                f"There is no corpus '{corpus}'.",
                where=f"--quota {corpus}={config.quotas[corpus]}",
                remedy=f"corpora: {', '.join(sorted(corpora))}" if corpora else "corpus add",
            )
    state = fingerprint or store.corpus_fingerprint()
    return PassageRetriever(
        config,
        store.passages_by_id,
        dense=None if config.mode == "bm25" else _dense(workspace, encoder_spec, state),
        lexical=None if config.mode == "dense" else lexical_index(workspace, store, state),
        reranker=None if config.rerank is None else load_reranker(config.rerank),
        ids_of_corpus=store.passage_ids,
    )


def lexical_index(workspace: Workspace, store: Store, fingerprint: str) -> LexicalIndex:
    """The lexical index of this state of the corpora; built and saved where there is none.

    Raises:
        CorpusError: there is no passage.
        StoreError: it cannot be written.
    """
    from retrieval.bm25 import LexicalIndex

    folder = workspace.index_folder / "bm25"
    if (found := LexicalIndex.load(folder, corpus_fingerprint=fingerprint)) is not None:
        return found
    rows = [(passage_id, p.title, p.text) for passage_id, p in store.passages()]
    if not rows:
        raise CorpusError(
            "There is no passage to search.",
            where=workspace.url,
            remedy="stepgold corpus add PATH --corpus NAME",
        )
    if len(rows) >= _WORTH_A_WORD:
        note(f"building the lexical index of {len(rows)} passages")
    built = LexicalIndex.build(*(list(column) for column in zip(*rows, strict=True)))
    built.save(folder, corpus_fingerprint=fingerprint)
    return built


def _dense(workspace: Workspace, encoder_spec: str | None, fingerprint: str) -> Dense:
    from retrieval.candidates import Dense
    from retrieval.encoder import load_encoder
    from retrieval.index import PassageIndex

    if not workspace.index_folder.is_dir():
        raise IndexMismatch(
            "The workspace has no index yet.",
            where=str(workspace.index_folder),
            remedy="stepgold index, or search by words alone with --mode bm25",
        )
    if encoder_spec is None:
        encoder_spec = PassageIndex.encoder_spec(workspace.index_folder)
    encoder = load_encoder(encoder_spec)
    index = PassageIndex.load(
        workspace.index_folder, encoder=encoder.name, corpus_fingerprint=fingerprint
    )
    return Dense(index, encoder)
