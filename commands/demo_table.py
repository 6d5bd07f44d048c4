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
    "error accuracy",
    "correct accuracy",
    "processbench_f1 [95%]",
    "macro_f1 [95%]",
    "kept",
)


def demo_table(
    root: Any, workspace: Workspace, dataset: str, labelers: Sequence[str]
) -> tuple[Table, dict[str, Any]]:
    """The table and the `evaluate` documents it was read from, by labeler and protocol."""
    from rich.table import Table

    table = Table(
        *COLUMNS, title="Every labeler against the exact truth (n is small: read the intervals)"
    )
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
            "",
            end_section=True,
        )
    return table, documents


def _cells(row: dict[str, Any], macro: dict[str, Any]) -> tuple[str, ...]:
    return (
        _number(row["error_accuracy"]),
        _number(row["correct_accuracy"]),
        _with_interval(row["processbench_f1"], row["ci95"]),
        _with_interval(macro.get("macro_f1"), macro.get("ci95")),
        _number(row["kept"]["share"]),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or not interval:
        return _number(value)
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
