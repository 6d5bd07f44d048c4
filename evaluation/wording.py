"""Formats figures, tables and notes as text."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureTable:
    """Cells of text that a person reads, in several formats."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    """As many cells as `head`."""
    best: frozenset[tuple[int, int]] = frozenset()
    """Row and column, from 0, of the cells that are set in bold."""
    ruled: int | None = None
    """The row that a rule goes above; None for no rule."""

    def plain(self) -> str:
        """Padded columns below the title."""
        return f"{self.title}\n{plain_table(self.head, self.rows)}"

    def markdown(self) -> str:
        """A table of Markdown below the title, with all texts escaped."""
        table = markdown_table(self.head, self.rows, best=self.best)
        return f"{markdown_text(self.title)}\n\n{table}"

    def latex(self) -> str:
        """A `tabular` with the rules of the package booktabs; the title is a comment."""
        rows = [
            " & ".join(
                rf"\textbf{{{latex_text(text)}}}" if (at, column) in self.best else latex_text(text)
                for column, text in enumerate(row)
            )
            + r" \\"
            for at, row in enumerate(self.rows)
        ]
        if self.ruled is not None:
            rows.insert(self.ruled, r"\midrule")
        return "\n".join(
            [
                f"% {' '.join(self.title.split())}",
                r"% needs \usepackage{booktabs}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}",
                r"\toprule",
                " & ".join(map(latex_text, self.head)) + r" \\",
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )


TERMINAL = 80
"""Columns of a terminal; a wider table says so."""


def width_note(tables: Iterable[FigureTable]) -> list[str]:
    """A line about the widest of these tables, if a terminal has no room for it."""
    lines = (line for one in tables for line in one.plain().splitlines()[1:])
    width = max(map(len, lines), default=0)
    if width <= TERMINAL:
        return []
    return [f"The table is {width} columns wide; --format csv, md or tex is for files."]


def formatted(
    format: str, *, tables: Iterable[FigureTable], rows: Iterable[Mapping[str, Any]], text: str
) -> str:
    """What `--format` prints.

    Args:
        format: text, md, csv or tex.
        tables: for md and tex.
        rows: for csv, with full precision.
        text: for text.
    """
    if format == "text":
        return text
    if format == "csv":
        return csv_text(rows)
    return "\n\n".join(one.markdown() if format == "md" else one.latex() for one in tables)


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows below their names; None is an empty cell, and no cell begins like a formula."""
    known = [dict(row) for row in rows]
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in known for name in row))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(no_formula, names))
    for row in known:
        cells = (row.get(name) for name in names)
        writer.writerow(no_formula(one) if isinstance(one, str) else one for one in cells)
    return out.getvalue().rstrip("\n")


def no_formula(text: str) -> str:
    """Text with an apostrophe if a spreadsheet would run it as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def markdown_text(text: str) -> str:
    """Text as one line that Markdown shows literally, also in a table cell."""
    for sign in ("\\", "`", "*", "[", "]", "|", "#"):
        text = text.replace(sign, "\\" + sign)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(text.split())


def markdown_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    best: Collection[tuple[int, int]] = (),
) -> str:
    """A table of Markdown, with all texts escaped; the cells `best` in bold."""
    lines = [list(map(markdown_text, head)), ["---"] * len(head)]
    for at, row in enumerate(rows):
        cells = enumerate(map(markdown_text, row))
        lines.append([f"**{text}**" if (at, column) in best else text for column, text in cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


_LATEX = {sign: rf"\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "|": r"\textbar{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def latex_text(text: str) -> str:
    r"""Text as one line that LaTeX shows literally, also at the start of a row.

    >>> print(latex_text("50 % of a_b"), latex_text("[0.1, 0.2]"))
    50 \% of a\_b {[}0.1, 0.2]
    """
    shown = " ".join("".join(_LATEX.get(sign, sign) for sign in text).split())
    shown = re.sub(r"(?<!\w)-(?=\d+\.\d)", "$-$", shown)
    return f"{{{shown[0]}}}{shown[1:]}" if shown[:1] in ("[", "*") else shown


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
