"""`stepgold index`: passages -> vectors -> FAISS, with a manifest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from commands.options import Encoder, Json
from stepgold.console import note, progress
from stepgold.corpora import NOT_LOOKED_AT, say_over_window
from stepgold.outcome import Outcome, Tally
from stepgold.retrieval import lexical_index
from stepgold.workspace import WorkspaceFolder
from traces.errors import CorpusError

if TYPE_CHECKING:
    from retrieval.index.update import IndexUpdate

Thing = TypeVar("Thing")

_READ_AT_ONCE = 1000


def index(
    ctx: typer.Context,
    encoder: Encoder = None,
    kind: Annotated[str, typer.Option("--kind", help="auto, flat, hnsw or ivf.")] = "auto",
    json_output: Json = False,
) -> Outcome:
    """Bring the index over all corpora up to date: only passages without a vector are encoded."""
    from retrieval.index.encoder import load_encoder
    from retrieval.index.kinds import require_kind
    from retrieval.index.update import Corpora, update_index

    workspace: WorkspaceFolder = ctx.obj
    require_kind(kind)
    tally = Tally("index", None)
    with workspace.open_store() as store:
        if not any(corpus.passages for corpus in store.corpora.summaries()):
            raise CorpusError(
                "There is no passage to index.",
                where=workspace.url,
                remedy="stepgold corpus add PATH --corpus NAME",
            )
        corpora = Corpora(
            store.corpora.passages, store.corpora.passages_by_id, store.corpora.fingerprint()
        )
        loaded = load_encoder(encoder)
        update = update_index(
            workspace.index_folder,
            corpora,
            loaded,
            encoder_spec=encoder,
            kind=kind,
            progress=_shown,
        )
        # Words beside vectors, so that no later command waits for them.
        lexical_index(workspace, store, corpora.fingerprint)
        encoded = (
            passage
            for at in range(0, len(update.encoded), _READ_AT_ONCE)
            for passage in store.corpora.passages_by_id(
                update.encoded[at : at + _READ_AT_ONCE]
            ).values()
        )
        long = say_over_window(encoded, loaded) if update.encoded else NOT_LOOKED_AT
    if update.rebuilt:
        note(f"the index was built anew: {update.rebuilt}")
    tally.done, tally.unchanged = update.added, update.kept
    document = tally.document(
        encoder=loaded.name,
        passages=update.added + update.kept,
        removed=update.removed,
        encoded=len(update.encoded),
        kind=update.kind,
        **long,
        recall_at_10=update.quality.recall_at_10 if update.quality else None,
    )
    return Outcome(document, _words(update, loaded.name), as_json=json_output)


def _shown(things: Iterable[Thing], total: int, label: str) -> Iterable[Thing]:
    return progress(things, total=total, label=label)


def _words(update: IndexUpdate, encoder: str) -> str:
    found = f"{update.kind}, exact" if update.quality is None else _quality_words(update)
    count = update.added + update.kept
    changes = f"{update.added} added, {update.removed} removed, {len(update.encoded)} texts encoded"
    return f"index: {count} passages ({changes}), encoder {encoder}, {found}" + (
        "" if update.added or update.removed or update.rebuilt else ", up to date"
    )


def _quality_words(update: IndexUpdate) -> str:
    quality = update.quality
    if quality is None:
        return update.kind
    reached = f"recall@10 {quality.recall_at_10:.3f} of exact search on {quality.queries} queries"
    short = "" if quality.recall_at_10 >= quality.target else f", short of {quality.target}"
    return f"{update.kind} with {quality.parameter} {quality.value}: {reached}{short}"
