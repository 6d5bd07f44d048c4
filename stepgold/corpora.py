"""Files into a corpus: only what changed is read, split and stored; what is gone is removed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.console import note

if TYPE_CHECKING:
    from retrieval.documents import DocumentFile, DocumentProblem, Listing
    from retrieval.index.encoder import Encoder
    from storage import FileKey, KnownDocument, KnownFile, Store
    from traces import Passage, StoredDocument


_BATCH = 200
"""Documents stored in one transaction."""


@dataclass(frozen=True, slots=True)
class AddOptions:
    """How files are read, split and put into a corpus."""

    corpus: str
    """Name of the corpus."""
    passage_tokens: int
    """Target length of a passage."""
    overlap: int
    """Most tokens repeated from the passage before."""
    max_bytes: int
    """Largest file that is read."""
    replace: bool
    """Whether a document takes the place of one of its name from another folder."""
    keep_missing: bool
    """Whether documents stay whose files are gone from a folder that is added again."""

    @property
    def split(self) -> str:
        """What decides the passages of a text."""
        return f"sentences 1, {self.passage_tokens} tokens, overlap {self.overlap}"

    @property
    def settings(self) -> str:
        """What decides the documents of a file."""
        from retrieval.documents import READER_VERSION

        return f"reader {READER_VERSION}, {self.split}"


@dataclass(slots=True)
class Added:
    """What became of the files of one call."""

    done: int = 0
    """Documents that are new or were replaced."""
    unchanged: int = 0
    """Documents that stood in the corpus as they are."""
    removed: list[str] = field(default_factory=list)
    """Names of the documents that were removed because their files, or rows, are gone."""
    problems: list[DocumentProblem] = field(default_factory=list)
    """What could not be read."""


def add_file(
    store: Store, file: DocumentFile, options: AddOptions, known: KnownFile | None
) -> Added:
    """Bring the documents of one file up to date; an unchanged file is hashed and no more.

    Documents are stored in batches as they are read; the file counts as read when all are, so that
    after a kill it is read again and its stored documents are recognised by their hashes.
    """
    from retrieval.documents import DocumentProblem, file_hash, read_file
    from storage import FileKey

    added = Added()
    key = FileKey(str(file.root), file.name)
    try:
        sha256 = file_hash(file.path)
    except OSError as fault:
        added.problems.append(
            DocumentProblem(file.path, f"cannot be read ({fault.strerror or fault})")
        )
        return added
    if known is not None and (known.sha256, known.settings) == (sha256, options.settings):
        added.unchanged = known.documents
        added.problems = [_problem_from(file.path, each) for each in known.problems]
        return added
    names: set[str] = set()
    entries = read_file(file, max_bytes=options.max_bytes)
    while batch := list(islice(entries, _BATCH)):
        problems = [entry for entry in batch if isinstance(entry, DocumentProblem)]
        added.problems += problems
        # A row that has become unreadable keeps the document it was.
        names |= {f"{file.name}#{problem.id}" for problem in problems if problem.id is not None}
        documents = [entry for entry in batch if not isinstance(entry, DocumentProblem)]
        names |= _store(store, file, documents, options, added)
    if names or known is not None:
        _finish(store, key, sha256, names, options, added)
    return added


def _store(
    store: Store,
    file: DocumentFile,
    documents: list[StoredDocument],
    options: AddOptions,
    added: Added,
) -> set[str]:
    """Store a batch; give the names of those that are in the corpus now."""
    from retrieval.documents import DocumentProblem, same_name
    from retrieval.passages import split_document
    from storage import FileKey

    key = FileKey(str(file.root), file.name)
    stood = store.corpora.files.documents(options.corpus, [each.name for each in documents])
    same: list[StoredDocument] = []
    fresh = []
    for document in documents:
        before = stood.get(document.name)
        if before is not None and _is_anothers(before, document, key) and not options.replace:
            added.problems.append(
                DocumentProblem(file.path, same_name(before.source), id=document.name)
            )
        elif before is not None and (before.sha256, before.split) == (
            document.sha256,
            options.split,
        ):
            same.append(document)
        else:
            passages = split_document(
                document,
                corpus=options.corpus,
                target_tokens=options.passage_tokens,
                overlap=options.overlap,
            )
            fresh.append((document, passages))
    if same or fresh:
        outcome = store.corpora.files.put(
            options.corpus, key, fresh, split=options.split, same=same
        )
        added.done += outcome.done
        added.unchanged += outcome.unchanged
    return {each.name for each in same} | {each.name for each, _ in fresh}


def _is_anothers(before: KnownDocument, document: StoredDocument, key: FileKey) -> bool:
    """Whether a stored document of this name, with another text, came from another file.

    The same text from elsewhere is the same document: its folder was moved.
    """
    return before.file not in (None, key) and before.sha256 != document.sha256


def _finish(
    store: Store, key: FileKey, sha256: str, names: set[str], options: AddOptions, added: Added
) -> None:
    lost = [each for each in added.problems if each.id is None and not each.partial]
    whole = all(problem.line is not None for problem in lost)
    clashes = [each for each in added.problems if each.id is not None and each.line is None]
    if not names and not whole:
        return  # nothing of it is known or could be read: it is tried again next time
    added.removed += store.corpora.files.finish(
        options.corpus,
        key,
        # What a clash or a fault of the whole file left undone is tried again next time.
        sha256=sha256 if whole and not clashes else None,
        settings=options.settings,
        problems=[_problem_row(problem) for problem in added.problems],
        names=names if whole else None,
    )


def remove_missing(store: Store, listing: Listing, options: AddOptions) -> list[str]:
    """Remove the documents of files that are gone from the folders of this call; give their names.

    A file that is there and cannot be read keeps its documents; so does a folder that could not be
    listed as a whole.
    """
    removed: list[str] = []
    for root in listing.folders:
        there = {file.name for file in listing.files if file.root == root}
        gone = [
            path
            for path in store.corpora.files.known(options.corpus, str(root))
            if path not in there
        ]
        # A file may also have been added by its own name, from this very folder.
        gone = [path for path in gone if not (root / path).exists()]
        if gone:
            removed += store.corpora.files.forget(options.corpus, str(root), gone)
    return removed


def _problem_row(problem: DocumentProblem) -> dict[str, Any]:
    row = asdict(problem)
    del row["path"]
    return row


def _problem_from(path: Path, row: Any) -> DocumentProblem:
    from retrieval.documents import DocumentProblem

    return DocumentProblem(path, **row)


# --- Passages that an encoder does not read in one piece, by name


NOT_LOOKED_AT: dict[str, Any] = {"over_window": None, "over_window_passages": None}
"""For a run that encoded nothing."""
_LISTED = 20
_SURELY_SHORT = 0.8
"""Estimates below this share of the window are not counted by the encoder's own tokenizer."""


def say_over_window(passages: Iterable[Passage], encoder: Encoder) -> dict[str, Any]:
    """Tell a person of passages beyond the window; the same for the JSON document."""
    count, listed = over_window(passages, encoder)
    if count:
        named = ", ".join(f"{e['corpus']}/{e['document']} #{e['passage']}" for e in listed[:3])
        note(
            f"{count} passages are longer than the encoder's {encoder.max_tokens} tokens and are"
            f" read in windows: {named}" + (" and more (--json)" if count > 3 else "")
        )
    return {"over_window": count, "over_window_passages": listed}


def over_window(passages: Iterable[Passage], encoder: Encoder) -> tuple[int, list[dict[str, Any]]]:
    """How many passages are longer than the encoder's window, and the first 20 of them.

    They are indexed all the same: read in windows along their sentences, the vector being the mean
    of the windows' (`retrieval.index.encoder`).
    """
    from retrieval.index.encoder import text_to_embed
    from retrieval.tokens import estimate_tokens

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
