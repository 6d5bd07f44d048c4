"""Options of search and retrieve: how evidence is looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from traces.errors import InputError

if TYPE_CHECKING:
    from retrieval.config import RetrievalConfig

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
    from retrieval.config import RetrievalConfig

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
