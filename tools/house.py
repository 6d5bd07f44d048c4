"""Count what the house rules limit, on the product's code: `make house`.

    python -m tools.house                 # every count with its limit
    python -m tools.house --list edges    # the places of one count
    python -m tools.house --json

The product is what the wheel's `only-include` in pyproject.toml names. The function that finds the
places of a count, in one of the modules `tools.house_*`, says what it means.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from tools import house_calls, house_modules, house_words
from tools.house_tree import Finding, Product, load

ROOT = Path(__file__).resolve().parents[1]

LIMITS = {
    "files": 345,  # 280 asked before training/, review/, Vertex AI, PostgreSQL, newer formats
    "longest-file": house_modules.MAX_FILE_LINES,
    "shipped-lines": 47_000,
    "long-lines": 0,
    "edges": 1_600,  # 1,450 asked before training/ and review/
    "cycles": 0,
    "single-reader": 20,
    "stale-plug-ins": 0,
    "duplicate-classes": 0,
    "long-functions": 0,
    "many-parameters": 0,
    "boolean-parameters": 0,
    "boolean-arguments": 0,
    "many-arguments": 0,
    "calques": 20,
}
"""The most that each count may be; counts that are not named here are for information."""

NOT_YET = frozenset({"shipped-lines"})
"""Limits that are printed but do not fail: new features grew the code past this one, and it has to
shrink again. No other limit may be added here."""


def _total(findings: Sequence[Finding]) -> int:
    return sum(one.line for one in findings)


def _longest(findings: Sequence[Finding]) -> int:
    return max((one.line for one in findings), default=0)


def _median(findings: Sequence[Finding]) -> int:
    return round(median(one.line for one in findings)) if findings else 0


def _p90(findings: Sequence[Finding]) -> int:
    if len(findings) < 2:
        return _longest(findings)
    return round(quantiles((one.line for one in findings), n=10, method="inclusive")[-1])


@dataclass(frozen=True)
class Count:
    """One thing that is counted."""

    title: str
    find: Callable[[Product], list[Finding]]
    value: Callable[[Sequence[Finding]], int] = len


COUNTS = {
    "files": Count("product files", house_modules.files),
    "longest-file": Count("lines of the longest file", house_modules.files, _longest),
    "long-files": Count("files over 600 lines", house_modules.long_files),
    "median-file": Count("lines of the median file", house_modules.files, _median),
    "p90-file": Count("lines of the file at p90", house_modules.files, _p90),
    "shipped-lines": Count("shipped lines of Python", house_modules.shipped_files, _total),
    "long-lines": Count("lines over 100 characters", house_modules.long_lines),
    "edges": Count("import edges", house_modules.edges),
    "past-faces": Count("edges past a package's face", house_modules.past_faces),
    "private-imports": Count("edges to private modules", house_modules.private_imports),
    "cycles": Count("cycles among modules", house_modules.cycles),
    "single-reader": Count("files with a single reader", house_modules.single_readers),
    "unread": Count("files without a reader", house_modules.unread),
    "stale-plug-ins": Count("plug-in entries without a file", house_modules.stale_plug_ins),
    "duplicate-classes": Count("class names defined twice", house_modules.duplicate_classes),
    "long-functions": Count("functions over 60 lines", house_calls.long_functions),
    "many-parameters": Count("functions over 8 parameters", house_calls.many_parameters),
    "boolean-parameters": Count("positional boolean parameters", house_calls.boolean_parameters),
    "boolean-arguments": Count("booleans passed by position", house_calls.boolean_arguments),
    "many-arguments": Count("calls over 4 positional arguments", house_calls.many_arguments),
    "calques": Count("calques", house_words.calques),
}


@dataclass(frozen=True)
class Measured:
    """A count with its value and its limit."""

    name: str
    title: str
    value: int
    limit: int | None

    @property
    def ok(self) -> bool:
        """Whether the value keeps to the limit; true where there is none."""
        return self.limit is None or self.value <= self.limit


def measure(product: Product) -> list[Measured]:
    """All counts, in the order of the table."""
    return [
        Measured(name, count.title, count.value(count.find(product)), LIMITS.get(name))
        for name, count in COUNTS.items()
    ]


def table(measured: Sequence[Measured]) -> str:
    """Counts, values and limits in columns."""
    rows = [f"{'NAME':<20}{'COUNT':<36}{'VALUE':>8}{'LIMIT':>8}  OK"]
    for one in measured:
        limit = "-" if one.limit is None else str(one.limit)
        ok = "" if one.limit is None else "yes" if one.ok else "NO"
        rows.append(f"{one.name:<20}{one.title:<36}{one.value:>8}{limit:>8}  {ok}".rstrip())
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 if a limit (with --list, that limit) is exceeded."""
    parser = argparse.ArgumentParser(prog="house", description="Count what the house rules limit.")
    parser.add_argument("--list", choices=COUNTS, metavar="NAME", help="list the places of a count")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository [this one]")
    asked = parser.parse_args(arguments)
    product = load(asked.root)
    if asked.list is not None:
        return _print_places(asked.list, product, as_json=asked.json)
    measured = measure(product)
    if asked.json:
        print(
            json.dumps({m.name: {"value": m.value, "limit": m.limit, "ok": m.ok} for m in measured})
        )
    else:
        print(table(measured))
    return 0 if all(one.ok or one.name in NOT_YET for one in measured) else 1


def _print_places(name: str, product: Product, *, as_json: bool) -> int:
    count = COUNTS[name]
    found = count.find(product)
    if as_json:
        print(json.dumps([one._asdict() for one in found]))
    else:
        for one in found:
            print(f"{one.path}:{one.line}: {one.what}")
    measured = Measured(name, count.title, count.value(found), LIMITS.get(name))
    return 0 if measured.ok else 1


if __name__ == "__main__":
    sys.exit(main())
