"""Consensus: combine the labels of a judge, a Monte Carlo labeler, PRMs and experts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from labeling import ConsensusConfig
from stepgold.console import note
from stepgold.labeling_run import label_missing, source_of
from stepgold.options import LabelingOptions
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import counted
from traces import (
    AbstentionReason,
    InputError,
    Labeler,
    LabelerKind,
    Need,
    defaults_of,
    option,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from labeling import (
        FilterCounts,
        FirstErrorPosterior,
        LabelerAnalysis,
        NamedFirstErrors,
        TraceFilters,
    )
    from stepgold.workspace import WorkspaceFolder
    from storage import LabelArrays, Store, TraceColumns
    from traces import LabeledTrace, TraceInContext, TraceLabel

AT_ONCE = 1000
"""Traces whose labels are held at once."""
_Part = tuple[dict[str, dict[str, "TraceLabel"]], Collection[str], dict[str, "TraceLabel"]]
"""Labels by labeler and trace, the traces, and their consensus."""
_Expert = tuple[str, Mapping[str, "TraceLabel"]]
"""Name of the expert, and the answers by trace."""


class ConsensusOptions(ConsensusConfig, LabelingOptions):
    """Which labelers are combined, and how."""

    name: str = option(default="consensus", metavar="NAME", help="Name of the consensus labeler.")
    judge: str | None = option(
        default=None, metavar="LABELER", help="The judge's labeler, beside --mc."
    )
    mc: str | None = option(
        default=None, metavar="LABELER", help="The Monte Carlo labeler, beside --judge."
    )
    labelers: Sequence[str] = option(
        default=(),
        metavar="A,B,C",
        help="Any labelers instead of --judge and --mc, separated by commas.",
    )
    anchor: str | None = option(
        default=None,
        metavar="LABELER",
        help="bayes: a labeler taken as the truth on the traces that it labeled (gold, an expert).",
        needs=Need("--rule bayes", lambda config: config.rule == "bayes"),
    )
    expert: str | None = option(
        default=None,
        metavar="LABELER",
        help="hybrid, bayes: an expert who decides the steps that are left open; others stay.",
        needs=Need(
            "--rule hybrid or --rule bayes", lambda config: config.rule in ("hybrid", "bayes")
        ),
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """The labelers that are combined."""
        if self.judge is not None and self.mc is not None:
            return (self.judge, self.mc)
        return tuple(name for each in self.labelers for name in each.split(",") if name)

    def check(self) -> None:
        """Refuse labelers that do not fit the rule, each other, or the name.

        Raises:
            InputError: fewer than two labelers, one of them twice, both ways of naming them, or a
                name that one of them has.
        """
        super().check()
        pair = (self.judge, self.mc)
        if any(pair) and (self.labelers or not all(pair)):
            raise InputError(
                "--judge and --mc go together, and not with --labelers.",
                remedy="give --judge NAME --mc NAME, or --labelers A,B,C",
            )
        if len(self.sources) < 2:
            raise InputError(
                "A consensus needs at least two labelers.",
                remedy="give --judge NAME --mc NAME, or --labelers A,B,C",
            )
        self._check_names()
        if self.rule == "hybrid" and self.judge is None:
            raise InputError(
                "The rule hybrid compares a judge's verdicts with Monte Carlo estimates.",
                remedy="name them with --judge and --mc, or choose --rule majority or bayes",
            )

    def _check_names(self) -> None:
        twice = [name for name, count in Counter(self.sources).items() if count > 1]
        if twice:
            raise InputError(
                f"Cannot compare '{twice[0]}' with itself.", remedy="name different labelers"
            )
        if self.name in (*self.sources, self.anchor, self.expert):
            raise InputError(
                f"The consensus cannot be named '{self.name}', like a labeler it is made from.",
                remedy="choose another --name",
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class ConsensusResult(LabelingResult):
    """What was agreed on, and how far the labelers cover and contradict each other."""

    sources: tuple[str, ...]
    """The labelers."""
    analysis: LabelerAnalysis
    """Coverage, overlap, conflict, and what the consensus keeps of each."""
    filters: FilterCounts
    """What the quality filters removed, over all stored labels of the consensus."""
    fit: FirstErrorPosterior | None = None
    """`bayes`: the estimated confusions; None for other rules, or where nothing was missing."""
    steps: Mapping[str, int] = field(default_factory=dict)
    """`hybrid`, or with an expert: `total`, `confident`, `uncertain` (those that the expert decided
    included), `expert_verified` and `unlabelled` steps; empty for other rules."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the analysis, the filters and the fit of `bayes`."""
        rows = {
            row.labeler: {
                "coverage": row.coverage,
                "overlap": row.overlap,
                "conflict": row.conflict,
            }
            for row in self.analysis.rows
        }
        fit = {} if self.fit is None else {"fit": fit_as_json(self.fit)}
        steps = {"steps": dict(self.steps)} if self.steps else {}
        filters = {"filters": self.filters.as_json()}
        return super().as_json() | {"analysis": rows} | steps | filters | fit

    def words(self) -> str:
        """The counts, the table, and the estimated confusions."""
        lines = [super().words()]
        if self.failed:
            traces = counted(self.failed, "trace")
            names = ", ".join(f"'{name}'" for name in self.sources)
            lines.append(f"not labeled by all of {names}: {traces}")
        lines.append(self.analysis.table())
        if self.steps:
            counts = ", ".join(
                f"{count} {name.replace('_', ' ')}" for name, count in self.steps.items()
            )
            lines.append(f"steps: {counts}")
        if self.filters.removed:
            lines += ["", self.filters.table()]
        if self.fit is not None:
            lines += ["", *_confusion_lines(self.fit)]
        return "\n".join(lines)


def fit_as_json(fit: FirstErrorPosterior) -> dict[str, Any]:
    """The estimate without the posteriors of the traces."""
    return {
        "identified": fit.identified,
        "rounds": fit.rounds,
        "no_error": {group: round(share, 6) for group, share in fit.no_error.items()},
        "confusions": {
            group: {name: each.as_json() for name, each in labelers.items()}
            for group, labelers in fit.confusions.items()
        },
    }


def _confusion_lines(fit: FirstErrorPosterior) -> Iterator[str]:
    """A table of the estimated rates."""
    cells = [["subset", "labeler", "false alarm", "missed", "early", "late"]]
    for group, labelers in fit.confusions.items():
        for name, each in labelers.items():
            rates = (each.false_alarm, each.missed, each.early, each.late)
            cells.append([group, name, *(f"{rate:.3f}" for rate in rates)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        texts = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join(texts + numbers)


def consensus(workspace: WorkspaceFolder, options: ConsensusOptions) -> ConsensusResult:
    """Combine the labels of two or more labelers; disagreement is an abstention, not a failure.

    Raises:
        InputError: a labeler does not exist or has no labels yet.
    """
    from labeling import FilterCounts, analyze_parts

    dataset, tally = options.dataset, Tally("consensus", options.dataset, options.name)
    with workspace.open_store() as store:
        for name in (*options.sources, *filter(None, [options.anchor, options.expert])):
            _require_labels(store, dataset, name)
        labeler = Labeler(
            options.name, LabelerKind.CONSENSUS, options.as_dict() | _provenance(store, options)
        )
        # A trace that a labeler has not reached yet must not be stored as a disagreement.
        within = frozenset(store.labels.labeled_ids(dataset, options.sources))
        posteriors = _Posteriors(store, options, within) if options.rule == "bayes" else None
        filters = _Filters(store, options, within, posteriors)
        label_missing(
            store,
            tally,
            labeler,
            partial(_agree, store, options, posteriors, filters),
            options=options,
            within=within,
        )
        agreed = bool(tally.done or tally.unchanged)
        removed, kept, steps = Counter[str](), Counter[bool](), Counter[str]()
        parts = _parts(store, options, steps if agreed else None)
        analysis = analyze_parts(_counting(parts, removed=removed, kept=kept))
    return ConsensusResult(
        **tally.figures(),
        sources=options.sources,
        analysis=analysis,
        filters=FilterCounts.of(kept[True], removed),
        fit=None if posteriors is None else posteriors.fit,
        steps={} if options.rule != "hybrid" and options.expert is None else _step_counts(steps),
    )


def _provenance(store: Store, options: ConsensusOptions) -> dict[str, Any]:
    """The labelers in the configuration, by role or in a list."""
    source = partial(source_of, store, options.dataset)
    found: dict[str, Any] = {}
    if options.anchor is not None:
        found["anchor"] = source(options.anchor)
    if options.expert is not None:
        found["expert"] = source(options.expert)
    if options.judge is not None and options.mc is not None:
        return found | {"judge": source(options.judge), "mc": source(options.mc)}
    return found | {"labelers": [source(name) for name in options.sources]}


class _Posteriors:
    """The posterior of every trace that all labelers labeled, fitted when the first is needed."""

    def __init__(self, store: Store, options: ConsensusOptions, within: Collection[str]) -> None:
        self.fit: FirstErrorPosterior | None = None
        self.text: tuple[str, str] | None = None
        self._store, self._options, self._within = store, options, within
        self._row: dict[str, int] = {}

    def of(self, context: TraceInContext) -> list[float]:
        """The posterior of each step as the first error, and last of none."""
        if self.fit is None:
            self._estimate()
        if self.fit is None:
            raise InputError("There is no trace to estimate from.")
        row = self.fit.probabilities[self._row[context.trace.id]]
        return [float(p) for p in row[: len(context.trace.steps) + 1]]

    def _estimate(self) -> None:
        from labeling import first_error_posterior

        dataset, names = self._options.dataset, self._options.sources
        anchor = self._options.anchor
        pages = [page for page in self._store.traces.columns(dataset) if page.ids]
        table = _Table.read(self._store, dataset, (*names, *filter(None, [anchor])), pages)
        keep = table.rows_of(self._within)
        self._row = {table.ids[row]: place for place, row in enumerate(keep.tolist())}
        self.fit = first_error_posterior(
            table.steps[keep],
            [table.named(name, keep) for name in names],
            groups=[table.subsets[row] for row in keep.tolist()],
            anchor=None if anchor is None else table.named(anchor, keep),
        )
        if not self.fit.identified:
            note(
                "Two labelers without an anchor: where they differ, the data cannot show which one"
                " is right. Add a third labeler, or some traces labeled by an expert with --anchor."
            )
        stored = json.dumps(fit_as_json(self.fit), sort_keys=True)
        self.text = (hashlib.sha256(stored.encode()).hexdigest(), stored)


@dataclass(frozen=True)
class _Table:
    """What labelers say of all traces of a dataset, without texts."""

    ids: list[str]
    subsets: list[str]
    steps: NDArray[Any]
    labels: dict[str, tuple[NDArray[Any], ...]]
    """Per labeler whether it names a first error, which, its scores, and where it has some."""

    @classmethod
    def read(
        cls, store: Store, dataset: str, names: Sequence[str], pages: Sequence[TraceColumns]
    ) -> _Table:
        """The labels of these labelers, page by page."""
        import numpy as np

        longest = max((int(page.n_steps.max(initial=0)) for page in pages), default=0)
        parts: dict[str, list[tuple[NDArray[Any], ...]]] = {name: [] for name in names}
        for page in pages:
            for name in names:
                found = store.labels.columns_of(dataset, name, page)
                parts[name].append(_padded(found, page, longest))
        columns = {
            name: tuple(np.concatenate(each) for each in zip(*some, strict=True))
            for name, some in parts.items()
        }
        return cls(
            ids=[one for page in pages for one in page.ids],
            subsets=[one for page in pages for one in page.subsets],
            steps=np.concatenate([page.n_steps for page in pages]),
            labels=columns,
        )

    def rows_of(self, ids: Collection[str]) -> NDArray[Any]:
        """The rows of these traces, in the order of import."""
        import numpy as np

        return np.array([row for row, one in enumerate(self.ids) if one in ids], np.int64)

    def named(self, name: str, rows: NDArray[Any]) -> NamedFirstErrors:
        """One labeler's part, of these rows."""
        from labeling import NamedFirstErrors

        given, index, scores, scored = (column[rows] for column in self.labels[name])
        if not scored.any():
            return NamedFirstErrors(name=name, given=given, index=index)
        return NamedFirstErrors(name=name, given=given, index=index, scores=scores, scored=scored)


def _padded(found: LabelArrays, page: TraceColumns, longest: int) -> tuple[NDArray[Any], ...]:
    """A labeler's labels on all traces of a page: given, index, scores, scored."""
    import numpy as np

    count = len(page.ids)
    given, index = np.zeros(count, bool), page.n_steps.copy()
    scores = np.zeros((count, longest), np.float32)
    scored = np.zeros((count, longest), bool)
    rows = np.flatnonzero(np.isin(page.keys, found.keys))
    missing, has, first = found.first_errors()
    given[rows] = ~missing
    index[rows] = np.where(has, first, page.n_steps[rows])
    lengths = np.diff(found.offsets)
    owner = np.repeat(rows, lengths)
    place = np.arange(len(owner)) - np.repeat(found.offsets[:-1], lengths)
    scores[owner, place], scored[owner, place] = found.scores, found.scored
    return given, index, scores, scored


def _agree(
    store: Store,
    options: ConsensusOptions,
    posteriors: _Posteriors | None,
    filters: _Filters,
    contexts: Iterable[TraceInContext],
) -> Iterator[LabeledTrace]:
    """The stage, with the labels of some traces at a time."""
    from labeling import agree_on

    for chunk, labels, expert in _with_labels(store, options, contexts):
        found = agree_on(
            chunk,
            labels,
            config=options,
            posterior=None if posteriors is None else posteriors.of,
            filters=filters.ready(),
            expert=expert,
        )
        for one in found:
            # The estimate is kept once, under its hash, as prompts are.
            text = None if posteriors is None else posteriors.text
            yield (
                one
                if text is None
                else replace(
                    one,
                    label=replace(one.label, meta={**one.label.meta, "fit": text[0][:16]}),
                    prompt=text,
                )
            )


def _with_labels(
    store: Store, options: ConsensusOptions, contexts: Iterable[TraceInContext]
) -> Iterator[tuple[list[TraceInContext], dict[str, dict[str, TraceLabel]], _Expert | None]]:
    """Some traces at a time, with the labels to combine by role or labeler, and the expert's."""
    contexts = iter(contexts)
    roles = ("judge", "mc") if options.judge is not None else options.sources
    while chunk := list(islice(contexts, AT_ONCE)):
        ids = [context.trace.id for context in chunk]
        labels = {
            role: store.labels.load(options.dataset, name, ids)
            for role, name in zip(roles, options.sources, strict=True)
        }
        name = options.expert
        expert = None if name is None else (name, store.labels.load(options.dataset, name, ids))
        yield chunk, labels, expert


class _Filters:
    """The quality filters; those that compare traces see every trace that can be labeled first."""

    def __init__(
        self,
        store: Store,
        options: ConsensusOptions,
        within: Collection[str],
        posteriors: _Posteriors | None,
    ) -> None:
        self._store, self._options, self._within = store, options, within
        self._posteriors = posteriors
        self._ready: TraceFilters | None = None

    def ready(self) -> TraceFilters:
        """The filters, after they saw what they have to see."""
        from labeling import TraceFilters

        if self._ready is None:
            self._ready = TraceFilters(self._options)
            if self._ready.compares:
                self._show(self._ready)
        return self._ready

    def _show(self, filters: TraceFilters) -> None:
        from labeling import QualityFilters, agree_on

        store, options = self._store, self._options
        plain = options.but(**defaults_of(QualityFilters))
        posterior = None if self._posteriors is None else self._posteriors.of
        contexts = store.traces.contexts(options.dataset, with_evidence=False)
        inside = (context for context in contexts if context.trace.id in self._within)
        for chunk, labels, expert in _with_labels(store, options, inside):
            agreed = agree_on(chunk, labels, config=plain, posterior=posterior, expert=expert)
            for context, one in zip(chunk, agreed, strict=True):
                if one.label.abstention is None:
                    own = (of.get(context.trace.id) for of in labels.values())
                    filters.see(context, one.label, tuple(filter(None, own)))


def _counting(
    parts: Iterable[_Part], *, removed: Counter[str], kept: Counter[bool]
) -> Iterator[_Part]:
    """The parts, unchanged, while what each filter removed is counted."""
    for labels, ids, agreed in parts:
        for label in agreed.values():
            reason = None if label.abstention is None else label.abstention.reason
            if reason is AbstentionReason.FILTERED:
                removed[label.meta.get("filter", "filtered")] += 1
            kept[reason is None] += 1
        yield labels, ids, agreed


def _parts(store: Store, options: ConsensusOptions, steps: Counter[str] | None) -> Iterator[_Part]:
    """The labels to analyze, of some traces at a time, while the steps of the consensus are
    counted; without `steps` there is no consensus."""
    dataset = options.dataset
    for page in store.traces.columns(dataset, size=AT_ONCE):
        labels = {name: store.labels.load(dataset, name, page.ids) for name in options.sources}
        consensus = {}
        if steps is not None:
            consensus = store.labels.load(dataset, options.name, page.ids)
            for id, length in zip(page.ids, page.n_steps.tolist(), strict=True):
                if id in consensus:
                    steps.update(_step_states(consensus[id], length))
        yield labels, set().union(*labels.values()), consensus


def _step_states(label: TraceLabel, length: int) -> Iterator[str]:
    """For each step whether it is `confident`, `expert_verified`, `uncertain` or `unlabelled`."""
    verified = set(label.meta.get("expert_verified_steps", ()))
    for index in range(length):
        step = label.step_labels[index] if label.step_labels else None
        why = label.abstention if step is None else step.abstention
        if step is not None and step.verdict is not None:
            yield "expert_verified" if index in verified else "confident"
        else:
            open_ = why is not None and why.reason is AbstentionReason.UNCERTAIN
            yield "uncertain" if open_ else "unlabelled"


def _step_counts(states: Counter[str]) -> dict[str, int]:
    """The counts as a case states them: an expert's step was uncertain before."""
    return {
        "total": states.total(),
        "confident": states["confident"],
        "uncertain": states["uncertain"] + states["expert_verified"],
        "expert_verified": states["expert_verified"],
        "unlabelled": states["unlabelled"],
    }


def _require_labels(store: Store, dataset: str, name: str) -> None:
    """Refuse a labeler without any labels."""
    known = {row.labeler.name: row for row in store.labels.labelers(dataset)}
    store.labels.labeler(dataset, name)
    if not known[name].traces:
        command = {LabelerKind.JUDGE: "judge", LabelerKind.MC: "continue", LabelerKind.PRM: "score"}
        run = command.get(known[name].labeler.kind, "import scores")
        raise InputError(
            f"Labeler '{name}' has no labels in dataset '{dataset}' yet.",
            remedy=f"run stepgold {run} first",
        )
