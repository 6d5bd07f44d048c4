"""Options that several commands share, declared once so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepgold.models import parse_spec
from traces import InputError

if TYPE_CHECKING:
    from inference import ModelSpec
    from retrieval.search.config import RetrievalConfig


Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document.")]
Dataset = Annotated[str, typer.Option("--dataset", help="The dataset in the workspace.")]
LabelerName = Annotated[str, typer.Option("--labeler", help="The labeler in the dataset.")]


def _one_line(name: str) -> str:
    """Checked here: the store would refuse the name only after the first call was paid for."""
    if not name.strip() or "\n" in name or "\r" in name:
        raise typer.BadParameter("a name is one line that is not blank")
    return name


Name = Annotated[
    str,
    typer.Option("--name", callback=_one_line, help="The labeler's name in the dataset."),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Replace what is stored under this name by another.")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Only the first N traces: a pilot before spending."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Resamples = Annotated[
    int, typer.Option("--resamples", min=1, help="Bootstrap resamples of every interval.")
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="Server address; else from the environment.")
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="A sentence-transformers model, path or hub id [default: all-MiniLM-L6-v2].",
    ),
]
OutFile = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, help="Requests in flight at once [default: by back end]."),
]
AllowPhi = Annotated[
    bool,
    typer.Option("--allow-phi", help="Send problems marked phi_removed: false to a hosted model."),
]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed", help="Go on when another version of the model answers than before."
    ),
]
Budget = Annotated[
    float | None, typer.Option("--budget", min=0, help="Stop before spending more, USD.")
]


# --- Options that mean nothing beside the others given: refused, because ignoring them would


def refuse_idle(ctx: typer.Context, *parameters: str, without: str) -> None:
    """Refuse those of the parameters that stand on the command line.

    Defaults, those of a stepgold.toml included, are no order of the user's and stay unused.

    Args:
        ctx: the command that was called.
        parameters: names of its parameters that mean nothing now.
        without: the option that would give them a meaning, as a user writes it.

    Raises:
        InputError: one of them was given.
    """
    given = [name for name in parameters if _is_given(ctx, name)]
    if given:
        flags = [f"--{name.replace('_', '-')}" for name in given]
        it = "it" if len(flags) == 1 else "them"
        raise InputError(
            f"Without {without} nothing is done with {', '.join(flags)}.",
            where=flags[0],
            remedy=f"add {without}, or leave {it} out",
        )


def parse_policy(ctx: typer.Context, text: str) -> ModelSpec:
    """Parse the spec of a policy; refuse what is said about a server where it is behind none.

    Only what `openai:` names can be asked through /completions; models of this machine have no address.

    Raises:
        InputError: it is no spec, or `--template`, `--base-url` or `--concurrency` was given in vain.
    """
    policy = parse_spec(text)
    if policy.kind != "openai":
        refuse_idle(ctx, "template", without="--policy openai:MODEL")
    if policy.kind in {"hf", "lab"}:
        refuse_idle(ctx, "base_url", "concurrency", without="--policy openai:MODEL")
    return policy


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


# --- Options of search and retrieve: how evidence is looked for


Mode = Annotated[str, typer.Option("--mode", help="hybrid, dense or bm25.")]
FusionConstant = Annotated[
    int,
    typer.Option("--rrf-constant", min=1, help="Hybrid: the c of reciprocal rank fusion."),
]
Rerank = Annotated[
    str | None,
    typer.Option("--rerank", help="A cross-encoder (path or hub id) orders the best 50 anew."),
]
Mmr = Annotated[
    float | None,
    typer.Option("--mmr", min=0, max=1, help="Weight of relevance against novelty, e.g. 0.7."),
]
Quota = Annotated[
    list[str] | None,
    typer.Option("--quota", help="CORPUS=N: at least N passages from it. Repeatable."),
]
KeepDuplicates = Annotated[
    bool, typer.Option("--keep-duplicates", help="Keep near-duplicates of a better passage.")
]


def retrieval_config(
    *,
    k: int,
    mode: str,
    constant: int,
    rerank: str | None,
    mmr: float | None,
    quota: list[str] | None,
    keep_duplicates: bool,
    query: str = "problem",
) -> RetrievalConfig:
    """The options as a configuration.

    Raises:
        InputError: a value that means nothing.
    """
    from retrieval.search.config import RetrievalConfig

    return RetrievalConfig(
        k=k,
        mode=mode,
        constant=constant,
        rerank=rerank,
        mmr=mmr,
        quotas=_quotas(quota or []),
        unique=not keep_duplicates,
        query=query,
    )


def _quotas(given: list[str]) -> dict[str, int]:
    quotas: dict[str, int] = {}
    for entry in given:
        corpus, _, places = entry.rpartition("=")
        if not corpus or not places.isdecimal() or corpus in quotas:
            raise InputError(
                f"'{entry}' is no quota, or names a corpus twice.",
                remedy="write --quota CORPUS=N, once for each corpus",
            )
        quotas[corpus] = int(places)
    return quotas
