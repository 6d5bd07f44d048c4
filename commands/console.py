"""Progress and notes on standard error, so that standard output holds the result alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")


def stderr() -> Console:
    """A console on standard error."""
    from rich.console import Console

    return Console(stderr=True)


def note(text: str) -> None:
    """Say one thing to the person at the terminal."""
    stderr().print(text, markup=False, highlight=False)


def progress(items: Iterable[Item], *, total: int | None, label: str) -> Iterator[Item]:
    """Pass `items` through under a progress bar with elapsed and remaining time."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr()) as bar:
        yield from bar.track(items, total=total, description=label)
