"""`stepgold best-of-n`: what a labeler's scores are worth for choosing among candidates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import Json, Resamples, Seed
from stepgold.candidates import Candidates, from_files, from_workspace
from stepgold.outcome import Outcome
from stepgold.results import INCOMPLETE, OK
from traces.errors import InputError

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder

LISTED = 5
"""Score rows named to a person; all of them stand in the JSON document."""


def best_of_n(
    ctx: typer.Context,
    n: Annotated[
        str, typer.Option("--n", "-n", help="How many candidates to choose from, e.g. 8,32.")
    ],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="A dataset: traces of a problem are candidates.")
    ] = None,
    labeler: Annotated[
        str | None, typer.Option("--labeler", help="The labeler whose step scores choose.")
    ] = None,
    pool: Annotated[
        Path | None, typer.Option("--pool", help="Instead: a file of candidates.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option("--scores", help="With --pool: a file of their step scores.")
    ] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option("--subset", help="With --dataset: only traces of it; may be repeated."),
    ] = None,
    expected: Annotated[
        bool,
        typer.Option(
            "--expected", help="Over all subsets of size N, ties shared, not the first N."
        ),
    ] = False,
    normalise_answers: Annotated[
        bool,
        typer.Option(
            "--normalise-answers", help="5.00, $5 and 5 are one answer in the majorities."
        ),
    ] = False,
    seed: Seed = 0,
    resamples: Resamples = 2000,
    json_output: Json = False,
) -> Outcome:
    """Best-of-N by min, product, last and mean score, beside majorities, pass@N and mean accuracy."""
    ns = parse_ns(n)
    found, name, source = _candidates(ctx.obj, dataset, labeler, pool, scores, tuple(subset or ()))
    from evaluation.best_of_n import evaluate_best_of_n
    from labeling import normal_answer

    report = evaluate_best_of_n(
        found.pools,
        ns,
        over_subsets=expected,
        normalise=normal_answer if normalise_answers else None,
        seed=seed,
        resamples=resamples,
    )
    document = source | report.as_json() | found.as_json() | {"normalised": normalise_answers}
    words = [report.table(name), *found.words(LISTED)]
    code = INCOMPLETE if found.rejected else OK
    return Outcome(document, "\n".join(words), code, json_output)


def parse_ns(text: str) -> list[int]:
    """`8,32` as numbers, each once.

    Raises:
        InputError: it is no list of numbers from 1 on.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 10**6 for part in parts):
        raise InputError(
            f"'{text}' is no list of numbers from 1 on.", where="-n", remedy="write -n 8,32"
        )
    return list(dict.fromkeys(map(int, parts)))


def _candidates(
    workspace: WorkspaceFolder,
    dataset: str | None,
    labeler: str | None,
    pool: Path | None,
    scores: Path | None,
    subsets: tuple[str, ...],
) -> tuple[Candidates, str, dict[str, str]]:
    """The candidates of one of the two forms, a name for them, and the document's words for it."""
    if dataset and labeler and not (pool or scores):
        with workspace.open_store() as store:
            found = from_workspace(store, dataset, labeler, subsets)
        return found, labeler, {"dataset": dataset, "labeler": labeler}
    if pool and scores and not (dataset or labeler or subsets):
        return from_files(pool, scores), scores.name, {"pool": str(pool), "scores": str(scores)}
    raise InputError(
        "Best-of-N needs a dataset and a labeler, or a pool and its scores.",
        remedy="give --dataset and --labeler, or --pool and --scores",
    )
