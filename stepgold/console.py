"""Progress and notes on standard error, so that standard output holds the result alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task


Item = TypeVar("Item")


def stderr() -> Console:
    """A console on standard error."""
    from rich.console import Console

    return Console(stderr=True)


def note(text: str) -> None:
    """Say one thing to the person at the terminal."""
    stderr().print(text, markup=False, highlight=False, soft_wrap=True)


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
        items: what is done, one at a time.
        total: how many there will be; None if unknown.
        label: what is going on.
        work: what one item took, in any unit, where items differ in length; None counts items.
        total_work: of all items, in the same unit; time left is told from it.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}" + ("" if total is None else f"/{total}")),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]} left"),
    )
    with Progress(*columns, console=stderr()) as bar:
        whole = total_work if work is not None else total
        task = bar.add_task(label, total=whole, count=0, left="-:--:--")
        for count, item in enumerate(items, 1):
            yield item
            bar.update(task, advance=1 if work is None else work(item), count=count)
            bar.update(task, left=_left(bar.tasks[0]))


def _left(task: Task) -> str:
    """Time left at the pace of the whole run so far: results come in batches, minutes apart."""
    if not task.total or not task.completed or task.elapsed is None:
        return "-:--:--"
    seconds = task.elapsed * max(task.total - task.completed, 0) / task.completed
    return str(timedelta(seconds=round(seconds)))
