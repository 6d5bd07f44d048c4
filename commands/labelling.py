"""Run a labeler over what is still missing, committing every trace as it is done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from commands.console import note, progress
from commands.outcome import Tally
from traces.errors import BudgetExhausted, InputError, ModelRefused, QuotaExhausted

if TYPE_CHECKING:
    from storage import Store
    from traces.context import TraceInContext
    from traces.labels import Labeler, TraceLabel
    from traces.records import Continuation


@dataclass(frozen=True, slots=True)
class Labelled:
    """One trace as a labeler left it, ready to be stored."""

    label: TraceLabel
    """The labeler's word."""
    continuations: tuple[Continuation, ...] = ()
    """MC: the continuations behind it."""
    resolved_model: str | None = None
    """The model version that answered; None if none did."""


LabelStage = Callable[[Iterable["TraceInContext"]], Iterator[Labelled]]
"""A stage: contexts in, labelled traces out, in any order."""


def label_missing(
    store: Store,
    tally: Tally,
    labeler: Labeler,
    stage: LabelStage,
    *,
    limit: int | None,
    replace: bool,
    within: Collection[str] | None = None,
) -> Tally:
    """Let `labeler` label the traces of the dataset that it has no stored word on.

    Every trace is committed as it is done, so that a kill loses nothing that was finished.
    A stop by budget, quota or a refused key keeps what is done; before the first commit a
    refusal or an exhausted quota is raised instead, because then nothing was kept.
    Traces outside `within` (None: all are inside) cannot be labelled yet: they stay missing.
    """
    dataset = str(tally.dataset)
    asked = [
        context.trace.id for context in store.contexts(dataset, with_evidence=False, limit=limit)
    ]
    declared = _is_declared(store, dataset, labeler, replace=replace)
    unlabelled = set(store.unlabeled_trace_ids(dataset, labeler.name)) if declared else set(asked)
    missing: Sequence[str] = [trace_id for trace_id in asked if trace_id in unlabelled]
    tally.unchanged = len(asked) - len(missing)
    if within is not None:
        inside = [trace_id for trace_id in missing if trace_id in within]
        tally.failed = len(missing) - len(inside)
        missing = inside
    if not missing:
        return tally
    contexts = store.contexts(dataset, trace_ids=missing)
    try:
        for labelled in progress(stage(contexts), total=len(missing), label=tally.command):
            with store.transaction():
                if not declared:
                    # Only now: a refused key must neither leave an empty labeler behind nor,
                    # under --replace, have dropped the labels of the old one.
                    store.declare_labeler(dataset, labeler, replace=replace)
                store.put_labels(
                    dataset,
                    labeler.name,
                    [labelled.label],
                    resolved_model=labelled.resolved_model,
                    continuations=labelled.continuations,
                )
            declared = True
            tally.count([labelled.label])
    except (BudgetExhausted, QuotaExhausted, ModelRefused) as stop:
        stored = tally.done + sum(tally.abstained.values())
        if not stored and not isinstance(stop, BudgetExhausted):
            raise
        tally.stopped = stop
        tally.failed += len(missing) - stored
        note(str(stop))
    return tally


def _is_declared(store: Store, dataset: str, labeler: Labeler, *, replace: bool) -> bool:
    """Whether the dataset has this very labeler; another one of its name is refused or replaced.

    Raises:
        InputError: the name belongs to another configuration, and `replace` is not given.
    """
    if all(row.labeler.name != labeler.name for row in store.labelers(dataset)):
        return False
    try:
        store.declare_labeler(dataset, labeler)
    except InputError:
        if not replace:
            raise
        return False
    return True
