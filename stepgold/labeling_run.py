"""Run a labeler over the traces it has not labeled yet, committing labels as they come."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from stepgold.claims import Share
from stepgold.console import note, progress
from stepgold.outcome import Tally
from stepgold.results import counted
from stepgold.versions import ModelTruth
from traces import (
    BudgetExhausted,
    InputError,
    LabeledTrace,
    LabelerKind,
    ModelChanged,
    ModelRefused,
    ModelUnavailable,
    QuotaExhausted,
    ToolkitError,
    problem_windows,
)

if TYPE_CHECKING:
    from stepgold.clusters import ActorPool
    from stepgold.options import LabelingOptions
    from storage import Store
    from traces import Labeler, TraceInContext, TraceLabel


STOPS = (BudgetExhausted, QuotaExhausted, ModelRefused, ModelChanged, ModelUnavailable)
"""Errors that end a run early; labels stored so far are kept."""
EVIDENCE_KEY = "retrieval"
"""Key of a labeler's configuration: how its evidence was retrieved."""
COMMIT_EVERY_S = 0.25
"""Labels of this many seconds share a transaction: a commit costs more than a label."""


LabelStage = Callable[[Iterable["TraceInContext"]], Iterator[LabeledTrace]]
"""A stage: contexts in, labeled traces out, in any order."""
_TOGETHER = 500
"""Traces asked for in one query, whole problems."""


class Reading(Protocol):
    """The order and cost of traces, for a stage to which they are not all alike."""

    @property
    def whole(self) -> bool:
        """Whether the labels of a group are stored together or not at all."""

    def groups(self, trace_ids: Sequence[str]) -> Iterable[Sequence[str]]:
        """These traces in the order in which the stage reads them, in groups."""

    def work(self, trace_ids: Sequence[str]) -> Mapping[str, float]:
        """The cost of each trace, in any unit; the remaining time is estimated from it."""


class LabelWriter:
    """Stores labels in groups, at most a quarter of a second old; a context manager.

    A kill loses no paid reply: replies are in the ledger, and labels are made from them again.
    """

    def __init__(
        self,
        share: Share,
        tally: Tally,
        labeler: Labeler,
        *,
        declared: bool,
        replace: bool = False,
        also: Callable[[Sequence[TraceLabel]], None] | None = None,
    ) -> None:
        """Nothing is written yet.

        Args:
            share: the claims on the traces, and the store.
            tally: counts what was stored.
            labeler: who labels.
            declared: whether the store already has exactly this labeler.
            replace: whether it replaces another labeler of the same name.
            also: called with the labels, in the transaction that stores them.
        """
        self._also = also
        self.whole = False
        """Whether the labels up to a `last_of_batch` are stored together or not at all."""
        self._share, self._store, self._tally, self._labeler = share, share.store, tally, labeler
        self._declared, self._replace = declared, replace
        self._waiting: list[LabeledTrace] = []
        self._written_at = time.monotonic()

    def __enter__(self) -> LabelWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.whole:
            self.flush()

    def write(self, labeled: LabeledTrace) -> None:
        """Queue a label; store the queue if its oldest label is due."""
        self._waiting.append(labeled)
        due = not self.whole and time.monotonic() - self._written_at >= COMMIT_EVERY_S
        if labeled.last_of_batch or due:
            self.flush()

    def flush(self) -> None:
        """Store the queued labels, all or none."""
        ready, self._waiting = self._waiting, []
        if ready:
            self._put(ready)
        self._written_at = time.monotonic()

    def _put(self, ready: Sequence[LabeledTrace]) -> None:
        dataset = str(self._tally.dataset)
        with self._store.transaction():
            held = self._share.settle([each.label.trace_id for each in ready])
            ready = [each for each in ready if each.label.trace_id in held]
            if not ready:
                return
            # Only now: a refused key must neither leave an empty labeler behind nor, under
            # --replace, have dropped the labels of the old one.
            if self._declared:  # and not removed or replaced by another command meanwhile
                self._store.labels.labeler(dataset, self._labeler.name)
            self._store.labels.declare(
                dataset, self._labeler, replace=self._replace and not self._declared
            )
            self._store_labels(dataset, ready)
        self._declared = True
        self._tally.count([each.label for each in ready])

    def _store_labels(self, dataset: str, ready: Sequence[LabeledTrace]) -> None:
        labels = [each.label for each in ready]
        versions = {each.resolved_model for each in ready if each.resolved_model}
        self._store.labels.put(
            dataset,
            self._labeler.name,
            labels,
            resolved_model=", ".join(sorted(versions)) or None,
            continuations=[one for each in ready for one in each.continuations],
        )
        for sha256, text in {each.prompt for each in ready if each.prompt is not None}:
            self._store.replies.put_prompt(sha256, text)
        votes = [vote for each in ready for vote in each.votes]
        if votes:
            self._store.labels.votes.put(dataset, self._labeler.name, votes)
        if self._also is not None:
            self._also(labels)


def label_missing(
    store: Store,
    tally: Tally,
    labeler: Labeler,
    stage: LabelStage,
    *,
    options: LabelingOptions,
    within: Collection[str] | None = None,
    truth: ModelTruth | None = None,
    reading: Reading | None = None,
) -> Tally:
    """Label the traces of the dataset that `labeler` has no stored label for.

    Labels are committed as they come, so that a kill loses nothing that was paid for. A stop by
    budget, quota, a refused key or another model version keeps what is stored; before the first
    commit it is raised instead (except for the budget), because then nothing was kept.

    Args:
        store: where traces and labels are.
        tally: counts the outcome; names the dataset.
        labeler: who labels.
        stage: makes the labels.
        options: limit and replacement.
        within: the traces that can be labeled now, others stay missing; None for all.
        truth: checks which model version answers; None for no check.
        reading: order and cost of the traces; None for the order of import, all alike.
    """
    dataset = str(tally.dataset)
    asked = list(islice(store.traces.ids(dataset), options.limit))
    declared = _is_declared(store, dataset, labeler, replace=options.replace)
    missing: Sequence[str] = asked
    if declared:
        unlabelled = set(store.labels.unlabeled_trace_ids(dataset, labeler.name))
        missing = [trace_id for trace_id in asked if trace_id in unlabelled]
        _tell_failures(store, dataset, labeler.name, set(asked) - unlabelled)
    tally.unchanged = len(asked) - len(missing)
    if within is not None:
        inside = [trace_id for trace_id in missing if trace_id in within]
        tally.failed = len(missing) - len(inside)
        missing = inside
    if not missing:
        return tally
    if truth is not None and declared:
        truth.expect(store, dataset, labeler.name)
    with share_traces(store, tally, labeler) as share:
        _tell_other_budgets(share, options)
        label_traces(
            share,
            tally,
            labeler,
            stage,
            trace_ids=missing,
            writer=LabelWriter(share, tally, labeler, declared=declared, replace=options.replace),
            truth=truth,
            reading=reading,
        )
    return tally


def share_traces(
    store: Store,
    tally: Tally,
    labeler: Labeler,
    *,
    stamps: Mapping[str, str | None] | None = None,
) -> Share:
    """A share of a labeler's traces; a context manager.

    Args:
        store: where they are.
        tally: names the command and the dataset.
        labeler: who labels.
        stamps: `store.labels.stamps` of labels that are to be replaced; a trace that was labeled
            since is done. None: a trace is done once it has a label.
    """
    from storage import Workload

    dataset, before = str(tally.dataset), stamps or {}

    def still_open(trace_ids: Sequence[str]) -> list[str]:
        found = store.labels.stamps(dataset, labeler, trace_ids)
        return [trace_id for trace_id, stamp in found.items() if stamp == before.get(trace_id)]

    return Share(store, tally.command, Workload(dataset, labeler.name), still_open)


def _tell_other_budgets(share: Share, options: LabelingOptions) -> None:
    """Note that a budget is one command's, if another one is at work on the same labeler."""
    from stepgold.options import BudgetOptions

    others = share.others() if isinstance(options, BudgetOptions) and options.budget else ""
    if others:
        note(f"The budget is of this command alone; {others} spends on the same labeler as well.")


def _tell_failures(store: Store, dataset: str, name: str, there: Collection[str]) -> None:
    """Note how many stored labels are failures that only `retry` asks again."""
    failed = {
        failure.id
        for _, failure in store.labels.failures.load(dataset)
        if failure.stage == name and failure.retryable and failure.id in there
    }
    if failed:
        note(f"{counted(len(failed), 'trace')} of '{name}' failed earlier: run `stepgold retry`.")


def label_traces(
    share: Share,
    tally: Tally,
    labeler: Labeler,
    stage: LabelStage,
    *,
    trace_ids: Sequence[str],
    writer: LabelWriter,
    truth: ModelTruth | None = None,
    reading: Reading | None = None,
) -> None:
    """Let a stage label these traces and store its labels; `label_missing` says what ends it.

    Traces that other commands label meanwhile are waited for, and counted as unchanged.
    """
    how: dict[str, Any] = {"total": len(trace_ids), "label": tally.command}
    if reading is not None:
        work = reading.work(trace_ids)
        writer.whole = reading.whole
        how |= {"work": lambda one: work[one.label.trace_id], "total_work": sum(work.values())}

    def labeled() -> Iterator[LabeledTrace]:
        for ids in share.rounds(trace_ids):
            groups = ([each] for each in ids) if reading is None else reading.groups(ids)
            yield from stage(_claimed(share, str(tally.dataset), groups, labeler))
            writer.flush()  # before looking at what is left

    try:
        with writer:
            for one in progress(labeled(), **how):
                if truth is not None:
                    truth.see_label(labeler.model, one.resolved_model)
                writer.write(one)
    except STOPS as stop:
        others = share.done_by_others(trace_ids)
        tally.unchanged += others
        _stopped(tally, stop, asked=len(trace_ids) - others)
        return
    tally.unchanged += share.done_by_others(trace_ids)


def _claimed(
    share: Share, dataset: str, groups: Iterable[Sequence[str]], labeler: Labeler
) -> Iterator[TraceInContext]:
    """The traces that could be claimed, claimed as the stage asks for them."""
    # A consensus is made of labels.
    with_evidence = labeler.kind is not LabelerKind.CONSENSUS
    for ids in share.chunks(groups):
        found = {
            context.trace.id: context
            for context in share.store.traces.contexts(
                dataset, trace_ids=ids, with_evidence=with_evidence
            )
        }
        yield from (found[each] for each in ids if each in found)


def _stopped(tally: Tally, stop: ToolkitError, *, asked: int) -> None:
    """Count what a stop left missing; raise the stop if nothing was stored."""
    stored = tally.done + sum(tally.abstained.values())
    if not stored and not isinstance(stop, BudgetExhausted):
        raise stop
    tally.stopped = stop
    tally.failed += asked - stored
    note(str(stop))


def evidence_source(store: Store, dataset: str, labeler: Labeler) -> Labeler:
    """The labeler, with the retrieval settings of its evidence in its configuration.

    Evidence that was retrieved again with other settings then makes another labeler, so that its
    old verdicts do not count as done. A labeler that was stored before this key existed stays the
    same.
    """
    if any(
        row.labeler.name == labeler.name and _text(row.labeler.config) == _text(labeler.config)
        for row in store.labels.labelers(dataset)
    ):
        return labeler
    found = store.evidence.config(dataset)
    digest = None if found is None else hashlib.sha256(_text(found).encode()).hexdigest()[:16]
    return replace(labeler, config={**labeler.config, EVIDENCE_KEY: digest})


def source_of(store: Store, dataset: str, name: str) -> dict[str, Any]:
    """A labeler as a consensus records it: the hash changes if the labeler is replaced."""
    found = store.labels.labeler(dataset, name)
    made = json.dumps([found.kind, found.model, dict(found.config)], sort_keys=True)
    return {"labeler": name, "sha256": hashlib.sha256(made.encode()).hexdigest()[:16]}


def sources_in(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a consensus with this configuration was made from, as `source_of` records it."""
    named = (config.get(role) for role in ("judge", "mc", "anchor", "expert"))
    listed = config.get("labelers", ())
    return [source for source in (*named, *listed) if isinstance(source, dict)]


def _text(config: Mapping[str, Any]) -> str:
    return json.dumps(dict(config), sort_keys=True)


def _is_declared(store: Store, dataset: str, labeler: Labeler, *, replace: bool) -> bool:
    """Whether the dataset has exactly this labeler; a different one of its name is refused.

    Raises:
        InputError: the name belongs to another configuration, and `replace` is not given.
    """
    if all(row.labeler.name != labeler.name for row in store.labels.labelers(dataset)):
        return False
    try:
        store.labels.declare(dataset, labeler)
    except InputError:
        if not replace:
            raise
        return False
    return True


@dataclass(frozen=True, slots=True)
class ProblemByProblem:
    """Traces problem by problem, wherever in the dataset a problem's candidates are."""

    store: Store
    """Where they are."""
    dataset: str
    """Theirs."""
    measure: Callable[[Iterable[TraceInContext]], Mapping[str, float]]
    """What each trace will take, from its texts."""

    whole: ClassVar[bool] = False

    def groups(self, trace_ids: Sequence[str]) -> list[list[str]]:
        """Problems in the order of their first trace here, candidates in the order of import."""
        wanted = set(trace_ids)
        problems: dict[str, list[str]] = {}
        for context in self.store.traces.contexts(self.dataset, with_evidence=False):
            if context.trace.id in wanted:
                problems.setdefault(context.problem.id, []).append(context.trace.id)
        return list(problems.values())

    def contexts(self, trace_ids: Sequence[str]) -> Iterator[TraceInContext]:
        """The traces of `groups`, in that order."""
        problems = self.groups(trace_ids)
        if [each for ids in problems for each in ids] == list(trace_ids):
            # As most files are: no need to ask problem by problem.
            yield from self.store.traces.contexts(self.dataset, trace_ids=trace_ids)
            return
        for ids in _chunks(problems):
            found = {c.trace.id: c for c in self.store.traces.contexts(self.dataset, trace_ids=ids)}
            yield from (found[each] for each in ids if each in found)

    def work(self, trace_ids: Sequence[str]) -> Mapping[str, float]:
        """Operations, from the lengths of texts."""
        return self.measure(self.contexts(trace_ids))


def _chunks(problems: Iterable[list[str]]) -> Iterator[list[str]]:
    """Whole problems until there are some hundred traces."""
    chunk: list[str] = []
    for ids in problems:
        chunk += ids
        if len(chunk) >= _TOGETHER:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@dataclass(frozen=True, slots=True)
class Units:
    """Traces in units that one actor of a cluster labels at a time, stored whole or not at all.

    Units are cut from all traces that were asked for, never from those that are still missing: a
    run that goes on after a kill then gives the same units, and so the same labels to the last bit.
    """

    units: Sequence[Sequence[str]]
    """All traces in units, in order."""
    whole: ClassVar[bool] = True

    @classmethod
    def of(cls, store: Store, options: LabelingOptions, together: int) -> Units:
        """The traces in the order of import, a fixed number together."""
        ids = islice(store.traces.ids(options.dataset), options.limit)
        return cls(list(iter(lambda: list(islice(ids, together)), [])))

    @classmethod
    def of_windows(cls, store: Store, options: LabelingOptions, *, regrouped: bool) -> Units:
        """The windows that a PRM on one machine reads.

        Args:
            store: where the traces are.
            options: dataset and limit.
            regrouped: whether a problem's candidates come together wherever they are.
        """
        pairs = (
            pair
            for page in store.traces.columns(options.dataset)
            for pair in zip(page.ids, page.problem_ids, strict=True)
        )
        problems = dict(islice(pairs, options.limit))
        ids = list(problems)
        if regrouped:
            first = {problem: n for n, problem in reversed(list(enumerate(problems.values())))}
            ids.sort(key=lambda each: first[problems[each]])  # stable: in the order of import
        return cls(list(problem_windows(ids, problems.__getitem__)))

    def groups(self, trace_ids: Sequence[str]) -> Iterator[Sequence[str]]:
        """What is wanted of each unit."""
        wanted = set(trace_ids)
        for unit in self.units:
            if some := [each for each in unit if each in wanted]:
                yield some

    def work(self, trace_ids: Sequence[str]) -> Mapping[str, float]:
        """The same for all."""
        return dict.fromkeys(trace_ids, 1.0)

    def stage(self, pool: ActorPool) -> LabelStage:
        """A stage that labels on the actors, each of which returns the labels of a unit."""
        numbers = {each: number for number, unit in enumerate(self.units) for each in unit}

        def stage(contexts: Iterable[TraceInContext]) -> Iterator[LabeledTrace]:
            together = groupby(contexts, key=lambda context: numbers[context.trace.id])
            units = (list(unit) for _, unit in together)
            for labeled in pool.map(units, expected=len(self.units)):
                for number, one in enumerate(labeled, 1):
                    yield replace(one, last_of_batch=number == len(labeled))

        return stage
