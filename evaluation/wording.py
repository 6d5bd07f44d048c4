"""Formats figures, tables and notes as text."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.measures import Estimate

UNDEFINED = "-"
"""Shown for an undefined figure."""


def figure(value: float | None) -> str:
    """Three decimal places.

    >>> figure(0.12345), figure(None)
    ('0.123', '-')
    """
    return UNDEFINED if value is None else f"{value:.3f}"


def with_interval(estimated: Estimate) -> str:
    """Value and 95% interval.

    >>> with_interval(Estimate(0.5, (0.25, 0.75))), with_interval(Estimate(None, None))
    ('0.500 [0.250, 0.750]', '-')
    """
    if estimated.value is None or estimated.ci95 is None:
        return figure(estimated.value)
    low, high = estimated.ci95
    return f"{figure(estimated.value)} [{figure(low)}, {figure(high)}]"


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of padded columns, the first aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def threshold_note(threshold: float, source: str) -> str:
    """A line with the source of a threshold; nothing for one that the user gave.

    >>> print("figures" + threshold_note(0.5, "given") + threshold_note(0.25, "fit:pb/gsm8k"))
    figures
    threshold 0.25 from fit:pb/gsm8k
    """
    return "" if source == "given" else f"\nthreshold {threshold:.6g} from {source}"


def left_out_note(traces: int) -> str:
    """A line with the number of traces without usable gold; nothing if there are none."""
    return f"\n{traces} traces without usable gold left out" if traces else ""
