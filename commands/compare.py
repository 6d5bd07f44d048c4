"""`stepgold compare`: labelers beside each other, and where they part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.evaluate import InSample, Subsets, Threshold
from commands.options import Dataset, Json, Resamples, Seed
from stepgold.outcome import Outcome
from stepgold.trials import ThresholdWish, compared_traces, known_gold, labeler_thresholds
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError

if TYPE_CHECKING:
    from evaluation.disagreements import Disputes
    from evaluation.step_words import WordTable
    from storage import Store

GoldOrNone = Annotated[
    str | None,
    typer.Option("--gold", help="The labeler taken as truth [default: gold, where there is one]."),
]


def compare(
    ctx: typer.Context,
    labelers: Annotated[list[str], typer.Argument(metavar="LABELER LABELER...")],
    dataset: Dataset,
    gold: GoldOrNone = None,
    threshold: Threshold = "0.5",
    in_sample: InSample = False,
    subset: Subsets = None,
    disagreements: Annotated[
        int, typer.Option("--disagreements", min=0, help="Traces to list where they part.")
    ] = 10,
    seed: Seed = 0,
    resamples: Resamples = 2000,
    json_output: Json = False,
) -> Outcome:
    """Agreement, kappa, alpha, correlation, first errors, and the steps on which labelers part."""
    _at_least_two(labelers)
    wish = ThresholdWish.parse(threshold, in_sample=in_sample)
    workspace: WorkspaceFolder = ctx.obj
    from evaluation.comparison import compare_labelers, comparison_words
    from evaluation.disagreements import disagreement_lines, find_disputes

    with workspace.open_store() as store:
        truth = known_gold(store, dataset, gold)
        everyone = list(dict.fromkeys([*labelers, *([] if truth is None else [truth])]))
        traces = compared_traces(store, dataset, everyone, tuple(subset or ()))
        limits = labeler_thresholds(store, dataset, traces, everyone, truth, wish)
        found = compare_labelers(
            traces,
            labelers,
            {name: limit.value for name, limit in limits.items()},
            gold=truth,
            seed=seed,
            resamples=resamples,
        )
        disputes = find_disputes(found.table)
        entries = _entries(store, dataset, found.table, disputes, disagreements)
    document = {
        "dataset": dataset,
        "gold": truth,
        **found.as_json(),
        "thresholds": {name: limits[name].as_json() for name in labelers},
        "resamples": resamples,
        "seed": seed,
        "disagreements_total": {"traces": len(disputes.traces), "steps": disputes.steps},
        "disagreements": entries,
    }
    words = [
        *comparison_words(found),
        *(
            f"threshold of {name}: {limits[name].value:.6g} from {limits[name].source}"
            for name in labelers
            if limits[name].fit is not None
        ),
        f"They part on {disputes.steps} steps of {len(disputes.traces)} traces; "
        f"{len(entries)} traces follow (--disagreements N for more).",
        *disagreement_lines(entries),
    ]
    return Outcome(document, "\n".join(words), as_json=json_output)


def _at_least_two(labelers: Sequence[str]) -> None:
    if len(labelers) < 2:
        raise InputError(
            "One labeler cannot be compared with itself.", remedy="name two labelers or more"
        )
    if len(set(labelers)) < len(labelers):
        twice = next(name for name in labelers if labelers.count(name) > 1)
        raise InputError(f"Labeler '{twice}' is named twice.", remedy="name each labeler once")


def _entries(
    store: Store, dataset: str, table: WordTable, disputes: Disputes, limit: int
) -> list[dict[str, Any]]:
    """The most disputed traces, with step texts and evidence."""
    from evaluation.disagreements import disagreement_json

    chosen = disputes.traces[:limit]
    if not chosen:
        return []
    contexts = {
        context.trace.id: context
        for context in store.traces.contexts(dataset, trace_ids=[one.trace_id for one in chosen])
    }
    return [disagreement_json(one, table, contexts[one.trace_id]) for one in chosen]
