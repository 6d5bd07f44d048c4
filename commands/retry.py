"""`stepgold retry`: ask again what can be retried, with the labelers' stored configurations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from commands.continue_ import TemplateFolder
from commands.options import AllowMixed, AllowPhi, BaseUrl, Budget, Concurrency, Json, Limit
from stepgold.again import (
    REVIVERS,
    RetryTerms,
    Revived,
    counted,
    faults_of,
    next_retry,
    was_held_back,
    was_shortened,
)
from stepgold.console import note
from stepgold.images import ImageOptions, ImagesFolder
from stepgold.labeling_run import STOPS, LabelWriter, label_traces
from stepgold.models import ModelTruth
from stepgold.outcome import FAULTS, NO_FAILURE, Outcome, Tally
from stepgold.scoring_run import ScoreStage
from stepgold.workspace import WorkspaceFolder
from traces.errors import BudgetExhausted, InputError, ToolkitError
from traces.labels import AbstentionReason, LabelerKind

if TYPE_CHECKING:
    from storage import LabelerSummary, Store
    from traces import TraceLabel


@dataclass(frozen=True, slots=True)
class Work:
    """What one labeler is asked again."""

    row: LabelerSummary
    """The labeler and its dataset."""
    groups: dict[int, list[str]]
    """Trace ids by the number of the retry they need."""
    left: int
    """Traces that nothing but another limit can help."""


def retry(
    ctx: typer.Context,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Only this dataset [default: all].")
    ] = None,
    labeler: Annotated[
        str | None, typer.Option("--labeler", help="Only this labeler [default: all].")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", min=1, help="Another limit of one reply; for a PRM, another window."
        ),
    ] = None,
    budget: Budget = None,
    service: Annotated[str, typer.Option("--service", help="Whose prices hold.")] = "standard",
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    template: TemplateFolder = None,
    images: ImagesFolder = None,
    allow_phi: AllowPhi = False,
    allow_mixed: AllowMixed = False,
    limit: Limit = None,
    json_output: Json = False,
) -> Outcome:
    """Ask again what failed or could not be read; a new word takes the abstention's place."""
    from inference import Purse

    workspace: WorkspaceFolder = ctx.obj
    purse, shown = Purse(budget), ImageOptions.of(workspace, images)
    tallies: list[Tally] = []
    with workspace.open_store() as store:
        changed = max_tokens is not None
        for work in _work(store, dataset, labeler, limit, changed=changed, allow_phi=allow_phi):
            terms = RetryTerms(
                max_tokens,
                purse,
                base_url,
                service,
                concurrency,
                template,
                allow_phi,
                ModelTruth(allow_mixed=allow_mixed),
                shown,
            )
            tally = _tally(work)
            tallies.append(tally)
            _retry(store, tally, work, terms, kept=any(map(_stored, tallies)))
    return _outcome(tallies, dataset, labeler, json_output)


def _work(
    store: Store,
    dataset: str | None,
    name: str | None,
    limit: int | None,
    *,
    changed: bool,
    allow_phi: bool,
) -> list[Work]:
    """What can be retried, labeler by labeler; one that is named has to exist."""
    if dataset is not None:
        store.traces.require_dataset(dataset)
    if name is not None:
        _require_labeler(store, dataset, name)
    found = []
    for row in store.labels.labelers(dataset):
        if row.labeler.kind not in REVIVERS or name not in (None, row.labeler.name):
            continue
        labels = store.labels.load(row.dataset, row.labeler.name).values()
        # another limit may also give back the documents that a PRM had no room for
        failed = [
            label
            for label in labels
            if faults_of(label)
            or (changed and was_shortened(label))
            or (allow_phi and was_held_back(label))
        ][:limit]
        groups: dict[int, list[str]] = defaultdict(list)
        for label in failed:
            # the same prompt is as long as it was: only another limit can make it fit
            if changed or AbstentionReason.OVER_LENGTH not in faults_of(label):
                groups[next_retry(label)].append(label.trace_id)
        if failed:
            left = len(failed) - sum(map(len, groups.values()))
            found.append(Work(row, dict(sorted(groups.items())), left))
    return found


def _require_labeler(store: Store, dataset: str | None, name: str) -> None:
    """A name with a slip must not look like a labeler that has nothing to retry."""
    if dataset is not None:
        store.labels.labeler(dataset, name)
        return
    known = sorted({row.labeler.name for row in store.labels.labelers()})
    if name not in known:
        remedy = f"known: {', '.join(known)}" if known else "there is none yet"
        raise InputError(f"There is no labeler '{name}'.", remedy=remedy)


def _tally(work: Work) -> Tally:
    judge = work.row.labeler.kind is LabelerKind.JUDGE
    return Tally(
        "retry",
        work.row.dataset,
        work.row.labeler.name,
        failed=work.left,
        harmless=NO_FAILURE - {AbstentionReason.UNCERTAIN} if judge else NO_FAILURE,
        step_faults=FAULTS if judge else frozenset(),
    )


def _retry(store: Store, tally: Tally, work: Work, terms: RetryTerms, *, kept: bool) -> None:
    """Ask one labeler again, group by group; what stops it leaves the later groups as they were."""
    row, waiting = work.row, [list(ids) for ids in work.groups.values()]
    terms.truth.expect(store, row.dataset, row.labeler.name)
    if work.left:
        note(f"{work.left} traces are too long as they are: give another --max-tokens.")

    def forget_consensus(labels: Sequence[TraceLabel]) -> None:
        _forget_consensus(store, row, [label.trace_id for label in labels])

    try:
        for number, trace_ids in work.groups.items():
            with ExitStack() as closing:
                revived = Revived(store, closing, row.labeler, terms, row.dataset)
                again = REVIVERS[row.labeler.kind](revived, number)
                stage = counted(again, number, terms.max_tokens)
                # a PRM computes once what a problem's candidates begin with
                reading = (
                    again.reading(store, row.dataset) if isinstance(again, ScoreStage) else None
                )
                writer = LabelWriter(
                    store, tally, row.labeler, declared=True, also=forget_consensus
                )
                label_traces(
                    store, tally, row.labeler, stage, trace_ids, writer, terms.truth, reading
                )
            waiting.pop(0)
            if tally.stopped is not None:
                break
    except STOPS as stop:
        if not kept and not isinstance(stop, BudgetExhausted):
            raise
        tally.stopped = stop
        note(str(stop))
    tally.failed += sum(map(len, waiting))


def _forget_consensus(store: Store, row: LabelerSummary, trace_ids: Sequence[str]) -> None:
    """A consensus that took the old word is missing again: the next `consensus` takes the new one."""
    for other in store.labels.labelers(row.dataset):
        sources = other.labeler.config.values()
        if other.labeler.kind is LabelerKind.CONSENSUS and any(
            isinstance(source, dict) and source.get("labeler") == row.labeler.name
            for source in sources
        ):
            store.labels.drop(row.dataset, other.labeler.name, trace_ids)


def _stored(tally: Tally) -> bool:
    return bool(tally.done or tally.abstained)


def _outcome(
    tallies: Sequence[Tally], dataset: str | None, labeler: str | None, as_json: bool
) -> Outcome:
    """One document over all labelers, with one for each inside."""
    total = Tally("retry", dataset, labeler)
    stops: list[ToolkitError] = []
    abstained: Counter[str] = Counter()
    for tally in tallies:
        total.done += tally.done
        total.failed += tally.failed
        abstained.update(tally.abstained)
        stops += [tally.stopped] if tally.stopped is not None else []
    total.abstained, total.stopped = abstained, stops[0] if stops else None
    if tallies:
        total.started = min(tally.started for tally in tallies)
    document = total.document(labelers=[tally.document() for tally in tallies])
    words = "\n".join(tally.sentence() for tally in tallies) or "There is nothing to retry."
    code = max((tally.exit_code for tally in tallies), default=0)
    return Outcome(document, words, code, as_json)
