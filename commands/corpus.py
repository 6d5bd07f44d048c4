"""`stepgold corpus`: guideline documents in the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import Json
from stepgold.console import progress
from stepgold.outcome import Outcome, Tally
from stepgold.results import INCOMPLETE, OK
from stepgold.workspace import WorkspaceFolder
from traces.errors import CorpusError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrieval.documents import DocumentProblem, Listing
    from stepgold.corpora import Added, AddOptions
    from storage import Store

app = typer.Typer(help="Guideline documents: add, list, remove.", no_args_is_help=True)

CorpusName = Annotated[str, typer.Option("--corpus", help="Name of the corpus.")]


Paths = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", help=".txt .md .html .pdf .jsonl(.gz), or folders of them."),
]
Licence = Annotated[str | None, typer.Option("--licence", help="Licence of the texts.")]
Source = Annotated[
    str | None, typer.Option("--source", help="Where the corpus comes from, e.g. a URL.")
]
PassageTokens = Annotated[
    int, typer.Option("--passage-tokens", min=16, help="Target length of a passage.")
]
Overlap = Annotated[
    int, typer.Option("--overlap", min=0, help="Tokens repeated from the passage before.")
]
MaxFileMb = Annotated[
    int, typer.Option("--max-file-mb", min=1, help="Largest file (JSONL: line) that is read.")
]
KeepMissing = Annotated[
    bool,
    typer.Option(
        "--keep-missing", help="Keep documents whose files are gone from a folder added again."
    ),
]
ReplaceOthers = Annotated[
    bool, typer.Option("--replace", help="Replace documents of the same name from other folders.")
]


@app.command("add")
def add(
    ctx: typer.Context,
    paths: Paths,
    corpus: CorpusName,
    licence: Licence = None,
    source: Source = None,
    passage_tokens: PassageTokens = 200,
    overlap: Overlap = 0,
    max_file_mb: MaxFileMb = 50,
    keep_missing: KeepMissing = False,
    replace: ReplaceOthers = False,
    json_output: Json = False,
) -> Outcome:
    """Split documents into passages; an unchanged file costs nothing, one that is gone is removed."""
    from retrieval.documents import list_files
    from stepgold.corpora import AddOptions

    _check_split(passage_tokens, overlap)
    workspace: WorkspaceFolder = ctx.obj
    tally = Tally("corpus add", None)
    options = AddOptions(
        corpus, passage_tokens, overlap, max_file_mb * 1_000_000, replace, keep_missing
    )
    listing = list_files(paths)
    with workspace.open_store(create=True) as store:
        added = _add_all(store, listing, options)
        if added.done + added.unchanged == 0:
            raise _nothing_read(corpus, paths, added.problems)
        store.corpora.files.describe(corpus, licence=licence, source=source)
    tally.done, tally.unchanged, tally.failed = added.done, added.unchanged, len(added.problems)
    document = tally.document(
        corpus=corpus,
        removed=len(added.removed),
        removed_documents=added.removed,
        rejected=[
            {"file": str(p.path), "line": p.line, "id": p.id, "reason": p.reason}
            for p in added.problems
        ],
    )
    code = INCOMPLETE if added.problems else OK
    return Outcome(document, _words(corpus, added), code, json_output)


def _add_all(store: Store, listing: Listing, options: AddOptions) -> Added:
    from stepgold.corpora import Added, add_file, remove_missing

    total = Added(problems=list(listing.problems))
    known = {
        root: store.corpora.files.known(options.corpus, str(root))
        for root in {file.root for file in listing.files}
    }
    label = f"corpus {options.corpus}"[:22]
    for file in progress(listing.files, total=len(listing.files), label=label):
        added = add_file(store, file, options, known[file.root].get(file.name))
        total.done += added.done
        total.unchanged += added.unchanged
        total.removed += added.removed
        total.problems += added.problems
    # Where nothing at all could be read the folder is not what it was: nothing is removed.
    if not options.keep_missing and total.done + total.unchanged:
        total.removed += remove_missing(store, listing, options)
    return total


def _check_split(passage_tokens: int, overlap: int) -> None:
    if overlap >= passage_tokens:
        raise InputError(
            f"Passages of {passage_tokens} tokens cannot overlap by {overlap}.",
            remedy="choose an overlap below --passage-tokens",
        )


def _nothing_read(
    corpus: str, paths: Sequence[Path], problems: Sequence[DocumentProblem]
) -> CorpusError:
    first = problems[0] if problems else None
    why = (
        f": {first.reason}."
        if first
        else ": the paths hold no .txt, .md, .html, .pdf or .jsonl file."
    )
    return CorpusError(
        f"No document could be read for corpus '{corpus}'{why}",
        where=str(first.path if first else paths[0]),
        remedy="give text documents, or a folder that holds some",
    )


def _words(corpus: str, added: Added) -> str:
    counts = f"{added.done} documents read, {added.unchanged} unchanged"
    if added.removed:
        counts += f", {len(added.removed)} removed"
    lines = [f"corpus '{corpus}': {counts}, {len(added.problems)} unusable"]
    lines += [f"unusable: {p.path}{_place(p)}: {p.reason}" for p in added.problems[:10]]
    if len(added.problems) > 10:
        lines.append(f"and {len(added.problems) - 10} more: --json lists all")
    lines += [f"removed: {name}" for name in added.removed[:10]]
    lines += ["next: stepgold index"] if added.done or added.removed else []
    return "\n".join(lines)


def _place(problem: DocumentProblem) -> str:
    return f", line {problem.line}" if problem.line is not None else ""


@app.command("list")
def list_(ctx: typer.Context, json_output: Json = False) -> Outcome:
    """List the corpora with their size and licence."""
    workspace: WorkspaceFolder = ctx.obj
    with workspace.open_store() as store:
        found = store.corpora.summaries()
    rows = [
        {
            "corpus": c.name,
            "documents": c.documents,
            "passages": c.passages,
            "licence": c.licence,
            "source": c.source,
        }
        for c in found
    ]
    words = "\n".join(
        f"{c.name}: {c.documents} documents, {c.passages} passages, licence {c.licence or 'not given'}"
        + (f", from {c.source}" if c.source else "")
        for c in found
    )
    return Outcome(
        {"corpora": rows},
        words or "no corpus yet: stepgold corpus add PATH --corpus NAME",
        as_json=json_output,
    )


@app.command("remove")
def remove(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the corpus.")],
    document: Annotated[
        str | None, typer.Option("--document", help="Only this document of it.")
    ] = None,
    json_output: Json = False,
) -> Outcome:
    """Remove a corpus or one document; evidence already attached to problems stays readable."""
    workspace: WorkspaceFolder = ctx.obj
    tally = Tally("corpus remove", None)
    with workspace.open_store() as store:
        if document is None:
            store.corpora.remove(name)
        else:
            store.corpora.files.remove_document(name, document)
    tally.done = 1
    what = f"corpus '{name}'" if document is None else f"document '{document}' of corpus '{name}'"
    return Outcome(
        tally.document(corpus=name, document=document),
        f"{what} removed; next: stepgold index",
        as_json=json_output,
    )
