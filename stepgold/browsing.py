"""Look through all traces of a workspace: filter, sort and page, live while others write.

What can be filtered or sorted is held in memory, and follows the database by the labels that were
stored since the last look. Texts stay in the database; a text is searched for in slices, so that
no request takes long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from stepgold.label_arrays import (
    DatasetArrays,
    LabelerFigures,
    Opinion,
    SelectedTraces,
    TraceQuery,
    gold_of,
)
from stepgold.showing import ShowOptions, ShowResult, shown_in
from traces import AbstentionReason, InputError, StoreError

if TYPE_CHECKING:
    from formats import EncodedImage
    from stepgold.workspace import WorkspaceFolder
    from storage import CallSpending, ClaimSummary, Store, StoredLabeler, StoredLabels, TraceRow
    from traces import Failure, RejectedRow

T = TypeVar("T")

PAGE = 50
"""Rows of a page."""
LOOK_EVERY_S = 1.0
"""How often the database is looked at."""
SEARCH_S = 0.08
"""How long one request searches texts."""
SLICE = 2000
"""Most traces whose texts are searched at a time."""


@dataclass(frozen=True, slots=True)
class ListedTrace:
    """A row of the table."""

    row: TraceRow
    place: str
    """Its place in the order, for `TraceQuery.after` and `before`."""
    opinions: tuple[Opinion, ...]
    """One per labeler of the dataset."""


@dataclass(frozen=True, slots=True)
class TracePage:
    """A page of the table."""

    query: TraceQuery
    """The query with its defaults filled in."""
    traces: tuple[ListedTrace, ...]
    total: int
    """Traces that meet all conditions but the text."""
    before: str | None
    """Place of its first row if there may be earlier ones."""
    after: str | None
    """Place of its last row, or where a search stopped; None if there are no later ones."""
    searched: float | None
    """Share of the traces that a search for a text has passed; None if it is at an end."""


@dataclass(frozen=True, slots=True)
class DatasetFigures:
    """A dataset at a glance."""

    name: str
    traces: int
    steps: int
    subsets: Mapping[str, int]
    """Traces by subset."""
    labelers: tuple[LabelerFigures, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """What was spent, what runs, and what failed outside the labels."""

    spending: tuple[CallSpending, ...]
    """Calls by model and purpose."""
    running: tuple[ClaimSummary, ...]
    """What commands work on now."""
    rejected: tuple[tuple[str, RejectedRow], ...]
    """The first rejected rows of files, each with its dataset."""
    failures: tuple[tuple[str, Failure], ...]
    """The last failures, each with its dataset."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What was known at one moment; never changed, so that a request may read it together."""

    datasets: Mapping[str, DatasetArrays] = field(default_factory=dict)
    labelers: Mapping[str, Mapping[int, StoredLabeler]] = field(default_factory=dict)
    """By dataset and key of the labeler."""
    stamp: int = 0
    version: int | None = None
    last: int = 0
    """The largest key of a label that was read."""
    last_at: str | None = None
    """When that label was stored."""
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    def kept(self, name: Hashable, make: Callable[[], T]) -> T:
        """What was made of this moment before, or is made now."""
        if name not in self._kept:
            self._kept[name] = make()
        found: T = self._kept[name]
        return found


class Browser:
    """A workspace that is looked through; a context manager. Safe to share between threads."""

    def __init__(self, workspace: WorkspaceFolder) -> None:
        """Nothing is opened yet."""
        self._workspace = workspace
        self._now = _Snapshot()
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.fault: StoreError | None = None
        """Why the database could not be read when it was last looked at."""

    def __enter__(self) -> Self:
        """Open the database and follow it.

        Raises:
            StoreError: it cannot be opened.
        """
        self.store: Store = self._workspace.open_store()
        self._thread = threading.Thread(target=self._follow, name="stepgold-browser", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self.store.close()

    @property
    def name(self) -> str:
        """Name of the workspace's folder."""
        return self._workspace.folder.resolve().name

    @property
    def stamp(self) -> int:
        """A number that grows when what is shown may have changed."""
        return self._now.stamp

    def wait_until_read(self, seconds: float) -> bool:
        """Whether all labels were read once, waiting at most these seconds for it."""
        return self._ready.wait(seconds)

    def _follow(self) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            started = time.monotonic()
            try:
                self.refresh()
                self.fault = None
            except StoreError as fault:  # e.g. locked for long; the pages say so
                self.fault = fault
            # A database that changes all the time is not to be read all the time.
            pause = max(LOOK_EVERY_S, 4 * (time.monotonic() - started))

    def refresh(self) -> None:
        """Take over what changed in the database; for one thread at a time.

        Raises:
            StoreError: it cannot be read.
        """
        now, version = self._now, self.store.browsing.version()
        if self._ready.is_set() and version is not None and version == now.version:
            return
        labelers = self.store.browsing.labelers()
        datasets = self._read_traces()
        named: dict[str, dict[int, StoredLabeler]] = {name: {} for name in datasets}
        for key, each in labelers.items():
            named.setdefault(each.dataset, {})[key] = each
        last = self._read_labels(datasets, named)
        if self._over.is_set():
            return
        self._now = _Snapshot(datasets, named, stamp=now.stamp + 1, version=version, last=last)
        self._ready.set()

    def _read_traces(self) -> dict[str, DatasetArrays]:
        found = {}
        for size in self.store.browsing.traces():
            old = self._now.datasets.get(size.dataset)
            if old is not None and old.stamp == size:
                found[size.dataset] = old.shared()
            else:
                columns = self.store.traces.columns(size.dataset)
                found[size.dataset] = DatasetArrays.of(columns, size)
        return found

    def _read_labels(
        self,
        datasets: Mapping[str, DatasetArrays],
        labelers: Mapping[str, Mapping[int, StoredLabeler]],
    ) -> int:
        """Add the labels that are new; read those of a labeler again if some are gone.

        Returns:
            the largest key that was read.
        """
        until = max((x.last for each in labelers.values() for x in each.values()), default=0)
        touched: set[int] = set()
        last = self._now.last
        if last and self.store.browsing.made_at(last) != self._now.last_at:
            # SQLite gives the keys of the newest labels again when they were removed.
            last = 0
            for traces in datasets.values():
                traces.labels = {}
        while part := self._part(last, until):
            last = part.last
            for name, traces in datasets.items():
                traces.take(part, labelers[name], touched)
        for name, traces in datasets.items():
            held, traces.labels = traces.labels, {}
            for key, each in labelers[name].items():
                labels, after = held.get(key), 0
                if labels is not None and labels.rows == each.rows:
                    traces.labels[key] = labels
                    continue
                while part := self._part(after, until, labeler=key):
                    after = part.last
                    traces.take(part, {key: each}, touched)
        return max(last, until)

    def _part(self, after: int, until: int, *, labeler: int | None = None) -> StoredLabels | None:
        if self._over.is_set():
            return None
        return self.store.browsing.labels_after(after, until=until, labeler=labeler)

    # Reading

    def datasets(self) -> list[DatasetFigures]:
        """Every dataset with its labelers and their figures, in the order of import."""
        now = self._now
        return now.kept("datasets", lambda: self._figures(now))

    def _figures(self, now: _Snapshot) -> list[DatasetFigures]:
        found = []
        for name, traces in now.datasets.items():
            labelers = now.labelers[name]
            gold = traces.labels.get(gold_of(labelers) or 0)
            found.append(
                DatasetFigures(
                    name,
                    traces=len(traces.keys),
                    steps=int(traces.steps.sum()),
                    subsets=traces.subset_counts(),
                    labelers=tuple(
                        labels.figures(each.labeler, gold)
                        for key, each in labelers.items()
                        if (labels := traces.labels.get(key)) is not None
                    ),
                )
            )
        return found

    def reasons(self, dataset: str, labeler: str) -> dict[AbstentionReason, int]:
        """Traces on which, or on a step of which, a labeler abstained, by reason.

        Raises:
            InputError: there is no such dataset.
        """
        now, (traces, labelers) = self._now, self._dataset(dataset)
        keys = [key for key, each in labelers.items() if each.labeler.name == labeler]
        if not keys:
            return {}
        return now.kept((dataset, labeler), lambda: traces.reason_counts(keys[0]))

    def page(self, query: TraceQuery, *, size: int = PAGE) -> TracePage:
        """A page of traces.

        Raises:
            InputError: there is no such dataset, subset, labeler or place.
        """
        traces, labelers = self._dataset(query.dataset)
        selection = SelectedTraces(traces, query, labelers)
        stopped, searched = None, None
        if query.text:
            found, stopped, searched = self._search(selection, traces, query.text, size + 1)
        else:
            found = selection.first(size + 1).tolist()
        more = len(found) > size
        found = found[:size]
        far = found[-1] if more else stopped
        has_near = bool(found) and (query.after or query.before) is not None
        near = found[0] if has_near else None
        if selection.sign < 0:
            found, near, far = found[::-1], far, near
        keys = traces.keys[found].tolist()
        rows = {row.key: row for row in self.store.browsing.rows(keys)}
        before, after = (None if at is None else selection.name_of(at) for at in (near, far))
        listed = tuple(
            ListedTrace(rows[key], selection.name_of(at), selection.opinions(at))
            for at, key in zip(found, keys, strict=True)
            if key in rows
        )
        return TracePage(
            selection.query,
            listed,
            total=selection.total,
            before=before,
            after=after,
            searched=searched,
        )

    def _search(
        self, selection: SelectedTraces, traces: DatasetArrays, text: str, size: int
    ) -> tuple[list[int], int | None, float | None]:
        """Places of traces with a text, where the search stopped, and the share it has passed."""
        found: list[int] = []
        ordered, at, count = selection.ordered(), 0, 64
        until = time.monotonic() + SEARCH_S
        while at < len(ordered) and len(found) < size:
            started = time.monotonic()
            places = ordered[at : at + count].tolist()
            keys = traces.keys[places].tolist()
            hits = self.store.browsing.containing(keys, text)
            found += [place for place, key in zip(places, keys, strict=True) if key in hits]
            at += len(places)
            # Short texts are searched many at a time, long ones a few.
            quick = time.monotonic() - started < SEARCH_S / 8
            count = min(SLICE, count * 2) if quick else max(8, count // 2)
            if time.monotonic() > until:
                break
        if at >= len(ordered) or len(found) >= size:
            return found, None, None
        left = (len(ordered) - at) / selection.total
        return found, int(ordered[at - 1]), 1.0 - left

    def _dataset(self, name: str) -> tuple[DatasetArrays, Mapping[int, StoredLabeler]]:
        now = self._now
        if name not in now.datasets:
            names = ", ".join(now.datasets)
            raise InputError(
                f"There is no dataset '{name}'.",
                remedy=f"there are: {names}" if names else "import one with: stepgold import",
            )
        return now.datasets[name], now.labelers[name]

    def trace(self, dataset: str, trace: str, *, labeler: str | None = None) -> ShowResult:
        """A trace with its evidence and every labeler's view; one labeler's work in full.

        Raises:
            InputError: there is no such dataset, trace or labeler.
        """
        known = self._dataset(dataset)[1]
        options = ShowOptions(trace, dataset=dataset)
        try:
            labelers = [each.labeler for each in known.values()]
            return shown_in(self.store, options, labelers, full=labeler)
        except InputError:  # a labeler may have gone since the last look
            stored = self.store.browsing.labelers().values()
            labelers = [each.labeler for each in stored if each.dataset == dataset]
            return shown_in(self.store, options, labelers, full=labeler)

    def ledger(self, *, limit: int = 200) -> Ledger:
        """What was spent, what runs, and at most `limit` failures of a kind."""
        store = self.store
        return Ledger(
            tuple(store.replies.spending()),
            tuple(store.claims.live(at=time.time())),
            tuple(store.browsing.rejected(limit)),
            tuple(store.browsing.failures(limit)),
        )

    def image(
        self, dataset: str, problem: str, number: int, *, folder: Path
    ) -> tuple[EncodedImage, bool] | None:
        """An image of a problem, and whether it may show who the patient is.

        Args:
            dataset: the dataset.
            problem: id of the problem.
            number: 0-based place among its images.
            folder: the folder that holds all images.

        Returns:
            None if the problem has no such image.

        Raises:
            ToolkitError: it cannot be read, or is outside the folder.
        """
        found = self.store.browsing.problem(dataset, problem)
        if found is None or not 0 <= number < len(found[0]):
            return None
        from formats import load_image

        image = load_image(found[0][number], folder)
        return image, found[1] or image.may_show_patient
