"""Formats figures, tables and notes as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.measures import Estimate, as_list

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


def cell(value: Estimate | float | None) -> str:
    """A table cell: an estimate with its interval, a count, or a figure.

    >>> cell(3), cell(0.5), cell(None), cell(Estimate(0.5, (0.25, 0.75)))
    ('3', '0.500', '-', '0.500 [0.250, 0.750]')
    """
    if isinstance(value, Estimate):
        return with_interval(value)
    return str(value) if isinstance(value, int) else figure(value)


def figures_json(report: Any, *, lead: str | None = None) -> dict[str, Any]:
    """The fields of a dataclass as JSON: an estimate is its value and, as NAME_ci95, its interval.

    Args:
        lead: the estimate whose interval is the key `ci95`.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(report):
        value = getattr(report, field.name)
        if isinstance(value, Estimate):
            found[field.name] = value.value
            found["ci95" if field.name == lead else f"{field.name}_ci95"] = as_list(value)
        else:
            found[field.name] = _json(value)
    return found


def _json(value: Any) -> Any:
    if hasattr(value, "as_json"):
        return value.as_json()
    if isinstance(value, Mapping):
        return {name: _json(part) for name, part in value.items()}
    return [_json(part) for part in value] if isinstance(value, tuple | list) else value
