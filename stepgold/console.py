"""Progress and notes on standard error, so that standard output holds the result alone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from traces import InputError

if TYPE_CHECKING:
    from rich.console import Console


Item = TypeVar("Item")

EVERY_S = 30.0
"""A log hears at least this often how far a stage is."""
NOT_BEFORE_S = 1.0
"""Seconds between two lines: a stage of a moment need not fill a log with each tenth of it."""

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


def confirm(what: str, *, unasked: str) -> None:
    """Ask on the terminal whether to go on.

    Args:
        what: what will be done.
        unasked: the command that does it without a question.

    Raises:
        InputError: the answer is not yes, or there is no terminal to ask on.
    """
    streams = (sys.stdin, sys.stderr)
    if not all(stream is not None and stream.isatty() for stream in streams):
        raise InputError(f"{what} There is no terminal to ask on.", remedy=unasked)
    stderr().print(printable(what), markup=False, highlight=False, soft_wrap=True)
    stderr().print("Go on? [y/N] ", end="", markup=False, highlight=False)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InputError("Nothing was done: the answer was not yes.", remedy=unasked)


def progress(
    items: Iterable[Item],
    *,
    total: int | None,
    label: str,
    work: Callable[[Item], float] | None = None,
    total_work: float | None = None,
) -> Iterator[Item]:
    """Pass `items` through under a progress bar with elapsed and remaining time.

    Where standard error is no terminal, a plain line is printed at every tenth and at least every
    30 seconds, even while one item is being worked on.

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
    console = stderr()
    pace = StagePace(printable(label), total, total_work if work is not None else total)
    watched = console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)
    with (_bar if watched else _lines)(pace, console) as moved:
        for item in items:
            yield item
            pace.count += 1
            pace.done += 1 if work is None else work(item)
            moved()


class StagePace:
    """How far a stage is, and how fast it goes."""

    def __init__(
        self,
        label: str,
        total: int | None,
        whole: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A stage that begins now.

        Args:
            label: its name.
            total: the number of its items; None if unknown.
            whole: the cost of all items; None if unknown.
            clock: seconds from any moment on.
        """
        self.label, self.total, self.whole = label, total, whole
        self.count, self.done = 0, 0.0
        self._clock, self._started = clock, clock()
        self._said_at, self._said_tenth = self._started, 0

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began."""
        return self._clock() - self._started

    @property
    def left(self) -> float | None:
        """Seconds left at the average pace so far; None if unknown, or if nothing is left.

        The average, because results come in batches, minutes apart.
        """
        if not self.whole or not self.done or self.done >= self.whole:
            return None
        return self.elapsed * (self.whole - self.done) / self.done

    def counted(self) -> str:
        """Items so far, and of how many."""
        return f"{self.count:,}" + ("" if self.total is None else f"/{self.total:,}")

    def times(self) -> str:
        """The time it took, and the time left where that is known, each with its name."""
        left = "" if self.left is None else f", {_span(self.left)} left"
        return f"{_span(self.elapsed)} elapsed{left}"

    def line(self) -> str | None:
        """The line for a log if one is due: another tenth is done, or 30 seconds have passed."""
        tenth = int(10 * self.done / self.whole) if self.whole else 0
        since = self._clock() - self._said_at
        if since < (NOT_BEFORE_S if tenth > self._said_tenth else EVERY_S):
            return None
        self._said_at, self._said_tenth = self._clock(), tenth
        return self.summary()

    def summary(self) -> str:
        """What a log is told: done, total, share, rate and times."""
        share = f" ({self.done / self.whole:.0%})" if self.whole else ""
        per_s = self.count / self.elapsed if self.elapsed > 0 else 0.0
        rate = f"{per_s:,.1f}/s" if per_s >= 1 or not per_s else f"{per_s * 60:,.1f}/min"
        return f"{self.label}: {self.counted()}{share}, {rate}, {self.times()}"


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def _lines(pace: StagePace, console: Console) -> Iterator[Callable[[], None]]:
    """Plain lines for a log, also while no item ends, and one at the end."""
    one_at_a_time, over = threading.Lock(), threading.Event()

    def put(line: str | None) -> None:
        if line is not None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def moved() -> None:
        with one_at_a_time:
            put(pace.line())

    def watch() -> None:
        while not over.wait(EVERY_S):
            moved()

    threading.Thread(target=watch, name="stepgold-progress", daemon=True).start()
    try:
        yield moved
    finally:
        over.set()
        with one_at_a_time:
            put(pace.summary())


@contextmanager
def _bar(pace: StagePace, console: Console) -> Iterator[Callable[[], None]]:
    """A bar that a terminal or a notebook redraws."""
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Times(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{pace.counted()} {pace.times()}")

    columns = (
        TextColumn("{task.description:<22}", markup=False),
        BarColumn(bar_width=12),  # with both times, a line has to fit into 80 columns
        Times(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(pace.label, total=pace.whole)
        yield lambda: bar.update(task, completed=pace.done)
        bar.update(task, total=pace.whole or pace.done)
