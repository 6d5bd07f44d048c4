"""`stepgold consensus`: keep what judge and Monte-Carlo labeler agree on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from commands.labelling import Labelled, label_missing
from commands.options import Dataset, Json, Limit, Name, Replace
from commands.outcome import Outcome, Tally
from commands.workspace import Workspace
from traces.errors import InputError

if TYPE_CHECKING:
    from labeling.consensus import ConsensusConfig
    from storage import Store
    from traces.context import TraceInContext


def consensus(
    ctx: typer.Context,
    dataset: Dataset,
    judge: Annotated[str, typer.Option("--judge", help="The judge's labeler name.")],
    mc: Annotated[str, typer.Option("--mc", help="The Monte-Carlo labeler's name.")],
    rule: Annotated[str, typer.Option("--rule", help="strict or hybrid.")] = "strict",
    name: Name = "consensus",
    limit: Limit = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Agree on first errors; disagreement is no failure but an abstention with its reason."""
    from labeling.consensus import ConsensusConfig, require_rule
    from traces.labels import Labeler, LabelerKind

    config = ConsensusConfig(rule=require_rule(rule))
    workspace: Workspace = ctx.obj
    tally = Tally("consensus", dataset, name)
    with workspace.open_store() as store:
        _require_same_coverage(store, dataset, judge, mc)
        labeler = Labeler(
            name, LabelerKind.CONSENSUS, config.as_dict() | {"judge": judge, "mc": mc}
        )
        label_missing(
            store,
            tally,
            labeler,
            lambda contexts: _stage(store, dataset, contexts, judge, mc, config),
            limit=limit,
            replace=replace,
        )
    return Outcome(tally.document(), tally.sentence(), tally.exit_code, json_output)


def _require_same_coverage(store: Store, dataset: str, judge: str, mc: str) -> None:
    """A trace that one labeler has not reached yet must not be stored as a disagreement."""
    for role, name in (("judge", judge), ("mc", mc)):
        store.labeler(dataset, name)
        if len(store.unlabeled_trace_ids(dataset, name)) == store.datasets()[dataset].traces:
            raise InputError(
                f"Labeler '{name}' has no labels in dataset '{dataset}' yet.",
                remedy=f"run stepgold {'judge' if role == 'judge' else 'continue'} first",
            )


def _stage(
    store: Store,
    dataset: str,
    contexts: Iterable[TraceInContext],
    judge: str,
    mc: str,
    config: ConsensusConfig,
) -> Iterator[Labelled]:
    from labeling.pipeline import agree_on

    judge_labels, mc_labels = store.labels(dataset, judge), store.labels(dataset, mc)
    both = (c for c in contexts if c.trace.id in judge_labels and c.trace.id in mc_labels)
    for label in agree_on(both, judge_labels, mc_labels, config):
        yield Labelled(label)
