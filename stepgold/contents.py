"""What a workspace holds: datasets, labelers, labels, failures, spending."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING, Any, NoReturn

from stepgold.console import printable
from stepgold.options import DatasetOptions
from stepgold.results import Result, counted
from stepgold.reviewing import ReviewFigures, review_figures
from traces import Config, LabelerKind, Need, StepLabel, Verdict, option

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder
    from storage import CallSpending, ClaimSummary, DatasetCounts, LabelerSummary, Store
    from traces import RejectedRow, TraceLabel

SHOWN_FAILURES = 20
"""Missing items shown to a person; the JSON document lists all."""
PURPOSE = {LabelerKind.JUDGE: "judge", LabelerKind.MC: "continue"}
"""The purpose recorded with calls, by kind of labeler."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A row that was rejected, or an item that a stage could not label."""

    id: str
    """Trace or problem id, or the place in the file; unique within a dataset only."""
    stage: str
    """Name of the labeler, or `import`."""
    reason: str
    """`rejected`, `unfinished`, `no_row` (imported scores), or the reason of the abstention."""
    retryable: bool
    """Whether `retry` can help."""
    dataset: str
    """Its dataset."""
    detail: str
    """One sentence; may be empty."""


@dataclass(frozen=True, slots=True)
class Shortened:
    """A trace that was labeled, but not with all its documents."""

    id: str
    """The trace."""
    dataset: str
    """Its dataset."""
    labeler: str
    """Who labeled it."""
    documents: int
    """Documents that were shown."""
    documents_dropped: int
    """Documents that did not fit."""
    detail: str
    """The counts as a phrase."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The expected cost of the traces that a labeler has not labeled."""

    dataset: str
    """Its dataset."""
    labeler: str
    """Its name."""
    missing: int
    """Traces that it has not labeled."""
    usd: float | None
    """US dollars at the mean cost of a trace so far; None if the price is unknown."""


@dataclass(frozen=True, slots=True)
class Calls:
    """The ledger: what was spent, saved by the store, and is expected."""

    sent: int
    """Calls sent to models."""
    cached: int
    """Calls answered from the store."""
    usd: float
    """US dollars spent on the calls with a known price."""
    saved_usd: float
    """US dollars that stored replies saved."""
    unpriced: int
    """Calls without a known price."""
    input_tokens: int
    """Tokens of the prompts, cached ones included."""
    cached_tokens: int
    """Prompt tokens that the service had cached."""
    output_tokens: int
    """Tokens written."""
    thinking_tokens: int
    """Tokens spent on thinking."""
    unpriced_usd: float
    """US dollars of the unpriced calls at the price of the model that was asked for, if it has one;
    not in `usd`. A budget holds at least this."""
    forecast_usd: float
    """Sum of the known forecasts."""
    forecast: tuple[Forecast, ...]
    """What unfinished labelers will cost."""
    prices_as_of: str
    """Date of the price list."""

    def lines(self) -> Iterator[str]:
        """The figures for a person."""
        yield (
            f"calls: {self.sent} sent, {self.cached} answered from the store, "
            f"{self.usd:.4f} USD spent, {self.saved_usd:.4f} USD saved"
        )
        if self.unpriced:
            like = ""
            if self.unpriced_usd:
                like = f"; at the price of the model asked for, {self.unpriced_usd:.4f} USD"
            yield f"  {self.unpriced} calls have no known price and are not included{like}"
        for each in self.forecast:
            cost = "" if each.usd is None else f", about {each.usd:.4f} USD"
            yield f"  to come: {each.dataset}/{each.labeler}: {each.missing} traces{cost}"


class StatusOptions(Config):
    """A status has no options."""


class StatusWatched(StatusOptions):
    """On the command line: whether to go on looking."""

    not_with_json = ("watch",)

    watch: bool = option(
        default=False, flags=("--watch",), help="Show it again and again, until Ctrl-C."
    )
    every: float = option(
        default=2.0,
        metavar="S",
        between=(0.1, 3600),
        help="Seconds between two looks; without a terminal at least 30.",
        needs=Need("--watch", lambda config: config.watch),
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class StatusResult(Result):
    """Datasets, labelers, failures and spending of a workspace."""

    datasets: Mapping[str, DatasetCounts]
    """Size of every dataset, in order of import."""
    labelers: tuple[LabelerSummary, ...]
    """How much every labeler has labeled."""
    failures: tuple[Missing, ...]
    """Rejected rows, and items that could not be labeled."""
    shortened: tuple[Shortened, ...]
    """Traces labeled without all their documents."""
    calls: Calls
    """What was spent."""
    batch_jobs: tuple[Mapping[str, Any], ...]
    """Batch jobs that have not finished."""
    claims: tuple[ClaimSummary, ...]
    """What running commands currently work on."""
    reviews: tuple[ReviewFigures, ...] = ()
    """The figures of every dataset that experts review."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document."""
        return {
            "datasets": {name: asdict(counts) for name, counts in self.datasets.items()},
            "labelers": list(self.rows()),
            "failures": [asdict(each) for each in self.failures],
            "shortened": [asdict(each) for each in self.shortened],
            "calls": asdict(self.calls) | {"forecast": [asdict(x) for x in self.calls.forecast]},
            "claims": [_claim_document(claim) for claim in self.claims],
            "reviews": [each.as_json() for each in self.reviews],
        } | ({"batch_jobs": [dict(job) for job in self.batch_jobs]} if self.batch_jobs else {})

    def rows(self) -> list[dict[str, Any]]:
        """One row per labeler."""
        return [_labeler_document(row) for row in self.labelers]

    def words(self) -> str:
        """Datasets, labelers, the first failures, jobs and spending, one per line."""
        lines = [
            f"{name}: {counted(n.problems, 'problem')}, {counted(n.traces, 'trace')},"
            f" {counted(n.steps, 'step')}"
            for name, n in self.datasets.items()
        ]
        lines += [_labeler_line(row, self.datasets[row.dataset].traces) for row in self.labelers]
        lines += _first(
            [
                f"  missing: {each.dataset}/{each.id}: {each.stage}: {each.reason}"
                + (" (retryable)" if each.retryable else "")
                + (f": {each.detail}" if each.detail else "")
                for each in self.failures
            ]
        )
        lines += _first(
            [
                f"  shortened: {each.dataset}/{each.id}: {each.labeler}: {each.detail}"
                for each in self.shortened
            ]
        )
        lines += [line for each in self.reviews for line in each.lines()]
        lines += map(_claim_line, self.claims)
        return "\n".join([*lines, *map(_job_line, self.batch_jobs), *self.calls.lines()])


def status(workspace: WorkspaceFolder, options: StatusOptions) -> StatusResult:
    """Show the datasets, labelers and failures of a workspace, and its ledger.

    Raises:
        StoreError: there is no workspace.
    """
    with workspace.open_store() as store:
        figures = (review_figures(store, name) for name in store.traces.datasets())
        return StatusResult(
            datasets=store.traces.datasets(),
            reviews=tuple(each for each in figures if each is not None),
            labelers=tuple(store.labels.labelers()),
            failures=tuple(_failures(store)),
            shortened=tuple(_shortened(store)),
            calls=_calls(store),
            batch_jobs=tuple(_open_jobs(store)),
            claims=tuple(store.claims.live(at=time.time())),
        )


PLAIN_EVERY_S = 30.0
"""Without a terminal: seconds between two looks, at least."""


def status_watched(workspace: WorkspaceFolder, options: StatusWatched) -> StatusResult:
    """`status`, or with `watch` again and again until an interrupt.

    Raises:
        StoreError: there is no workspace.
        KeyboardInterrupt: the user has seen enough.
    """
    if options.watch:
        watch_status(workspace, every=options.every, wait=lambda s: Event().wait(s))
    return status(workspace, options)


def watch_status(
    workspace: WorkspaceFolder, *, every: float, wait: Callable[[float], object]
) -> NoReturn:
    """Show the status until `wait` raises; without a terminal, only the lines that changed.

    Args:
        workspace: the workspace.
        every: seconds between two looks.
        wait: waits this long, in seconds.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as screen:
            while True:
                head = f"{_clock()}, every {every:g} s; Ctrl-C ends"
                words = status(workspace, StatusOptions()).words()
                screen.update(Text(printable(f"{head}\n{words}")), refresh=True)
                wait(every)
    seen: set[str] = set()
    while True:
        lines = status(workspace, StatusOptions()).words().splitlines()
        for line in lines:
            if line not in seen:
                print(printable(f"{_clock()}  {line}"), flush=True)
        seen = set(lines)
        wait(max(every, PLAIN_EVERY_S))


def _clock() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")


def _first(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:SHOWN_FAILURES]
    if len(lines) > SHOWN_FAILURES:
        yield f"  ... and {len(lines) - SHOWN_FAILURES} more: --json lists them all"


def _labeler_document(row: LabelerSummary) -> dict[str, Any]:
    return {
        "dataset": row.dataset,
        "name": row.labeler.name,
        "kind": row.labeler.kind.value,
        "model": row.labeler.model,
        "resolved_model": row.labeler.resolved_model,
        "traces": row.traces,
        "steps": row.steps,
        "abstained": row.abstained,
        # For a PRM on a server: the comparison with its checkpoint.
        **({"parity": gate} if (gate := row.labeler.config.get("parity")) else {}),
    }


def _labeler_line(row: LabelerSummary, traces: int) -> str:
    labeler = row.labeler
    model = f", {labeler.resolved_model or labeler.model}" if labeler.model else ""
    line = (
        f"  {row.dataset}/{labeler.name} ({labeler.kind.value}{model}): {row.traces} of {traces}"
        f" traces, {row.steps} steps, {row.abstained} abstained"
    )
    if gate := labeler.config.get("parity"):
        line += (
            f"\n    compared with its checkpoint on {gate['traces']} traces: scores differ by at"
            f" most {gate['max_difference']:.2g}, first errors agree on"
            f" {gate['first_error_agreement']:.1%}"
        )
    return line


def _shortened(store: Store) -> Iterator[Shortened]:
    for trace in store.labels.shortened():
        size = "" if trace.tokens is None else f" in {trace.tokens} tokens"
        yield Shortened(
            id=trace.id,
            dataset=trace.dataset,
            labeler=trace.labeler,
            documents=trace.kept,
            documents_dropped=trace.dropped,
            detail=f"{trace.kept} of {trace.kept + trace.dropped} documents fit{size}",
        )


def _failures(store: Store) -> Iterator[Missing]:
    for dataset, name in store.traces.unfinished():
        yield Missing(
            id=name,
            stage="import",
            reason="unfinished",
            retryable=True,
            dataset=dataset,
            detail="the import was cut off; import the file again",
        )
    for dataset, row in store.traces.rejected_rows():
        yield Missing(
            id=row.id or _place(row),
            stage="import",
            reason="rejected",
            retryable=False,
            dataset=dataset,
            detail=f"{_place(row)}: {row.reason}",
        )
    for each in store.labels.labelers():
        if "files" not in each.labeler.config:  # imported scores name theirs
            continue
        for trace_id in store.labels.unlabeled_trace_ids(each.dataset, each.labeler.name):
            yield Missing(
                id=trace_id,
                stage=each.labeler.name,
                reason="no_row",
                retryable=False,
                dataset=each.dataset,
                detail="the imported scores have no usable row for this trace",
            )
    for dataset, failure in store.labels.failures.load():
        yield Missing(
            id=failure.id,
            stage=failure.stage,
            reason=failure.reason.value,
            retryable=failure.retryable,
            dataset=dataset,
            detail=failure.detail,
        )


def _place(row: RejectedRow) -> str:
    return row.file if row.line is None else f"{row.file}:{row.line}"


def _open_jobs(store: Store) -> Iterator[dict[str, Any]]:
    for job in store.replies.batch_jobs.alive():
        same = ("name", "display_name", "model", "requests", "outstanding")
        yield {name: getattr(job, name) for name in same} | {
            "enqueued_tokens": job.tokens,
            "usd_at_most": job.usd,
            "created_at": _utc(job.created_at),
            "cancelled": job.cancelled_at is not None,
        }


def _job_line(job: Mapping[str, Any]) -> str:
    return (
        f"  batch job {job['name'] or job['display_name']} ({job['model']}): "
        f"{job['outstanding']} of {job['requests']} requests unanswered since "
        f"{job['created_at']}, at most {job['usd_at_most']:.4f} USD"
        + (", canceled" if job["cancelled"] else "")
    )


def _claim_document(claim: ClaimSummary) -> dict[str, Any]:
    return asdict(claim) | {x: _utc(getattr(claim, x)) for x in ("started_at", "expires_at")}


def _claim_line(claim: ClaimSummary) -> str:
    work = f"{claim.dataset}/{claim.labeler}: {claim.items} {claim.unit}s in work by"
    who = f"(pid {claim.pid} on {claim.host}, since {_utc(claim.started_at)})"
    return f"  {work} {claim.command} {who}"


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _calls(store: Store) -> Calls:
    from inference import PRICES_AS_OF

    totals, spent = store.replies.totals(), store.replies.spending()
    ahead = tuple(_forecasts(store, spent))
    return Calls(
        sent=totals.sent,
        cached=totals.cached,
        usd=totals.usd,
        saved_usd=totals.saved_usd,
        unpriced=totals.unpriced,
        unpriced_usd=sum(map(_unpriced_usd, spent)),
        input_tokens=sum(row.usage.input_tokens for row in spent),
        cached_tokens=sum(row.usage.cached_tokens for row in spent),
        output_tokens=sum(row.usage.output_tokens for row in spent),
        thinking_tokens=sum(row.usage.thinking_tokens for row in spent),
        forecast_usd=sum(each.usd for each in ahead if each.usd is not None),
        forecast=ahead,
        prices_as_of=PRICES_AS_OF.isoformat(),
    )


def _unpriced_usd(row: CallSpending) -> float:
    """The cost of calls that a version without a price answered, at that of the model asked for."""
    from inference import ModelSpec, cost

    if not row.unpriced or row.unpriced < row.sent:  # tokens of both kinds are one sum
        return 0.0
    return cost(row.usage, ModelSpec.parse(row.model).name) or 0.0


def _forecasts(store: Store, spent: Sequence[CallSpending]) -> Iterator[Forecast]:
    """The expected cost of unfinished paid labelers, at the mean cost of a trace so far.

    The mean is over all labelers of the same kind and model, failed calls included.
    """
    sizes, rows = store.traces.datasets(), store.labels.labelers()
    for row in rows:
        missing = sizes[row.dataset].traces - row.traces
        if missing and row.labeler.kind in PURPOSE and (calls := calls_of(row, spent)):
            usd = usd_per_trace(row, rows, calls)
            whole = None if usd is None else usd * missing
            yield Forecast(row.dataset, row.labeler.name, missing, whole)


def calls_of(row: LabelerSummary, spent: Sequence[CallSpending]) -> list[CallSpending]:
    """The ledger's entries for the model and purpose of a labeler of `PURPOSE`."""
    purpose = PURPOSE[row.labeler.kind]
    return [each for each in spent if (each.model, each.purpose) == (row.labeler.model, purpose)]


def usd_per_trace(
    row: LabelerSummary, rows: Sequence[LabelerSummary], calls: Sequence[CallSpending]
) -> float | None:
    """The mean cost of a trace so far in US dollars, by all labelers of this kind and model; None
    without a trace or a known price."""
    same = (row.labeler.kind, row.labeler.model)
    traces = sum(each.traces for each in rows if (each.labeler.kind, each.labeler.model) == same)
    if not traces or all(each.unpriced == each.sent for each in calls):
        return None
    return sum(each.usd for each in calls) / traces


class LabelsOptions(DatasetOptions):
    """Whose labels."""

    labeler: str = option(metavar="NAME", help="Labeler in the dataset.")


@dataclass(frozen=True, kw_only=True, repr=False)
class LabelsResult(Result):
    """The labels of a labeler, one per labeled trace, in the order of import."""

    dataset: str
    """Name of the dataset."""
    labeler: str
    """Who labeled."""
    labels: tuple[TraceLabel, ...]
    """One per trace that was labeled or abstained from."""
    steps: Mapping[str, int]
    """How many steps these traces have, by trace id."""

    def __iter__(self) -> Iterator[TraceLabel]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def as_json(self) -> dict[str, Any]:
        """The counts and the rows."""
        return {
            "dataset": self.dataset,
            "labeler": self.labeler,
            "traces": len(self.labels),
            "labels": list(self.rows()),
        }

    def words(self) -> str:
        """The counts in one line."""
        abstained = sum(label.abstention is not None for label in self.labels)
        labeled = counted(len(self.labels) - abstained, "trace")
        return f"{self.labeler} on {self.dataset}: {labeled} labeled, {abstained} abstained"

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """One row per step of the labeled traces: verdict, score, or the reason for neither.

        Where a labeler named only a first error, the steps before it are correct and those after
        it have no verdict. An abstention from a whole trace is repeated on each of its steps.
        """
        for label in self.labels:
            for index, step in enumerate(_step_labels(label, self.steps[label.trace_id])):
                yield {
                    "trace_id": label.trace_id,
                    "step_index": index,
                    "verdict": None if step.verdict is None else step.verdict.value,
                    "score": step.score,
                    "abstention": None if step.abstention is None else step.abstention.reason.value,
                }

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def _step_labels(label: TraceLabel, steps: int) -> Sequence[StepLabel]:
    if label.step_labels:
        return label.step_labels
    if not label.first_error_given:
        return [StepLabel(abstention=label.abstention)] * steps
    correct = StepLabel(verdict=Verdict.CORRECT)
    if label.first_error_index is None:
        return [correct] * steps
    before = label.first_error_index
    wrong = StepLabel(verdict=Verdict.INCORRECT)
    return [*[correct] * before, wrong, *[StepLabel()] * (steps - before - 1)]


def labels(workspace: WorkspaceFolder, options: LabelsOptions) -> LabelsResult:
    """Read the labels of one labeler.

    Raises:
        InputError: unknown dataset or labeler.
    """
    with workspace.open_store() as store:
        store.traces.require_dataset(options.dataset)
        store.labels.labeler(options.dataset, options.labeler)
        found = store.labels.load(options.dataset, options.labeler)
        steps = {
            context.trace.id: len(context.trace.steps)
            for context in store.traces.contexts(options.dataset, with_evidence=False)
            if context.trace.id in found
        }
    return LabelsResult(
        dataset=options.dataset,
        labeler=options.labeler,
        labels=tuple(found.values()),
        steps=steps,
    )
