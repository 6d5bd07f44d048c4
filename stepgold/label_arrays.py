"""The traces and labels of a dataset as arrays: filtered, ordered and counted without the database.

About 20 bytes a trace and 13 a label. What a condition or an order needs is here; texts are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from traces import AbstentionReason, InputError, Labeler, LabelerKind, closest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from storage import StoredLabeler, StoredLabels, TraceColumns

Outcome = Literal["exact", "no_error", "early", "late", "missed", "false_alarm", "missing"]
"""What a labeler's first error is to the reference's, in the words of the report."""
OUTCOMES: tuple[Outcome, ...] = (
    "exact",
    "no_error",
    "early",
    "late",
    "missed",
    "false_alarm",
    "missing",
)
Sort = Literal["import", "low", "high", "short", "long", "first", "last"]
"""Order of import; lowest or highest step score; number of steps; place of the first error."""
SORTS: tuple[Sort, ...] = ("import", "low", "high", "short", "long", "first", "last")
NO_LABEL, OPEN, NO_ERROR, ERROR = range(4)
"""What a labeler says of a trace: nothing, nothing about the first error, none, or where."""
_BITS = {reason: 1 << code for code, reason in enumerate(AbstentionReason, 1)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceQuery:
    """Which traces, in which order. A condition that is None holds for all."""

    dataset: str
    """Name of the dataset."""
    subset: str | None = None
    """Its subset."""
    labeler: str | None = None
    """The labeler that the other conditions are about; None takes the first that is not gold."""
    against: str | None = None
    """What it is compared with; None takes gold."""
    outcome: Outcome | None = None
    """How their first errors compare."""
    reason: AbstentionReason | None = None
    """Why the labeler has no label on the trace or on a step of it."""
    disputed: bool = False
    """Whether any labelers have to differ about the first error."""
    least: float | None = None
    """The smallest step score of the labeler is at least this."""
    most: float | None = None
    """The smallest step score of the labeler is at most this."""
    text: str | None = None
    """What the id, question, answer or a step contains."""
    sort: Sort = "import"
    """The order."""
    after: str | None = None
    """Place of the row before the page, as `TracePage.after` gave it."""
    before: str | None = None
    """Place of the row after the page."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a labeler says of a trace."""

    labeler: str
    """Its name."""
    state: int
    """`NO_LABEL`, `OPEN`, `NO_ERROR` or `ERROR`."""
    first_error: int | None
    """0-based step of the first error."""
    low: float | None
    """Smallest step score; None without scores."""
    outcome: Outcome | None
    """Compared with the reference; None where that says nothing."""


@dataclass(frozen=True, slots=True)
class LabelerFigures:
    """A labeler at a glance; scores below 0.5 are errors."""

    labeler: Labeler
    labeled: int
    """Traces with a label."""
    open: int
    """Traces with a label that leaves the first error open."""
    errors: int
    """Traces in which it finds an error."""
    error_accuracy: float | None
    """Share of gold's erroneous traces whose first error it finds; missing counts as wrong."""
    correct_accuracy: float | None
    """Share of gold's correct traces that it accepts; missing counts as wrong."""

    @property
    def processbench_f1(self) -> float | None:
        """Harmonic mean of both accuracies."""
        error, correct = self.error_accuracy, self.correct_accuracy
        if error is None or correct is None:
            return None
        return 2 * error * correct / (error + correct) if error + correct else 0.0


@dataclass(slots=True)
class LabelerArrays:
    """What one labeler says, one entry per trace of its dataset."""

    state: NDArray[np.uint8]
    """`NO_LABEL`, `OPEN`, `NO_ERROR` or `ERROR`."""
    first: NDArray[np.int32]
    """The first error where `ERROR`; elsewhere 0 without a meaning."""
    reasons: NDArray[np.uint32]
    """A bit for each reason of an abstention on the trace or on a step."""
    low: NDArray[np.float32]
    """Smallest score; infinity without one."""

    @classmethod
    def empty(cls, n: int) -> Self:
        """Nothing yet about n traces."""
        low = np.full(n, np.inf, np.float32)
        return cls(np.zeros(n, np.uint8), np.zeros(n, np.int32), np.zeros(n, np.uint32), low)

    def copy(self) -> Self:
        """A copy that may be changed while others read this one."""
        return type(self)(
            self.state.copy(), self.first.copy(), self.reasons.copy(), self.low.copy()
        )

    @property
    def rows(self) -> int:
        """Traces with a label."""
        return int(np.count_nonzero(self.state))

    def put(self, traces: DatasetArrays, part: StoredLabels, mine: NDArray[np.bool_]) -> None:
        """Take over those of these labels that `mine` selects; they are about these traces."""
        labels = part.labels
        n = len(labels.keys)
        owner = np.repeat(np.arange(n), np.diff(labels.offsets))
        missing, has_error, index = labels.first_errors()
        low = np.full(n, np.inf, np.float32)
        scored, silent = labels.scored, labels.reasons > 0
        np.minimum.at(low, owner[scored], labels.scores[scored].astype(np.float32))
        whole = [
            0 if each is None else _BITS[AbstentionReason(each)] for each in labels.abstentions
        ]
        reasons = np.array(whole, np.uint32)
        bits = np.left_shift(np.uint32(1), labels.reasons[silent].astype(np.uint32))
        np.bitwise_or.at(reasons, owner[silent], bits)
        places, known = traces.places(labels.keys)
        known &= mine
        at = places[known]
        self.state[at] = np.where(missing, OPEN, np.where(has_error, ERROR, NO_ERROR))[known]
        self.first[at], self.low[at], self.reasons[at] = index[known], low[known], reasons[known]

    def figures(self, labeler: Labeler, gold: LabelerArrays | None) -> LabelerFigures:
        """The labeler at a glance, compared with gold."""
        error = correct = None
        if gold is not None and gold is not self:
            wrong, right = gold.state == ERROR, gold.state == NO_ERROR
            found = (self.state == ERROR) & (self.first == gold.first)
            error = _share(found, wrong)
            correct = _share(self.state == NO_ERROR, right)
        return LabelerFigures(
            labeler,
            labeled=self.rows,
            open=int(np.count_nonzero(self.state == OPEN)),
            errors=int(np.count_nonzero(self.state == ERROR)),
            error_accuracy=error,
            correct_accuracy=correct,
        )


def _share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    n = int(np.count_nonzero(among))
    return int(np.count_nonzero(hits & among)) / n if n else None


@dataclass(slots=True)
class DatasetArrays:
    """The traces of a dataset in the order of import, and what every labeler says."""

    keys: NDArray[np.int64]
    """Keys of the traces in the database."""
    subsets: list[str]
    """The subsets."""
    subset: NDArray[np.int32]
    """Index into `subsets`."""
    steps: NDArray[np.int32]
    """Number of steps."""
    stamp: object = None
    """What its traces were when they were read."""
    labels: dict[int, LabelerArrays] = field(default_factory=dict)
    """By key of the labeler."""
    _by_key: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, parts: Iterable[TraceColumns], stamp: object) -> Self:
        """From the columns of the traces, and what tells them from later ones."""
        keys, steps, subset = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], []
        known: dict[str, int] = {}
        for part in parts:
            keys.append(part.keys)
            steps.append(part.n_steps)
            subset += [known.setdefault(each, len(known)) for each in part.subsets]
        whole = np.concatenate(keys)
        return cls(
            whole,
            list(known),
            np.array(subset, np.int32),
            np.concatenate(steps).astype(np.int32),
            stamp=stamp,
            _by_key=np.argsort(whole, kind="stable"),
        )

    def shared(self) -> Self:
        """The same traces with a table of labelers of their own."""
        return replace(self, labels=dict(self.labels))

    def places(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where the traces with these keys are, and which of them are here."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
        ordered = self.keys[self._by_key]
        at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
        return self._by_key[at], ordered[at] == keys

    def take(
        self, part: StoredLabels, owners: Mapping[int, StoredLabeler], touched: set[int]
    ) -> None:
        """Take over labels of these labelers; those not in `touched` are copied first."""
        for key in np.unique(part.labelers).tolist():
            if key in owners:
                labels = self.labels.get(key)
                if labels is None:
                    labels = LabelerArrays.empty(len(self.keys))
                elif key not in touched:
                    labels = labels.copy()
                self.labels[key] = labels
                touched.add(key)
                labels.put(self, part, part.labelers == key)

    def subset_counts(self) -> dict[str, int]:
        """Traces by subset."""
        counts = np.bincount(self.subset, minlength=len(self.subsets)).tolist()
        return dict(zip(self.subsets, counts, strict=True))

    def reason_counts(self, labeler: int) -> dict[AbstentionReason, int]:
        """Traces on which, or on a step of which, a labeler abstained, by reason."""
        if labeler not in self.labels:
            return {}
        reasons = self.labels[labeler].reasons
        counts = {each: int(np.count_nonzero(reasons & bit)) for each, bit in _BITS.items()}
        return {each: number for each, number in counts.items() if number}


class SelectedTraces:
    """The traces of a dataset that meet the conditions of a query, in its order."""

    def __init__(
        self, traces: DatasetArrays, query: TraceQuery, labelers: Mapping[int, StoredLabeler]
    ) -> None:
        """Select them.

        Raises:
            InputError: there is no such labeler or subset.
        """
        self._traces, self._labelers = traces, labelers
        labeler = query.labeler or _default(labelers, gold=False)
        against = query.against or _default(labelers, gold=True)
        self.query = replace(query, labeler=labeler, against=against)
        """The query with its defaults."""
        nothing = LabelerArrays.empty(0)
        self._mine = self._arrays(labeler) or nothing
        self._other = self._arrays(against) or nothing
        self._outcomes = self._compared() if query.outcome is not None else None
        self._value = self._order()
        places = np.flatnonzero(self._mask())
        self.total = len(places)
        """Traces that meet the conditions."""
        backward = query.before is not None
        self.sign = -1 if backward else 1
        """-1 where the traces before a place are asked for: then the nearest comes first."""
        self._places = places[:: self.sign]
        if (place := query.before or query.after) is not None:
            self._skip_to(place)

    def _arrays(self, name: str | None) -> LabelerArrays | None:
        if name is None:
            return None
        for key, each in self._labelers.items():
            if each.labeler.name == name:
                return self._traces.labels.get(key)
        names = [each.labeler.name for each in self._labelers.values()]
        raise _unknown("labeler", name, names)

    def _mask(self) -> NDArray[np.bool_]:
        query, traces, mine = self.query, self._traces, self._mine
        mask = np.ones(len(traces.keys), bool)
        if query.subset is not None:
            if query.subset not in traces.subsets:
                raise _unknown("subset", query.subset, traces.subsets)
            mask &= traces.subset == traces.subsets.index(query.subset)
        if query.disputed:
            mask &= self._disputed()
        asked = (query.outcome, query.reason, query.least, query.most)
        if all(each is None for each in asked):
            return mask
        if not len(mine.state):
            return np.zeros_like(mask)
        if query.reason is not None:
            mask &= (mine.reasons & _BITS[query.reason]) > 0
        if query.least is not None:
            mask &= np.isfinite(mine.low) & (mine.low >= np.float32(query.least))
        if query.most is not None:
            mask &= mine.low <= np.float32(query.most)
        if query.outcome is not None and self._outcomes is not None:
            mask &= self._outcomes == OUTCOMES.index(query.outcome)
        return mask

    def _compared(self) -> NDArray[np.int8] | None:
        """Place in `OUTCOMES` of every trace; their number where the reference says nothing."""
        mine, other = self._mine, self._other
        n = len(self._traces.keys)
        if not len(mine.state) or not len(other.state):
            return np.full(n, len(OUTCOMES), np.int8)
        found, wrong = mine.state == ERROR, other.state == ERROR
        cases = [
            other.state < NO_ERROR,
            mine.state < NO_ERROR,
            wrong & found & (mine.first == other.first),
            ~wrong & ~found,
            wrong & found & (mine.first < other.first),
            wrong & found,
            wrong,
        ]
        names: list[Outcome] = ["missing", "exact", "no_error", "early", "late", "missed"]
        codes = [len(OUTCOMES), *(OUTCOMES.index(name) for name in names)]
        return np.select(cases, codes, OUTCOMES.index("false_alarm")).astype(np.int8)

    def _disputed(self) -> NDArray[np.bool_]:
        n = len(self._traces.keys)
        low, high = np.full(n, np.iinfo(np.int32).max, np.int32), np.zeros(n, np.int32)
        for labels in self._traces.labels.values():
            says = labels.state >= NO_ERROR
            value = np.where(labels.state == ERROR, labels.first + 1, 0).astype(np.int32)
            low = np.where(says, np.minimum(low, value), low)
            high = np.where(says, np.maximum(high, value), high)
        return low < high

    def _order(self) -> NDArray[np.float64] | None:
        """What every trace is ordered by; None for the order of import."""
        sort, mine, n = self.query.sort, self._mine, len(self._traces.keys)
        if sort in ("short", "long"):
            steps = self._traces.steps.astype(np.float64)
            return steps if sort == "short" else -steps
        if sort == "import" or not len(mine.state):
            return None
        if sort in ("low", "high"):
            value = mine.low.astype(np.float64)
            return value if sort == "low" else np.where(np.isfinite(value), -value, np.inf)
        first = mine.first.astype(np.float64) * (1.0 if sort == "first" else -1.0)
        return np.where(mine.state == ERROR, first, np.full(n, np.inf))

    def _skip_to(self, place: str) -> None:
        """Leave out what is not beyond a place."""
        value, _, key = place.rpartition(":")
        try:
            found, is_here = self._traces.places(np.array([int(key)], np.int64))
            limit = float(value) * self.sign
        except (ValueError, OverflowError):
            is_here = np.zeros(1, bool)
        if not is_here[0]:
            raise InputError(
                f"There is no place '{place[:40]}' in this table.", remedy="start at its first page"
            )
        beyond = self._places * self.sign > found[0] * self.sign
        if self._value is not None:
            values = self._value[self._places] * self.sign
            beyond = (values > limit) | ((values == limit) & beyond)
        self._places = self._places[beyond]

    def first(self, size: int) -> NDArray[np.int64]:
        """The first traces."""
        if self._value is None or len(self._places) <= size:
            return self.ordered()[:size]
        values = self._value[self._places] * self.sign
        limit = np.partition(values, size)[size]
        near = self._places[values < limit]
        level = self._places[values == limit][: size - len(near)]
        chosen = np.concatenate([near, level])
        return self._sorted(chosen)

    def ordered(self) -> NDArray[np.int64]:
        """All of them."""
        return self._places if self._value is None else self._sorted(self._places)

    def _sorted(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._value is None:
            return places
        # Stable: traces of one value stay in the order of import.
        return places[np.argsort(self._value[places] * self.sign, kind="stable")]

    def name_of(self, place: int) -> str:
        """A place as `TraceQuery.after` takes it."""
        value = 0.0 if self._value is None else float(self._value[place])
        return f"{value!r}:{int(self._traces.keys[place])}"

    def opinions(self, place: int) -> tuple[Opinion, ...]:
        """What every labeler says of the trace at a place."""
        found = []
        for key, each in self._labelers.items():
            labels = self._traces.labels.get(key)
            if labels is None:
                continue
            state, low = int(labels.state[place]), float(labels.low[place])
            found.append(
                Opinion(
                    each.labeler.name,
                    state,
                    first_error=int(labels.first[place]) if state == ERROR else None,
                    low=low if np.isfinite(low) else None,
                    outcome=self._outcome(labels, place),
                )
            )
        return tuple(found)

    def _outcome(self, labels: LabelerArrays, place: int) -> Outcome | None:
        other = self._other
        if labels is other or not len(other.state) or other.state[place] < NO_ERROR:
            return None
        state, wrong = labels.state[place], other.state[place] == ERROR
        if state < NO_ERROR:
            return "missing"
        if not wrong:
            return "no_error" if state == NO_ERROR else "false_alarm"
        if state == NO_ERROR:
            return "missed"
        first, right = labels.first[place], other.first[place]
        return "exact" if first == right else "early" if first < right else "late"


def gold_of(labelers: Mapping[int, StoredLabeler]) -> int | None:
    """The key of labeler `gold`, else of the first of that kind."""
    gold = [key for key, each in labelers.items() if each.labeler.kind is LabelerKind.GOLD]
    named = [key for key in gold if labelers[key].labeler.name == "gold"]
    return next(iter([*named, *gold]), None)


def _default(labelers: Mapping[int, StoredLabeler], *, gold: bool) -> str | None:
    reference = gold_of(labelers)
    if gold:
        return None if reference is None else labelers[reference].labeler.name
    others = (each.labeler.name for key, each in labelers.items() if key != reference)
    return next(others, None)


def _unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    names = list(known)
    close = closest(name, names)
    return InputError(
        f"There is no {what} '{name}' in this dataset.",
        remedy=f"did you mean '{close}'?" if close else f"there are: {', '.join(names) or 'none'}",
    )
