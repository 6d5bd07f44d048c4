"""Guideline documents: files into a corpus, the list of corpora, and removal.

Only what changed is read, split and stored; documents whose files are gone are removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.console import progress
from stepgold.hub import CARD, hub_path, snapshot
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import INCOMPLETE, OK, Result
from traces import Config, CorpusError, InputError, Paths, argument, option, paths_of
from traces.words import LATIN

if TYPE_CHECKING:
    from retrieval.documents import DocumentFile, DocumentProblem, Listing
    from stepgold.workspace import WorkspaceFolder
    from storage import CorpusSummary, FileKey, KnownDocument, KnownFile, Store
    from traces import StoredDocument


_BATCH = 200
"""Documents stored in one transaction."""
_SHOWN = 10
"""Problems and removals shown to a person."""


class CorpusAddOptions(Config):
    """How files are read, split and put into a corpus."""

    paths: Paths = argument(
        kw_only=False,
        metavar="PATH",
        help=".txt .md .html .pdf .docx .nxml .rst .jsonl(.gz), folders, or"
        " hf://datasets/ORG/NAME[@REVISION][/PATH].",
    )
    corpus: str = option(metavar="NAME", help="Name of the corpus.")
    license: str | None = option(
        default=None,
        metavar="TEXT",
        flags=("--license", "--licence"),
        help="License of the texts.",
    )
    source: str | None = option(
        default=None, metavar="TEXT", help="Where the corpus comes from, e.g. a URL."
    )
    passage_tokens: int = option(
        default=200, between=(16, None), metavar="N", help="Target length of a passage, in tokens."
    )
    overlap: int = option(
        default=0,
        between=(0, None),
        metavar="N",
        help="Maximum tokens repeated from the previous passage.",
    )
    max_file_mb: int = option(
        default=50,
        between=(1, None),
        metavar="N",
        help="Largest file (JSONL: line) to read, in MB.",
    )
    keep_missing: bool = option(
        default=False, help="Keep documents whose files are gone from the folder."
    )
    replace: bool = option(
        default=False,
        help="Replace documents of the same name from other folders.",
        flags=("--replace",),
    )

    def check(self) -> None:
        """Refuse an overlap as long as a passage.

        Raises:
            InputError: it is.
        """
        super().check()
        if self.overlap >= self.passage_tokens:
            raise InputError(
                f"Passages of {self.passage_tokens} tokens cannot overlap by {self.overlap}.",
                remedy="choose an overlap below --passage-tokens",
            )

    @property
    def split(self) -> str:
        """The settings that decide the passages of a text."""
        return f"sentences 2, {self.passage_tokens} tokens, overlap {self.overlap}"

    @property
    def settings(self) -> str:
        """The settings that decide the documents of a file."""
        from retrieval.documents import READER_VERSION

        return f"reader {READER_VERSION}, {self.split}"


@dataclass(frozen=True, kw_only=True, repr=False)
class CorpusAddResult(LabelingResult):
    """The outcome of adding files."""

    corpus: str
    """Name of the corpus."""
    removed_documents: tuple[str, ...]
    """Documents that were removed because their files, or rows, are gone."""
    rejected: tuple[DocumentProblem, ...]
    """Files and rows that could not be read."""
    passed_over: tuple[Path, ...]
    """Files of types that are not read."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if something could not be read."""
        return INCOMPLETE if self.rejected else OK

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with what was removed and what could not be read."""
        return super().as_json() | {
            "corpus": self.corpus,
            "removed": len(self.removed_documents),
            "removed_documents": list(self.removed_documents),
            "rejected": [
                {"file": str(each.path), "line": each.line, "id": each.id, "reason": each.reason}
                for each in self.rejected
            ],
            "passed_over": [str(path) for path in self.passed_over],
        }

    def words(self) -> str:
        """The counts, and the first problems and removals."""
        counts = f"{self.done} documents read, {self.unchanged} unchanged"
        if self.removed_documents:
            counts += f", {len(self.removed_documents)} removed"
        lines = [f"corpus '{self.corpus}': {counts}, {len(self.rejected)} unusable"]
        for each in self.rejected[:_SHOWN]:
            line = "" if each.line is None else f", line {each.line}"
            lines.append(f"unusable: {each.path}{line}: {each.reason}")
        if len(self.rejected) > _SHOWN:
            lines.append(f"... and {len(self.rejected) - _SHOWN} more: --json lists them all")
        if self.passed_over:
            kinds = Counter(path.suffix.lower() or "without a suffix" for path in self.passed_over)
            named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
            lines.append(f"passed over: {len(self.passed_over)} files of other types ({named})")
        lines += [f"removed: {name}" for name in self.removed_documents[:_SHOWN]]
        lines += ["next: stepgold index"] if self.done or self.removed_documents else []
        return "\n".join(lines)


def corpus_add(workspace: WorkspaceFolder, options: CorpusAddOptions) -> CorpusAddResult:
    """Split documents into passages; unchanged files are skipped, documents of lost files removed.

    Raises:
        CorpusError: no document could be read.
        InputError: a path is missing.
    """
    tally = Tally("corpus add", None)
    listing, origins = _listed(paths_of(options.paths))
    source = options.source or (", ".join(origins) or None)
    with workspace.new_store() as store:
        added = _add_all(store, listing, options)
        if added.done + added.unchanged == 0:
            raise _nothing_read(options, added.problems)
        store.corpora.files.describe(options.corpus, licence=options.license, source=source)
    tally.done, tally.unchanged, tally.failed = added.done, added.unchanged, len(added.problems)
    return CorpusAddResult(
        **tally.figures(),
        corpus=options.corpus,
        removed_documents=tuple(added.removed),
        rejected=tuple(added.problems),
        passed_over=tuple(listing.passed_over),
    )


def _listed(paths: Sequence[Path]) -> tuple[Listing, list[str]]:
    """The files of all paths; and those on the Hub, at their commits.

    The root of a repository's files names no commit: a later one brings its documents up to date.

    Raises:
        CorpusError: a path does not exist.
        InputError: as `snapshot`.
    """
    from retrieval.documents import SUFFIXES, Listing, list_files

    parts, origins = list[Listing](), list[str]()
    for path in paths:
        shown = hub_path(path)
        if shown is None:
            parts.append(list_files([path]))
            continue
        found = snapshot(shown, SUFFIXES)
        origins.append(found.shown(found.below))
        below = Path("hf:", "datasets", found.repository, found.below)
        root = below if found.target.is_dir() else below.parent
        files = [
            replace(file, root=root)
            for file in list_files([found.target]).files
            if file.path != found.folder / CARD
        ]
        parts.append(Listing(tuple(files), (), (), (root,) if root == below else ()))
    listing = Listing(
        files=tuple(file for part in parts for file in part.files),
        passed_over=tuple(path for part in parts for path in part.passed_over),
        problems=tuple(problem for part in parts for problem in part.problems),
        folders=tuple(folder for part in parts for folder in part.folders),
    )
    return listing, origins


def _nothing_read(options: CorpusAddOptions, problems: Sequence[DocumentProblem]) -> CorpusError:
    first = problems[0] if problems else None
    why = f": {first.reason}." if first else ": the paths hold no file of a type that is read."
    return CorpusError(
        f"No document could be read for corpus '{options.corpus}'{why}",
        where=str(first.path if first else paths_of(options.paths)[0]),
        remedy="give text documents, or a folder that holds some",
    )


@dataclass(slots=True)
class _Added:
    """The outcome of the files so far."""

    done: int = 0
    """Documents that are new or were replaced."""
    unchanged: int = 0
    """Documents that were in the corpus before."""
    removed: list[str] = field(default_factory=list)
    """Names of the documents that were removed because their files, or rows, are gone."""
    problems: list[DocumentProblem] = field(default_factory=list)
    """What could not be read."""


def _add_all(store: Store, listing: Listing, options: CorpusAddOptions) -> _Added:
    total = _Added(problems=list(listing.problems))
    known = {
        root: store.corpora.files.known(options.corpus, str(root))
        for root in {file.root for file in listing.files}
    }
    label = f"corpus {options.corpus}"[:22]
    for file in progress(listing.files, total=len(listing.files), label=label):
        added = _add_file(store, file, options, known[file.root].get(file.name))
        total.done += added.done
        total.unchanged += added.unchanged
        total.removed += added.removed
        total.problems += added.problems
    # Where nothing at all could be read the folder is not what it was: nothing is removed.
    if not options.keep_missing and total.done + total.unchanged:
        total.removed += _remove_missing(store, listing, options)
    return total


def _add_file(
    store: Store, file: DocumentFile, options: CorpusAddOptions, known: KnownFile | None
) -> _Added:
    """Bring the documents of one file up to date; an unchanged file is only hashed.

    Documents are stored in batches as they are read; the file counts as read when all are, so that
    after a kill it is read again and its stored documents are recognized by their hashes.
    """
    from retrieval.documents import DocumentProblem, file_hash, read_file
    from storage import FileKey

    added = _Added()
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
        added.problems = [DocumentProblem(file.path, **dict(each)) for each in known.problems]
        return added
    names: set[str] = set()
    entries = read_file(file, max_bytes=options.max_file_mb * 1_000_000)
    while batch := list(islice(entries, _BATCH)):
        problems = [entry for entry in batch if isinstance(entry, DocumentProblem)]
        added.problems += problems
        # A row that became unreadable keeps its earlier document.
        names |= {f"{file.name}#{problem.id}" for problem in problems if problem.id is not None}
        documents = [entry for entry in batch if not isinstance(entry, DocumentProblem)]
        if on_hub := hub_path(file.root):
            named = f"{on_hub}/{file.name}"
            documents = [
                replace(each, source=named) if each.source == str(file.path) else each
                for each in documents
            ]
        names |= _store(store, file, documents, options=options, added=added)
    if names or known is not None:
        _finish(store, key, sha256=sha256, names=names, options=options, added=added)
    return added


def _store(
    store: Store,
    file: DocumentFile,
    documents: list[StoredDocument],
    *,
    options: CorpusAddOptions,
    added: _Added,
) -> set[str]:
    """Store a batch; return the names of those that are in the corpus now."""
    from retrieval.documents import DocumentProblem, same_name, split_document
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
    store: Store,
    key: FileKey,
    *,
    sha256: str,
    names: set[str],
    options: CorpusAddOptions,
    added: _Added,
) -> None:
    lost = [each for each in added.problems if each.id is None and not each.partial]
    whole = all(problem.line is not None for problem in lost)
    clashes = [each for each in added.problems if each.id is not None and each.line is None]
    if not names and not whole:
        return  # nothing was stored or read; the next call tries again
    added.removed += store.corpora.files.finish(
        options.corpus,
        key,
        # What a clash or a fault of the whole file left undone is tried again next time.
        sha256=sha256 if whole and not clashes else None,
        settings=options.settings,
        problems=[_problem_row(problem) for problem in added.problems],
        names=names if whole else None,
    )


def _remove_missing(store: Store, listing: Listing, options: CorpusAddOptions) -> list[str]:
    """Remove the documents of files that are gone from the folders; return their names.

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
        # A file of this folder may also have been added by its own path.
        gone = [path for path in gone if not (root / path).exists()]
        if gone:
            removed += store.corpora.files.forget(options.corpus, str(root), gone)
    return removed


def _problem_row(problem: DocumentProblem) -> dict[str, Any]:
    row = asdict(problem)
    del row["path"]
    return row


class CorpusListOptions(Config):
    """The list has no options."""


@dataclass(frozen=True, kw_only=True, repr=False)
class CorpusListResult(Result):
    """The corpora, with their size and license."""

    corpora: tuple[CorpusSummary, ...]
    """One summary per corpus, by name."""

    def rows(self) -> list[dict[str, Any]]:
        """One row per corpus."""
        return [
            {
                "corpus": each.name,
                "documents": each.documents,
                "passages": each.passages,
                "licence": each.licence,
                "source": each.source,
                "languages": dict(each.languages),
            }
            for each in self.corpora
        ]

    def as_json(self) -> dict[str, Any]:
        """The rows."""
        return {"corpora": self.rows()}

    def words(self) -> str:
        """One line per corpus."""
        if not self.corpora:
            return "no corpus yet: stepgold corpus add PATH --corpus NAME"
        return "\n".join(
            f"{each.name}: {each.documents} documents, {each.passages} passages,"
            f" license {each.licence or 'not given'}"
            + (f", from {each.source}" if each.source else "")
            + _in_languages(each)
            for each in self.corpora
        )


def _in_languages(corpus: CorpusSummary) -> str:
    """The languages of a corpus, unless all of it is in Latin letters."""
    found = corpus.languages
    listed = ", ".join(f"{count} {language}" for language, count in found.items())
    return "" if set(found) <= {LATIN} else f", languages: {listed}"


def corpus_list(workspace: WorkspaceFolder, options: CorpusListOptions) -> CorpusListResult:
    """List the corpora with their size and license.

    Raises:
        StoreError: there is no workspace.
    """
    with workspace.open_store() as store:
        return CorpusListResult(corpora=tuple(store.corpora.summaries()))


class CorpusRemoveOptions(Config):
    """The corpus or document to remove."""

    name: str = argument(kw_only=False, metavar="NAME", help="Name of the corpus.")
    document: str | None = option(default=None, metavar="NAME", help="Remove only this document.")


@dataclass(frozen=True, kw_only=True, repr=False)
class CorpusRemovalResult(LabelingResult):
    """What was removed."""

    corpus: str
    """Name of the corpus."""
    document: str | None
    """Its document; None for the whole corpus."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the names."""
        return super().as_json() | {"corpus": self.corpus, "document": self.document}

    def words(self) -> str:
        """One line."""
        what = f"corpus '{self.corpus}'"
        if self.document is not None:
            what = f"document '{self.document}' of {what}"
        return f"{what} removed; next: stepgold index"


def corpus_remove(workspace: WorkspaceFolder, options: CorpusRemoveOptions) -> CorpusRemovalResult:
    """Remove a corpus or one document; evidence already attached to problems stays readable.

    Raises:
        InputError: there is no such corpus or document.
    """
    tally = Tally("corpus remove", None)
    with workspace.open_store() as store:
        if options.document is None:
            store.corpora.remove(options.name)
        else:
            store.corpora.files.remove_document(options.name, options.document)
    tally.done = 1
    return CorpusRemovalResult(**tally.figures(), corpus=options.name, document=options.document)
