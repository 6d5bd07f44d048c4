"""`stepgold consensus`: keep what judge and Monte-Carlo labeler agree on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.options import Dataset, Json, Limit, Name, Replace
from stepgold.labeling_run import Labelled, label_missing
from stepgold.outcome import Outcome, Tally
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError

if TYPE_CHECKING:
    from labeling import ConsensusConfig
    from storage import Store
    from traces import TraceInContext, TraceLabel


def consensus(
    ctx: typer.Context,
    dataset: Dataset,
    judge: Annotated[str, typer.Option("--judge", help="The judge's labeler name.")],
    mc: Annotated[str, typer.Option("--mc", help="The Monte-Carlo labeler's name.")],
    rule: Annotated[str, typer.Option("--rule", help="strict or hybrid.")] = "strict",
    after_first_error: Annotated[
        str,
        typer.Option(
            "--after-first-error", help="keep, or incorrect: every later step is wrong too."
        ),
    ] = "keep",
    name: Name = "consensus",
    limit: Limit = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Agree on first errors; disagreement is no failure but an abstention with its reason."""
    from labeling import ConsensusConfig, require_after_first_error, require_rule
    from traces import Labeler, LabelerKind

    _require_three_names(judge, mc, name)
    config = ConsensusConfig(
        rule=require_rule(rule), after_first_error=require_after_first_error(after_first_error)
    )
    workspace: WorkspaceFolder = ctx.obj
    tally = Tally("consensus", dataset, name)
    with workspace.open_store() as store:
        judge_labels = _labels(store, dataset, judge, "judge")
        mc_labels = _labels(store, dataset, mc, "continue")
        sources = {"judge": source_of(store, dataset, judge), "mc": source_of(store, dataset, mc)}
        labeler = Labeler(name, LabelerKind.CONSENSUS, config.as_dict() | sources)
        label_missing(
            store,
            tally,
            labeler,
            partial(_stage, judge_labels=judge_labels, mc_labels=mc_labels, config=config),
            limit=limit,
            replace=replace,
            # A trace that one labeler has not reached yet must not be stored as a disagreement.
            within=judge_labels.keys() & mc_labels.keys(),
        )
    words = tally.sentence()
    if tally.failed:
        words += f"\nnot labelled by both '{judge}' and '{mc}' yet: {tally.failed} traces"
    return Outcome(tally.document(), words, tally.exit_code, json_output)


def _require_three_names(judge: str, mc: str, name: str) -> None:
    """Nobody agrees with himself, and no consensus takes the place of what it is made from.

    Raises:
        InputError: two of the three are one.
    """
    if judge == mc:
        raise InputError(
            f"'{judge}' would be held against itself, and agree everywhere.",
            remedy="name two labelers with --judge and --mc",
        )
    if name in (judge, mc):
        raise InputError(
            f"The consensus cannot be called '{name}': it is made from the labels of that name.",
            remedy="give it another --name",
        )


def _labels(store: Store, dataset: str, name: str, command: str) -> dict[str, TraceLabel]:
    """What a labeler says; one that has said nothing yet is refused."""
    store.labels.labeler(dataset, name)
    labels = store.labels.load(dataset, name)
    if not labels:
        raise InputError(
            f"Labeler '{name}' has no labels in dataset '{dataset}' yet.",
            remedy=f"run stepgold {command} first",
        )
    return labels


def source_of(store: Store, dataset: str, name: str) -> dict[str, Any]:
    """Who is agreed with: a judge replaced under the same name is another one."""
    who = store.labels.labeler(dataset, name)
    made = json.dumps([who.kind, who.model, dict(who.config)], sort_keys=True)
    return {"labeler": name, "sha256": hashlib.sha256(made.encode()).hexdigest()[:16]}


def _stage(
    contexts: Iterable[TraceInContext],
    judge_labels: Mapping[str, TraceLabel],
    mc_labels: Mapping[str, TraceLabel],
    config: ConsensusConfig,
) -> Iterator[Labelled]:
    from labeling import agree_on

    yield from agree_on(contexts, judge_labels=judge_labels, mc_labels=mc_labels, config=config)
