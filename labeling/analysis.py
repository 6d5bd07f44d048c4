"""How labelers cover, overlap and contradict each other, and what a consensus keeps of each class.

After snorkel's analysis of labeling functions, with the first error index as the label: an
abstention covers nothing and contradicts nobody. Of incorrect steps judge and Monte-Carlo agree on
far fewer than of correct ones, so retention is told apart by class.

    >>> from traces.labels import TraceLabel, abstained
    >>> from traces.labels import AbstentionReason
    >>> says = lambda trace, index: TraceLabel(trace, first_error_given=True, first_error_index=index)
    >>> judge = {"t1": says("t1", 2), "t2": says("t2", None), "t3": says("t3", 0)}
    >>> silent = abstained("t2", AbstentionReason.UNPARSED)
    >>> mc = {"t1": says("t1", 2), "t2": silent, "t3": says("t3", 1)}
    >>> [(row.labeler, row.coverage, row.overlap, row.conflict)
    ...  for row in labeler_table({"judge": judge, "mc": mc}, ["t1", "t2", "t3", "t4"])]
    [('judge', 0.75, 0.5, 0.25), ('mc', 0.5, 0.5, 0.25)]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from traces.labels import MISSING, FirstError, TraceLabel, first_error

ERROR = "error"
NO_ERROR = "no error"


@dataclass(frozen=True, slots=True)
class LabelerRow:
    """One labeler among others, over a set of traces."""

    labeler: str
    """Its name."""
    traces: int
    """Traces looked at."""
    with_error: int
    """Traces on which it names a first error."""
    without_error: int
    """Traces on which it says there is none."""
    coverage: float | None
    """Share of the traces with a word of it, in [0, 1]; None without traces."""
    overlap: float | None
    """Share with a word of it and of another labeler."""
    conflict: float | None
    """Share on which another labeler names another first error."""
    abstained: Mapping[str, int]
    """Reasons of its abstentions, with their number; a trace it never saw has none."""


@dataclass(frozen=True, slots=True)
class RetentionRow:
    """What a consensus keeps of one class, as one labeler sees it."""

    labeler: str
    """Whose word makes the class."""
    named: str
    """`error` or `no error`."""
    traces: int
    """Traces of that class."""
    kept: int
    """Of these, traces with a consensus."""
    share: float | None
    """kept / traces in [0, 1]; None for an empty class."""


def labeler_table(
    labels: Mapping[str, Mapping[str, TraceLabel]], trace_ids: Iterable[str]
) -> list[LabelerRow]:
    """Coverage, overlap and conflict of every labeler, in the order given.

    Args:
        labels: labeler name -> trace id -> its word.
        trace_ids: the traces that count, labelled or not.
    """
    traces = list(trace_ids)
    named = {name: {t: _named(of, t) for t in traces} for name, of in labels.items()}
    return [_row(name, labels[name], named, traces) for name in labels]


def retention_table(
    consensus: Mapping[str, TraceLabel], labels: Mapping[str, Mapping[str, TraceLabel]]
) -> list[RetentionRow]:
    """What the consensus keeps of each class, once for every labeler that defines the classes.

    Pass `gold` among the labels to see the retention per true class.
    """
    rows = []
    for name, of in labels.items():
        for wanted in (ERROR, NO_ERROR):
            members = [t for t in of if _class_of(_named(of, t)) == wanted]
            kept = sum(not _named(consensus, t).missing for t in members)
            share = kept / len(members) if members else None
            rows.append(RetentionRow(name, wanted, len(members), kept, share))
    return rows


def _row(
    name: str,
    own: Mapping[str, TraceLabel],
    named: Mapping[str, Mapping[str, FirstError]],
    traces: list[str],
) -> LabelerRow:
    overlap = conflict = 0
    for trace_id in traces:
        mine = named[name][trace_id]
        others = [of[trace_id] for other, of in named.items() if other != name]
        words = [other for other in others if not other.missing]
        if not mine.missing:
            overlap += bool(words)
            conflict += any(other.index != mine.index for other in words)
    classes = Counter(_class_of(error) for error in named[name].values())
    silent = (own[t].abstention for t in traces if t in own)
    reasons = Counter(one.reason.value for one in silent if one is not None)
    covered = classes[ERROR] + classes[NO_ERROR]
    total = len(traces)
    return LabelerRow(
        labeler=name,
        traces=total,
        with_error=classes[ERROR],
        without_error=classes[NO_ERROR],
        coverage=covered / total if total else None,
        overlap=overlap / total if total else None,
        conflict=conflict / total if total else None,
        abstained=dict(reasons),
    )


def _named(labels: Mapping[str, TraceLabel], trace_id: str) -> FirstError:
    label = labels.get(trace_id)
    return MISSING if label is None else first_error(label)


def _class_of(error: FirstError) -> str | None:
    if error.missing:
        return None
    return NO_ERROR if error.index is None else ERROR
