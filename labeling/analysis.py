"""How labelers cover, overlap and contradict each other, and what a consensus keeps.

After snorkel's analysis of labeling functions, with the first error index as the label: a trace on
which a labeler abstains is not covered, and cannot be in conflict. Judge and Monte Carlo labels
agree on far fewer incorrect than correct traces, so retention is reported per class.

    >>> from traces.labels import AbstentionReason, TraceLabel, abstained
    >>> def says(trace, index):
    ...     return TraceLabel(trace, first_error_given=True, first_error_index=index)
    >>> judge = {"t1": says("t1", 2), "t2": says("t2", None), "t3": says("t3", 0)}
    >>> silent = abstained("t2", AbstentionReason.UNPARSED)
    >>> mc = {"t1": says("t1", 2), "t2": silent, "t3": says("t3", 1)}
    >>> consensus = {"t1": says("t1", 2)}
    >>> labels = {"judge": judge, "mc": mc}
    >>> print(analyze_labelers(labels, ["t1", "t2", "t3", "t4"], consensus=consensus).table())
    labeler  coverage  overlap  conflict  error kept  no error kept
    judge        0.75     0.50      0.25  1/2 (0.50)     0/1 (0.00)
    mc           0.50     0.50      0.25  1/2 (0.50)              -
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from traces import MISSING_FIRST_ERROR, FirstError, TraceLabel, first_error


@dataclass(frozen=True, slots=True)
class Retention:
    """How many traces of a class a consensus keeps."""

    kept: int
    """Traces of the class that have a consensus."""
    traces: int
    """Traces of the class."""

    @property
    def share(self) -> float | None:
        """kept / traces, in [0, 1]; None for an empty class."""
        return self.kept / self.traces if self.traces else None

    def __str__(self) -> str:
        return f"{self.kept}/{self.traces} ({self.share:.2f})" if self.traces else "-"


@dataclass(frozen=True, slots=True)
class LabelerCoverage:
    """One labeler compared with the others over a set of traces. Shares are in [0, 1]; None if
    there are no traces."""

    labeler: str
    """Name of the labeler."""
    coverage: float | None
    """Share of the traces on which it names a first error, "no error" included."""
    overlap: float | None
    """Share of the traces on which it and another labeler do."""
    conflict: float | None
    """Share of the traces on which another labeler names a different first error."""
    with_error: Retention
    """Traces on which it names an error."""
    without_error: Retention
    """Traces on which it says there is none."""
    abstained: Mapping[str, int]
    """Its abstentions by reason; traces that it has not labeled are not counted."""


@dataclass(frozen=True, slots=True)
class LabelerAnalysis:
    """Coverage, overlap, conflict and retention of several labelers."""

    rows: tuple[LabelerCoverage, ...]
    """One per labeler, in the order given."""

    def table(self) -> str:
        """The figures as an aligned text table, one row per labeler."""
        head = ["labeler", "coverage", "overlap", "conflict", "error kept", "no error kept"]
        cells = [
            [
                row.labeler,
                *(_share(value) for value in (row.coverage, row.overlap, row.conflict)),
                str(row.with_error),
                str(row.without_error),
            ]
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        return "\n".join(
            "  ".join(
                [line[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            )
            for line in (head, *cells)
        )


def analyze_labelers(
    labels: Mapping[str, Mapping[str, TraceLabel]],
    trace_ids: Iterable[str],
    *,
    consensus: Mapping[str, TraceLabel],
) -> LabelerAnalysis:
    """Compare labelers, and count what a consensus keeps of the traces each calls (in)correct.

    Args:
        labels: labeler name -> trace id -> label. Add `gold` to see the retention per true class.
        trace_ids: the traces that count, labeled or not.
        consensus: trace id -> the consensus label.
    """
    traces = list(trace_ids)
    named = {name: {t: _named(of, t) for t in traces} for name, of in labels.items()}
    kept = {t for t in traces if not _named(consensus, t).missing}
    return LabelerAnalysis(tuple(_row(name, labels[name], named, kept) for name in labels))


def _row(
    name: str,
    labels: Mapping[str, TraceLabel],
    named: Mapping[str, Mapping[str, FirstError]],
    kept: set[str],
) -> LabelerCoverage:
    own = named[name]
    covered = {t: error.index for t, error in own.items() if not error.missing}
    overlap = conflict = 0
    for trace_id, index in covered.items():
        others = [of[trace_id] for other, of in named.items() if other != name]
        given = [other.index for other in others if not other.missing]
        overlap += bool(given)
        conflict += any(other != index for other in given)
    with_error = {t for t, index in covered.items() if index is not None}
    without_error = covered.keys() - with_error
    silent = (labels[t].abstention for t in own if t in labels)
    return LabelerCoverage(
        labeler=name,
        coverage=len(covered) / len(own) if own else None,
        overlap=overlap / len(own) if own else None,
        conflict=conflict / len(own) if own else None,
        with_error=Retention(len(with_error & kept), len(with_error)),
        without_error=Retention(len(without_error & kept), len(without_error)),
        abstained=dict(Counter(one.reason.value for one in silent if one is not None)),
    )


def _named(labels: Mapping[str, TraceLabel], trace_id: str) -> FirstError:
    label = labels.get(trace_id)
    return MISSING_FIRST_ERROR if label is None else first_error(label)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
