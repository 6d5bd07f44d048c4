"""`stepgold corpus`: guideline documents in the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.console import progress
from commands.options import Json
from commands.outcome import INCOMPLETE, OK, Outcome, Tally
from commands.workspace import Workspace
from traces.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retrieval.documents import DocumentProblem
    from traces.evidence import Passage
    from traces.records import StoredDocument

app = typer.Typer(help="Guideline documents: add, list, remove.", no_args_is_help=True)

CorpusName = Annotated[str, typer.Option("--corpus", help="Name of the corpus.")]


@app.command("add")
def add(
    ctx: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help=".txt .md .html .pdf .jsonl(.gz), or folders of them."
        ),
    ],
    corpus: CorpusName,
    licence: Annotated[str | None, typer.Option("--licence", help="Licence of the texts.")] = None,
    passage_tokens: Annotated[
        int, typer.Option("--passage-tokens", min=16, help="Target length of a passage.")
    ] = 200,
    json_output: Json = False,
) -> Outcome:
    """Split documents into passages; an unchanged document costs nothing."""
    from retrieval.documents import DocumentProblem, read_documents
    from retrieval.passages import split_document

    workspace: Workspace = ctx.obj
    tally = Tally("corpus add", None)
    problems: list[DocumentProblem] = []

    def split() -> Iterator[tuple[StoredDocument, Sequence[Passage]]]:
        for document in progress(read_documents(paths), total=None, label=f"corpus {corpus}"[:22]):
            if isinstance(document, DocumentProblem):
                problems.append(document)
            else:
                yield (
                    document,
                    split_document(document, corpus=corpus, target_tokens=passage_tokens),
                )

    with workspace.open_store(create=True) as store, store.transaction():
        outcome = store.add_documents(corpus, split(), licence=licence)
        if outcome.done + outcome.unchanged == 0:
            first = problems[0] if problems else None
            raise CorpusError(
                f"No document could be read for corpus '{corpus}'"
                + (
                    f": {first.reason}."
                    if first
                    else ": the paths hold no .txt, .md, .html, .pdf or .jsonl file."
                ),
                where=str(first.path if first else paths[0]),
                remedy="give text documents, or a folder that holds some",
            )
    tally.done, tally.unchanged, tally.failed = outcome.done, outcome.unchanged, len(problems)
    document = tally.document(
        corpus=corpus,
        rejected=[
            {"file": str(p.path), "line": p.line, "id": p.id, "reason": p.reason} for p in problems
        ],
    )
    words = [
        f"corpus '{corpus}': {outcome.done} documents read, {outcome.unchanged} unchanged, {len(problems)} unusable"
    ]
    words += [f"unusable: {p.path}: {p.reason}" for p in problems[:10]]
    words += ["next: stepgold index"] if outcome.done else []
    return Outcome(document, "\n".join(words), INCOMPLETE if problems else OK, json_output)


@app.command("list")
def list_(ctx: typer.Context, json_output: Json = False) -> Outcome:
    """List the corpora with their size and licence."""
    workspace: Workspace = ctx.obj
    with workspace.open_store() as store:
        found = store.corpora()
    rows = [
        {"corpus": c.name, "documents": c.documents, "passages": c.passages, "licence": c.licence}
        for c in found
    ]
    words = "\n".join(
        f"{c.name}: {c.documents} documents, {c.passages} passages, licence {c.licence or 'not given'}"
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
    json_output: Json = False,
) -> Outcome:
    """Remove a corpus; evidence already attached to problems stays readable."""
    workspace: Workspace = ctx.obj
    tally = Tally("corpus remove", None)
    with workspace.open_store() as store:
        store.remove_corpus(name)
    tally.done = 1
    return Outcome(
        tally.document(corpus=name),
        f"corpus '{name}' removed; next: stepgold index",
        as_json=json_output,
    )
