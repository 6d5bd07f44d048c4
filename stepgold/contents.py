"""What a workspace holds: datasets, labelers, what is missing, what was spent; and removal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stepgold.options import DatasetOptions
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import Result
from traces.config import Config, argument
from traces.labels import LabelerKind

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder
    from storage import CallSpending, DatasetCounts, LabelerSummary, Store
    from traces import RejectedRow

SHOWN_FAILURES = 20
"""Missing items shown to a person; the JSON document has all of them."""
PURPOSE = {LabelerKind.JUDGE: "judge", LabelerKind.MC: "continue"}
"""What calls say that they are for, by the kind of labeler that sends them."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A row that was rejected, or an item that a stage could not label."""

    id: str
    """Trace or problem id, or the place in the file; unique within a dataset only."""
    stage: str
    """Name of the labeler, or `import`."""
    reason: str
    """`rejected`, or the reason of the abstention."""
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
    """The same as a phrase."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a labeler will cost until it has labeled its dataset."""

    dataset: str
    """Its dataset."""
    labeler: str
    """Its name."""
    missing: int
    """Traces that it has not labeled."""
    usd: float | None
    """US dollars at the mean cost of a trace so far; None where no price is known."""


@dataclass(frozen=True, slots=True)
class Calls:
    """The ledger: what was spent, what the store saved, and what is still to come."""

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
            yield f"  {self.unpriced} calls have no known price and are not included"
        for each in self.forecast:
            cost = "" if each.usd is None else f", about {each.usd:.4f} USD"
            yield f"  to come: {each.dataset}/{each.labeler}: {each.missing} traces{cost}"


class StatusOptions(Config):
    """A status has no options."""


@dataclass(frozen=True, kw_only=True, repr=False)
class StatusResult(Result):
    """What is there, what is missing and why, and what was spent."""

    datasets: Mapping[str, DatasetCounts]
    """Size of every dataset, in order of import."""
    labelers: tuple[LabelerSummary, ...]
    """How much every labeler has labeled."""
    failures: tuple[Missing, ...]
    """Rejected rows, and what could not be labeled."""
    shortened: tuple[Shortened, ...]
    """Traces labeled without all their documents."""
    calls: Calls
    """What was spent."""
    batch_jobs: tuple[Mapping[str, Any], ...]
    """Batch jobs that have not finished."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document."""
        return {
            "datasets": {name: asdict(counts) for name, counts in self.datasets.items()},
            "labelers": list(self.rows()),
            "failures": [asdict(each) for each in self.failures],
            "shortened": [asdict(each) for each in self.shortened],
            "calls": asdict(self.calls) | {"forecast": [asdict(x) for x in self.calls.forecast]},
        } | ({"batch_jobs": [dict(job) for job in self.batch_jobs]} if self.batch_jobs else {})

    def rows(self) -> list[dict[str, Any]]:
        """One row per labeler."""
        return [_labeler_document(row) for row in self.labelers]

    def words(self) -> str:
        """Datasets, labelers, the first failures, jobs and spending, one per line."""
        lines = [
            f"{name}: {n.problems} problems, {n.traces} traces, {n.steps} steps"
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
        return "\n".join([*lines, *map(_job_line, self.batch_jobs), *self.calls.lines()])


def status(workspace: WorkspaceFolder, options: StatusOptions) -> StatusResult:
    """Show the datasets, labelers and failures of a workspace, and its ledger.

    Raises:
        StoreError: there is no workspace.
    """
    with workspace.open_store() as store:
        return StatusResult(
            datasets=store.traces.datasets(),
            labelers=tuple(store.labels.labelers()),
            failures=tuple(_failures(store)),
            shortened=tuple(_shortened(store)),
            calls=_calls(store),
            batch_jobs=tuple(_open_jobs(store)),
        )


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
        # Of a PRM on a server: how it compared with its checkpoint.
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
    for dataset, row in store.traces.rejected_rows():
        yield Missing(
            id=row.id or _place(row),
            stage="import",
            reason="rejected",
            retryable=False,
            dataset=dataset,
            detail=f"{_place(row)}: {row.reason}",
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
        created = datetime.fromtimestamp(job.created_at, UTC)
        yield {
            "name": job.name,
            "display_name": job.display_name,
            "model": job.model,
            "requests": job.requests,
            "outstanding": job.outstanding,
            "enqueued_tokens": job.tokens,
            "usd_at_most": job.usd,
            "created_at": created.isoformat(timespec="seconds"),
            "cancelled": job.cancelled_at is not None,
        }


def _job_line(job: Mapping[str, Any]) -> str:
    return (
        f"  batch job {job['name'] or job['display_name']} ({job['model']}): "
        f"{job['outstanding']} of {job['requests']} requests unanswered since "
        f"{job['created_at']}, at most {job['usd_at_most']:.4f} USD"
        + (", canceled" if job["cancelled"] else "")
    )


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
        input_tokens=sum(row.usage.input_tokens for row in spent),
        cached_tokens=sum(row.usage.cached_tokens for row in spent),
        output_tokens=sum(row.usage.output_tokens for row in spent),
        thinking_tokens=sum(row.usage.thinking_tokens for row in spent),
        forecast_usd=sum(each.usd for each in ahead if each.usd is not None),
        forecast=ahead,
        prices_as_of=PRICES_AS_OF.isoformat(),
    )


def _forecasts(store: Store, spent: Sequence[CallSpending]) -> Iterator[Forecast]:
    """What is missing of labelers that were paid for, at the mean cost of a trace so far.

    The mean is over all labelers of the same kind and model, failed calls included.
    """
    sizes, rows = store.traces.datasets(), store.labels.labelers()
    for row in rows:
        missing = sizes[row.dataset].traces - row.traces
        if missing and row.labeler.kind in PURPOSE and (calls := _calls_of(row, spent)):
            usd = _usd_per_trace(row, rows, calls)
            whole = None if usd is None else usd * missing
            yield Forecast(row.dataset, row.labeler.name, missing, whole)


def _calls_of(row: LabelerSummary, spent: Sequence[CallSpending]) -> list[CallSpending]:
    """The ledger's entries for the labeler's model and purpose."""
    purpose = PURPOSE[row.labeler.kind]
    return [each for each in spent if (each.model, each.purpose) == (row.labeler.model, purpose)]


def _usd_per_trace(
    row: LabelerSummary, rows: Sequence[LabelerSummary], calls: Sequence[CallSpending]
) -> float | None:
    same = (row.labeler.kind, row.labeler.model)
    traces = sum(each.traces for each in rows if (each.labeler.kind, each.labeler.model) == same)
    if not traces or all(each.unpriced == each.sent for each in calls):
        return None
    return sum(each.usd for each in calls) / traces


class RemoveDatasetOptions(Config):
    """Which dataset."""

    name: str = argument(kw_only=False, metavar="NAME", help="Name of the dataset.")


class RemoveLabelerOptions(DatasetOptions):
    """Which labeler of which dataset."""

    name: str = argument(kw_only=False, metavar="NAME", help="Name of the labeler.")


@dataclass(frozen=True, kw_only=True, repr=False)
class RemovalResult(LabelingResult):
    """What was removed."""

    def words(self) -> str:
        """One line."""
        if self.labeler is None:
            return f"dataset '{self.dataset}' removed"
        return f"labeler '{self.labeler}' removed from '{self.dataset}'"


def remove_dataset(workspace: WorkspaceFolder, options: RemoveDatasetOptions) -> RemovalResult:
    """Remove a dataset with all its labels; recorded model replies stay in the ledger.

    Raises:
        InputError: there is no such dataset.
    """
    tally = Tally("remove dataset", options.name)
    with workspace.open_store() as store:
        store.traces.remove_dataset(options.name)
    tally.done = 1
    return RemovalResult(**tally.figures())


def remove_labeler(workspace: WorkspaceFolder, options: RemoveLabelerOptions) -> RemovalResult:
    """Remove the labels of one labeler; recorded model replies stay in the ledger.

    Raises:
        InputError: there is no such dataset or labeler.
    """
    tally = Tally("remove labeler", options.dataset, options.name)
    with workspace.open_store() as store:
        store.labels.remove_labeler(options.dataset, options.name)
    tally.done = 1
    return RemovalResult(**tally.figures())
