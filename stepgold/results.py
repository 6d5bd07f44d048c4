"""What a verb returns: typed figures, the contract's JSON document, and text for a person."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from traces import InputError as InputError
from traces import ToolkitError as ToolkitError

if TYPE_CHECKING:
    from rich.console import RenderableType

OK, INCOMPLETE, BAD_INPUT, DEFECT, INTERRUPTED = 0, 1, 2, 70, 130
"""Exit codes: all done; done with something missing; bad input; a defect; interrupted."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """Base of all results; a notebook shows a result as a table."""

    notes: tuple[str, ...] = field(default=(), compare=False)
    """Messages of the call on standard error, e.g. that verdicts will be ungrounded."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if something that was asked for is missing."""
        return OK

    def as_json(self) -> dict[str, Any]:
        """The document that the command prints with `--json`."""
        raise TypeError(f"{type(self).__name__} has no document")

    def words(self) -> RenderableType:
        """What the command prints for a person: a string or a rich renderable."""
        raise TypeError(f"{type(self).__name__} has no text")

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """The result as rows of a table; a single row unless a result has more."""
        return [flat(self.as_json())]

    def frame(self) -> Any:
        """The rows as a `pandas.DataFrame`.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas  # type: ignore[import-untyped]
        except ImportError as fault:
            raise InputError("pandas is not installed.", remedy="pip install pandas") from fault
        return pandas.DataFrame([dict(row) for row in self.rows()])

    def __str__(self) -> str:
        """The text for a person, without color."""
        said = self.words()
        if isinstance(said, str):
            return said
        from rich.console import Console

        page = io.StringIO()
        Console(file=page, width=100, no_color=True).print(said, soft_wrap=True)
        return page.getvalue().rstrip("\n")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}\n{self}\n>"

    def _repr_html_(self) -> str:
        rows = [dict(row) for row in self.rows()]
        if len(rows) < 2:
            return f"<pre>{html.escape(str(self))}</pre>"
        names = list(dict.fromkeys(name for row in rows for name in row))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(str(row.get(name, '')))}</td>" for name in names)
            + "</tr>"
            for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def counted(number: int, noun: str) -> str:
    """A number with its noun, e.g. `1 trace` or `2 traces`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document as one row: parts of an object are `object_part`, lists are left out."""
    row: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            row |= {f"{key}_{part}": inner for part, inner in flat(value).items()}
        elif not isinstance(value, list):
            row[key] = value
    return row


class NamedFigures(Mapping[str, Any]):
    """Figures of a document by name, as a mapping and as attributes.

    Subclasses declare the names and types that a document of their kind may have.
    """

    def __init__(self, figures: Mapping[str, Any], *, of: str) -> None:
        """Name the figures.

        Args:
            figures: the figures by name.
            of: what they belong to, for the error about an unknown name.
        """
        self._figures, self._of = dict(figures), of

    if not TYPE_CHECKING:  # a type checker knows the declared names and no others

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            if name not in self._figures:
                known = ", ".join(self._figures)
                raise AttributeError(f"{self._of} has no {name}; it has {known}.")
            return self._figures[name]

    def row(self) -> dict[str, Any]:
        """The figures as a row of a table: plain values, intervals as two columns."""
        found: dict[str, Any] = {}
        for name, value in self._figures.items():
            if name.endswith("ci95"):
                parts = value if isinstance(value, Mapping) else {"": value}
                for part, interval in parts.items():
                    column = f"{part}_{name}".lstrip("_")
                    low, high = (None, None) if interval is None else interval
                    found |= {f"{column}_low": low, f"{column}_high": high}
            elif value is None or isinstance(value, bool | int | float | str):
                found[name] = value
        return found

    def __getitem__(self, name: str) -> Any:
        return self._figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._figures]

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self._figures.items())
        return f"{type(self).__name__}({told})"
