"""Every labeler against the truth, one row a labeler and subset, from the evaluate command itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from commands.run import invoke
from commands.workspace import Workspace

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "labeler",
    "subset",
    "err",
    "corr",
    "pb_f1 [95%]",
    "macro_f1 [95%]",
    "kept",
    "prec",
)

CAPTION = """\
err, corr: error and correct accuracy, exact first error; pb_f1: processbench_f1, their harmonic
mean; kept: share of traces the labeler has a word on; prec: first-error precision on those.
What has no word counts as wrong in both F1s, also the steps behind a first error, which a consensus
leaves unlabelled: it is there to be right on what it keeps. The lab is small, its retriever errs."""


def demo_table(
    root: Any, workspace: Workspace, dataset: str, labelers: Sequence[str]
) -> tuple[Table, dict[str, Any]]:
    """The table and the `evaluate` documents it was read from, by labeler and protocol."""
    table = _empty_table()
    documents: dict[str, Any] = {}
    for name in labelers:
        on = ["--dataset", dataset, "--labeler", name]
        first_error = invoke(root, workspace, ["evaluate", *on]).document
        macro = invoke(root, workspace, ["evaluate", *on, "--protocol", "macro-f1"]).document
        documents[name] = {"processbench": first_error, "macro-f1": macro}
        for subset, row in first_error["subsets"].items():
            table.add_row(name, subset, *_cells(row, macro["subsets"].get(subset, {})))
        average = first_error["average"]
        table.add_row(
            name,
            "average",
            "",
            "",
            _with_interval(average["processbench_f1"], average["ci95"]),
            _with_interval(macro["overall"]["macro_f1"], macro["overall"].get("ci95")),
            _number(average["kept"]["share"]),
            _number(average["kept"]["first_error_precision"]),
            end_section=True,
        )
    return table, documents


def _empty_table() -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title="Every labeler against the exact truth", caption=CAPTION, box=box.SIMPLE_HEAD
    )
    table.padding, table.show_edge, table.pad_edge = (0, 1, 0, 0), False, False
    table.caption_justify = "left"
    for column in COLUMNS:
        table.add_column(column, no_wrap=True, justify="left" if column in COLUMNS[:2] else "right")
    return table


def _cells(row: dict[str, Any], macro: dict[str, Any]) -> tuple[str, ...]:
    return (
        _number(row["error_accuracy"]),
        _number(row["correct_accuracy"]),
        _with_interval(row["processbench_f1"], row["ci95"]),
        _with_interval(macro.get("macro_f1"), macro.get("ci95")),
        _number(row["kept"]["share"]),
        _number(row["kept"]["first_error_precision"]),
    )


def _number(value: float | None) -> str:
    """Two decimals without the leading zero, so that the table fits into 80 columns."""
    return "-" if value is None else f"{value:.2f}".replace("0.", ".")


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or not interval:
        return _number(value)
    return f"{_number(value)} [{_number(interval[0])},{_number(interval[1])}]"
