"""Progress and notes on standard error, so that standard output holds the result alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task


Item = TypeVar("Item")

_SHOWN: ContextVar[bool] = ContextVar("stepgold_shown", default=True)
_NOTES: ContextVar[list[str] | None] = ContextVar("stepgold_notes", default=None)


_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}
# Marks that turn the direction of text: what follows would be shown in another order.
_CONTROLS |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def printable(text: str) -> str:
    """The text with control characters escaped, so that an id cannot steer the terminal."""
    return text.translate(_CONTROLS)


@contextmanager
def session(*, shown: bool) -> Iterator[list[str]]:
    """Collect the notes of one call; `shown` also prints them, with progress bars."""
    notes: list[str] = []
    tokens = _SHOWN.set(shown and _SHOWN.get()), _NOTES.set(notes)
    try:
        yield notes
    finally:
        _SHOWN.reset(tokens[0])
        _NOTES.reset(tokens[1])


def stderr() -> Console:
    """A console on standard error; in a notebook rich shows it below the cell."""
    from rich.console import Console

    return Console(stderr=True)


def note(text: str) -> None:
    """Print a message on standard error and add it to the result's `notes`."""
    notes = _NOTES.get()
    if notes is not None:
        notes.append(text)
    if _SHOWN.get():
        stderr().print(printable(text), markup=False, highlight=False, soft_wrap=True)


def progress(
    items: Iterable[Item],
    *,
    total: int | None,
    label: str,
    work: Callable[[Item], float] | None = None,
    total_work: float | None = None,
) -> Iterator[Item]:
    """Pass `items` through under a progress bar with elapsed and remaining time.

    Args:
        items: the items.
        total: their number; None if unknown.
        label: the text before the bar.
        work: the cost of one item, in any unit; None if all cost the same.
        total_work: the cost of all items, in the same unit, to estimate the time left.
    """
    if not _SHOWN.get():
        yield from items
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    count_of = "" if total is None else f"/{total}"
    columns = (
        TextColumn("{task.description:<22}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}" + count_of, markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]} left", markup=False),
    )
    with Progress(*columns, console=stderr()) as bar:
        whole = total_work if work is not None else total
        task = bar.add_task(printable(label), total=whole, count=0, left="-:--:--")
        for count, item in enumerate(items, 1):
            yield item
            bar.update(task, advance=1 if work is None else work(item), count=count)
            bar.update(task, left=_left(bar.tasks[0]))


def _left(task: Task) -> str:
    """Time left at the average pace so far: results come in batches, minutes apart."""
    if not task.total or not task.completed or task.elapsed is None:
        return "-:--:--"
    seconds = task.elapsed * max(task.total - task.completed, 0) / task.completed
    return str(timedelta(seconds=round(seconds)))
