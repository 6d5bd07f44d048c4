"""Reads the figures back from a report page, and checks them against `evaluate --json`."""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

Key = tuple[str, str, str, str]
"""Table id, labeler, subset or index, measure."""


class Figures(HTMLParser):
    """Every `<data>` of the page by table, row and cell: value and, where it has one, its interval."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[Key, list[float | None]] = {}
        self._table, self._row, self._cell = "", ("", ""), ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag == "table":
            self._table = named.get("id", "")
        elif tag == "tr":
            self._row = (
                named.get("data-labeler", ""),
                named.get("data-subset", named.get("data-index", "")),
            )
        elif tag == "td":
            self._cell = named.get("data-measure", "")
        elif tag == "data":
            value = float(named["value"]) if named["value"] else None
            self.found.setdefault((self._table, *self._row, self._cell), []).append(value)


def expected_figures(
    labeler: str, first: Mapping[str, Any], macro: Mapping[str, Any]
) -> dict[Key, list[float | None]]:
    """What the page must show of one labeler, read from the two documents of `evaluate --json`."""
    wanted: dict[Key, list[float | None]] = {}

    def put(table: str, subset: str, measure: str, value: float | None, ci95: Any = None) -> None:
        wanted[table, labeler, subset, measure] = [value, *(ci95 or [])]

    average, overall = first["average"], macro["overall"]
    put("headline", "average", "processbench_f1", average["processbench_f1"], average["ci95"])
    put("headline", "average", "macro_f1", overall["macro_f1"], overall["ci95"])
    kept = average["kept"]
    put("headline", "average", "first_error_precision", kept["first_error_precision"], kept["ci95"])
    for name, found in first["subsets"].items():
        put("", name, "processbench_f1", found["processbench_f1"], found["ci95"])
        for count in ("n_error", "n_correct", "missing"):
            put("", name, count, found[count])
    diagnostics = first["diagnostics"]
    scores = diagnostics["step_scores"]
    if scores is not None:
        for name in ("auroc", "average_precision_incorrect", "brier"):
            put("scores", "", name, scores[name], scores[f"{name}_ci95"])
        put("scores", "", "calibration_error", scores["calibration_error"])
        lowest = diagnostics["minimum_position"]
        put("minimum", "", "share_at_last", lowest["share_at_last"], lowest["share_at_last_ci95"])
    for row in diagnostics["step_index"]:
        for name in ("gold_incorrect", "called_incorrect", "mean_score", "n", "called_first"):
            put("step-index-table", str(row["index"]), name, row[name])
    hidden = diagnostics["right_answer_wrong_process"]
    if hidden["n"]:
        put("hidden", "", "detected", hidden["detected"], hidden["detected_ci95"])
    return wanted
