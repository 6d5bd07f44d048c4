"""The workspace's index: bring it up to date, open it, search it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from retrieval import SearchConfig
from stepgold.console import note, progress
from stepgold.options import EncoderOptions, EngineOptions, open_cluster
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import Result, counted
from traces import CorpusError, IndexMismatch, InputError, argument, meant, option

if TYPE_CHECKING:
    from rich.text import Text

    from retrieval import (
        Dense,
        Encoder,
        LexicalIndex,
        PassageRetriever,
        SearchQuality,
        SentenceEncoder,
    )
    from stepgold.clusters import Cluster
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import Passage, Problem

Thing = TypeVar("Thing")

_READ_AT_ONCE = 1000
_MANY = 20_000
"""From this number of passages on, building the lexical index takes long enough for a note."""
NOT_LOOKED_AT: dict[str, Any] = {"over_window": None, "over_window_passages": None}
"""For a run that encoded nothing."""
_LISTED = 20
_SURELY_SHORT = 0.8
"""Estimates below this share of the window are not counted by the encoder's own tokenizer."""


class IndexOptions(EngineOptions, EncoderOptions):
    """How passages are encoded and indexed."""

    kind: str = option(
        default="auto",
        metavar="KIND",
        help="FAISS index: flat (exact), hnsw, ivf, or auto (by the number of passages).",
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class IndexResult(LabelingResult):
    """What an update of the index did."""

    encoder: str
    """Name and fingerprint of the encoder."""
    passages: int
    """Passages in the index."""
    removed: int
    """Passages that were in it and are in no corpus any more."""
    encoded: int
    """Different texts that were encoded."""
    kind: str
    """flat, hnsw or ivf."""
    quality: SearchQuality | None
    """How well it searches; None for flat, which is exact."""
    rebuilt: bool
    """Whether an existing index was rebuilt from scratch."""
    over_window: int | None
    """Encoded passages longer than the encoder's window; None where nothing was encoded."""
    over_window_passages: tuple[dict[str, Any], ...] | None
    """The first of them."""
    unread_languages: tuple[str, ...]
    """Languages of the new passages that the encoder has no words for."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with what the index holds now."""
        over = self.over_window_passages
        return super().as_json() | {
            "encoder": self.encoder,
            "passages": self.passages,
            "removed": self.removed,
            "encoded": self.encoded,
            "kind": self.kind,
            "over_window": self.over_window,
            "over_window_passages": None if over is None else list(over),
            "unread_languages": list(self.unread_languages),
            "recall_at_10": self.quality.recall_at_10 if self.quality else None,
        }

    def words(self) -> str:
        """One line."""
        changes = f"{self.done} added, {self.removed} removed, {self.encoded} texts encoded"
        changed = self.done or self.removed or self.rebuilt
        return (
            f"index: {counted(self.passages, 'passage')} ({changes}), encoder {self.encoder},"
            f" {self._reached()}{'' if changed else ', up to date'}"
        )

    def _reached(self) -> str:
        quality = self.quality
        if quality is None:
            return f"{self.kind}, exact"
        short = "" if quality.recall_at_10 >= quality.target else f", short of {quality.target}"
        return (
            f"{self.kind} with {quality.parameter} {quality.value}: recall@10"
            f" {quality.recall_at_10:.3f} of exact search on {quality.queries} queries{short}"
        )


def index(workspace: WorkspaceFolder, options: IndexOptions) -> IndexResult:
    """Bring the index over all corpora up to date; only passages without a vector are encoded.

    Raises:
        CorpusError: there is no passage.
        InputError: the encoder cannot be loaded.
    """
    from retrieval import Corpora, load_encoder, require_kind, update_index

    require_kind(options.kind)
    tally = Tally("index", None)
    with workspace.open_store() as store, ExitStack() as closing:
        if not any(corpus.passages for corpus in store.corpora.summaries()):
            raise CorpusError(
                "There is no passage to index.",
                where=workspace.shown_url,
                remedy="stepgold corpus add PATH --corpus NAME",
            )
        corpora = Corpora(
            store.corpora.passages, store.corpora.passages_by_id, store.corpora.fingerprint()
        )
        encoder, cluster = load_encoder(options.encoder), open_cluster(options, closing)
        update = update_index(
            workspace.index_folder,
            corpora,
            encoder if cluster is None else EncoderOnActors(encoder, cluster, options.encoder),
            encoder_spec=options.encoder,
            kind=options.kind,
            progress=_shown,
        )
        # The lexical index too, so that no later command waits for it.
        lexical_index(workspace, store, corpora.fingerprint)
        encoded = _passages(store, update.encoded)
        long = say_over_window(encoded, encoder) if update.encoded else NOT_LOOKED_AT
        stride = max(1, len(update.encoded) // _READ_AT_ONCE)
        sample = store.corpora.passages_by_id(update.encoded[::stride][:_READ_AT_ONCE])
        unread = note_unread_languages(list(sample.values()), encoder)
    if update.rebuilt:
        note(f"the index was rebuilt: {update.rebuilt}")
    tally.done, tally.unchanged = update.added, update.kept
    return IndexResult(
        **tally.figures(),
        encoder=encoder.name,
        passages=update.added + update.kept,
        removed=update.removed,
        encoded=len(update.encoded),
        kind=update.kind,
        quality=update.quality,
        rebuilt=update.rebuilt is not None,
        unread_languages=unread,
        **long,
    )


class EncoderOnActors:
    """An encoder of which batches of passages are encoded on the actors of a cluster."""

    def __init__(self, here: SentenceEncoder, cluster: Cluster, spec: str | None) -> None:
        """Start no actor yet.

        Args:
            here: the encoder in this process.
            cluster: where the actors are.
            spec: the encoder as the user named it.
        """
        self.name, self.dimension, self.max_tokens = here.name, here.dimension, here.max_tokens
        self.encode, self.count_tokens = here.encode, here.count_tokens
        self._pool = cluster.pool(partial(EncoderOnActor, spec, here.precision, here.name))

    def encode_batches(self, batches: Sequence[Sequence[str]]) -> Iterator[tuple[int, Any]]:
        """Yield (number of the batch, its vectors) in any order."""
        yield from self._pool.map(enumerate(batches), expected=len(batches))


class EncoderOnActor:
    """An encoder on an actor of a cluster."""

    def __init__(self, spec: str | None, precision: str, name: str) -> None:
        """Load the model.

        Raises:
            InputError: it is not the one called `name`.
        """
        from retrieval import load_encoder

        self._encoder = load_encoder(spec, precision=precision)
        if self._encoder.name != name:
            raise InputError(
                f"The cluster has the encoder {self._encoder.name}, and this machine {name}.",
                where="--encoder",
                remedy="put the same files on all nodes",
            )

    def __call__(self, batch: tuple[int, Sequence[str]]) -> tuple[int, Any]:
        """The number of the batch and its vectors."""
        from retrieval import encode_in_batches

        number, texts = batch
        return number, encode_in_batches(self._encoder, texts)


def note_unread_languages(passages: Sequence[Passage], encoder: SentenceEncoder) -> tuple[str, ...]:
    """Warn of languages that an encoder has no words for, and return them."""
    from retrieval import MULTILINGUAL_MODEL, text_to_embed, unread_languages

    unread = unread_languages(encoder, map(text_to_embed, passages))
    if unread:
        named = ", ".join(unread)
        note(
            f"warning: the encoder {encoder.name} has no words for texts in '{named}', so search by"
            f" meaning finds little of them; use a multilingual encoder:"
            f" stepgold index --encoder {MULTILINGUAL_MODEL}"
        )
    return tuple(sorted(unread))


def _shown(things: Iterable[Thing], total: int, label: str) -> Iterable[Thing]:
    return progress(things, total=total, label=label)


def _passages(store: Store, ids: Sequence[int]) -> Iterator[Passage]:
    for at in range(0, len(ids), _READ_AT_ONCE):
        yield from store.corpora.passages_by_id(ids[at : at + _READ_AT_ONCE]).values()


def say_over_window(passages: Iterable[Passage], encoder: Encoder) -> dict[str, Any]:
    """Tell a person of passages beyond the window; the same for the JSON document."""
    count, listed = over_window(passages, encoder)
    if count:
        named = ", ".join(f"{e['corpus']}/{e['document']} #{e['passage']}" for e in listed[:3])
        note(
            f"{count} passages are longer than the encoder's {encoder.max_tokens} tokens and are"
            f" read in windows: {named}" + (" and more (--json)" if count > 3 else "")
        )
    return {"over_window": count, "over_window_passages": tuple(listed)}


def over_window(passages: Iterable[Passage], encoder: Encoder) -> tuple[int, list[dict[str, Any]]]:
    """How many passages are longer than the encoder's window, and the first 20 of them.

    They are indexed all the same: read in windows along their sentences, the vector being the mean
    of the windows' (`retrieval.index.encoder`).
    """
    from retrieval import text_to_embed
    from retrieval.documents import estimate_tokens

    count = 0
    listed: list[dict[str, Any]] = []
    for passage in passages:
        text = text_to_embed(passage)
        if len(text) <= encoder.max_tokens:  # no token is shorter than a character
            continue
        if estimate_tokens(text) < _SURELY_SHORT * encoder.max_tokens:
            continue
        tokens = encoder.count_tokens(text)
        if tokens <= encoder.max_tokens:
            continue
        count += 1
        if len(listed) < _LISTED:
            place = {"corpus": passage.corpus, "document": passage.document}
            listed.append(place | {"passage": passage.index, "tokens": tokens})
    return count, listed


class SearchingOptions(EncoderOptions, SearchConfig):
    """How the index is searched, and with which encoder."""


def with_clinical_context(store: Store, dataset: str, problems: Sequence[Problem]) -> list[Problem]:
    """The problems with modality and clinical context, where the rows of their traces state them.

    A row of a trace describes its problem too; the first trace of a problem decides.
    """
    said: dict[str, dict[str, Any]] = {}
    for context in store.traces.contexts(dataset, with_evidence=False):
        meta = context.trace.meta
        if stated := {name: meta[name] for name in _CLINICAL if name in meta}:
            said.setdefault(context.problem.id, stated)
    return [
        replace(each, meta={**said.get(each.id, {}), **each.meta}) if each.id in said else each
        for each in problems
    ]


_CLINICAL = ("modality", "clinical_context")


def open_retriever(
    workspace: WorkspaceFolder,
    store: Store,
    options: SearchingOptions,
    *,
    fingerprint: str | None = None,
    within: Collection[str] = (),
) -> PassageRetriever:
    """The retriever over the workspace's indexes, checked against encoder and corpora.

    Args:
        workspace: where the indexes are.
        store: where the passages are.
        options: how to search.
        fingerprint: the state of the corpora; None asks the store.
        within: the corpora that are searched; all if empty.

    Raises:
        IndexMismatch: there is no index, or it belongs to another encoder or corpus state.
        InputError: an option names no corpus of the store, or a model cannot be loaded.
    """
    from retrieval import PassageRetriever, load_reranker

    corpora = {summary.name for summary in store.corpora.summaries()}
    named = {f"--corpus {name}": name for name in within}
    named |= {f"--quota {name}={least}": name for name, least in options.quotas.items()}
    for where, corpus in named.items():
        if corpus not in corpora:
            listed = f"corpora: {', '.join(sorted(corpora))}"
            remedy = meant(corpus, corpora, listed) if corpora else "stepgold corpus add"
            raise InputError(f"There is no corpus '{corpus}'.", where=where, remedy=remedy)
        if within and corpus not in within:
            raise InputError(
                f"A quota for '{corpus}' cannot be met: it is not searched.",
                where=where,
                remedy=f"add --corpus {corpus}, or leave the quota out",
            )
    state = fingerprint or store.corpora.fingerprint()
    return PassageRetriever(
        options,
        store.corpora.passages_by_id,
        dense=None if options.mode == "bm25" else _dense(workspace, options.encoder, state),
        lexical=None if options.mode == "dense" else lexical_index(workspace, store, state),
        reranker=None if options.rerank is None else load_reranker(options.rerank),
        ids_of_corpus=store.corpora.passage_ids,
        corpora=within,
    )


def lexical_index(workspace: WorkspaceFolder, store: Store, fingerprint: str) -> LexicalIndex:
    """The lexical index of this state of the corpora; built and saved where there is none.

    Raises:
        CorpusError: there is no passage.
        StoreError: it cannot be written.
    """
    from retrieval import LexicalIndex

    folder = workspace.index_folder / "bm25"
    if (found := LexicalIndex.load(folder, corpus_fingerprint=fingerprint)) is not None:
        return found
    rows = [(passage_id, p.title, p.text) for passage_id, p in store.corpora.passages()]
    if not rows:
        raise CorpusError(
            "There is no passage to search.",
            where=workspace.shown_url,
            remedy="stepgold corpus add PATH --corpus NAME",
        )
    if len(rows) >= _MANY:
        note(f"building the lexical index of {len(rows)} passages")
    built = LexicalIndex.build(*(list(column) for column in zip(*rows, strict=True)))
    built.save(folder, corpus_fingerprint=fingerprint)
    return built


def _dense(workspace: WorkspaceFolder, encoder_spec: str | None, fingerprint: str) -> Dense:
    from retrieval import Dense, PassageIndex, load_encoder

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


class SearchOptions(SearchingOptions):
    """What to look for, and how."""

    text: str = argument(kw_only=False, metavar="TEXT", help="What to look for.")
    corpus: Sequence[str] = option(
        default=(),
        metavar="NAME",
        help="Search this corpus alone; may be repeated [default: all].",
    )

    def check(self) -> None:
        """Refuse a blank text.

        Raises:
            InputError: it is blank.
        """
        super().check()
        if not self.text.strip():
            raise InputError("There is no text to look for.", remedy="stepgold search 'SOME WORDS'")


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found."""

    rank: int
    """Its place, from 0."""
    similarity: float | None
    """Cosine of text and passage; None where no vectors were searched."""
    corpus: str
    """Its corpus."""
    document: str
    """Its document."""
    passage: int
    """0-based index in the document."""
    start: int
    """Where it starts in the document's text, in characters."""
    end: int
    """Where it ends."""
    text: str
    """The passage."""
    title: str
    """Title of the document or section; may be empty."""
    source: str
    """File or address of the document."""
    licence: str | None
    """License of the corpus; None if not stated."""
    highlights: tuple[tuple[int, int], ...]
    """Where words of the text occur in the passage: start and end, in characters."""


@dataclass(frozen=True, kw_only=True, repr=False)
class SearchResult(Result):
    """The passages that were found, best first."""

    hits: tuple[Hit, ...]
    """One per passage."""

    def rows(self) -> list[dict[str, Any]]:
        """One row per passage."""
        return [
            asdict(hit) | {"highlights": [list(span) for span in hit.highlights]}
            for hit in self.hits
        ]

    def as_json(self) -> dict[str, Any]:
        """The contract's document."""
        return {"hits": self.rows()}

    def words(self) -> Text | str:
        """The passages with their sources; what was searched for is marked."""
        from rich.text import Text

        if not self.hits:
            return "nothing found"
        shown = Text()
        for hit in self.hits:
            # Without vectors there is no cosine to show.
            nearness = "  -  " if hit.similarity is None else f"{hit.similarity:.3f}"
            shown.append(f"{hit.rank + 1}. {nearness}  {hit.corpus}/{hit.document} ")
            shown.append(f"[{hit.start}:{hit.end}] {hit.title}\n")
            license = f", license {hit.licence}" if hit.licence else ""
            shown.append(f"   source: {hit.source}{license}\n")
            text = Text(hit.text)
            for start, end in hit.highlights:
                text.stylize("bold reverse", start, end)
            shown.append_text(text).append("\n\n")
        shown.rstrip()
        return shown


def search(workspace: WorkspaceFolder, options: SearchOptions) -> SearchResult:
    """Find the passages for a text, with similarity, source and offsets.

    Raises:
        IndexMismatch: there is no index, or it belongs to another encoder or corpus state.
        InputError: an option names no corpus, or a model cannot be loaded.
    """
    from retrieval import highlights

    with workspace.open_store() as store:
        found = open_retriever(workspace, store, options, within=options.corpus).search(
            options.text
        )
        named = {(hit.passage.corpus, hit.passage.document) for hit in found}
        sources = store.corpora.document_sources(named)
    hits = []
    for each in found:
        passage, place = each.passage, sources[each.passage.corpus, each.passage.document]
        hits.append(
            Hit(
                rank=each.rank,
                similarity=each.similarity,
                corpus=passage.corpus,
                document=passage.document,
                passage=passage.index,
                start=passage.start,
                end=passage.end,
                text=passage.text,
                title=passage.title,
                source=place.source,
                licence=place.licence,
                highlights=tuple(highlights(options.text, passage.text)),
            )
        )
    return SearchResult(hits=tuple(hits))
