"""Defects that cost one row of a file or one reply of a model instead of the whole run.

Readers of foreign data turn an exception that they do not expect into a rejected row, an abstention
or, where a file counts as a whole, bad input. It is counted and logged with its traceback here, so
that it does not pass for bad data.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from traces.errors import InputError, ToolkitError

_LOGGER = logging.getLogger("stepgold.defects")
_LONGEST = 200
_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOSPC})
"""Errors of the system that say nothing about the file that was read."""

_found: list[str] = []
"""Where the defects of this process were met."""


def record_defect(fault: Exception, where: str) -> str:
    """Count and log an unexpected exception; returns a clause for the row's or reply's reason.

    Args:
        fault: the exception, caught at the boundary of a reader.
        where: the row or reply.
    """
    _found.append(where)
    _LOGGER.debug("defect at %s", where, exc_info=fault)
    said = " ".join(str(fault).split())[:_LONGEST]
    return f"StepGold cannot read it, a defect ({type(fault).__name__}: {said})"


@contextmanager
def whole_or_nothing(
    where: object, *, error: type[ToolkitError] = InputError, remedy: str | None = None
) -> Iterator[None]:
    """Turn an unexpected exception of a reader into an error for the user: exit 2, never 70.

    For files that are read as a whole; what fails inside of one row costs only that row.

    Args:
        where: the file, and the place in it if it is known.
        error: the error to raise.
        remedy: what to do.

    Raises:
        ToolkitError: of type `error`; a `ToolkitError` of the reader passes unchanged.
    """
    try:
        yield
    except ToolkitError:
        raise
    except OSError as fault:
        if fault.errno in _LIMITS:
            raise
        why = fault.strerror or str(fault)
        raise error(f"Cannot read '{where}': {why}.", where=str(where), remedy=remedy) from fault
    except Exception as fault:
        why = record_defect(fault, str(where))
        raise error(f"{why}.", where=str(where), remedy=remedy) from fault


class _Shown(logging.Handler):
    """Passes each record, with its traceback, to a function."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(self.format(record))


@contextmanager
def watch_defects(show: Callable[[str], None] | None = None) -> Iterator[list[str]]:
    """Collect where defects are met; the list is complete when the block has ended.

    Args:
        show: gets each defect with its traceback, as text; None shows none.
    """
    before, met = len(_found), list[str]()
    handler = None if show is None else _Shown(show)
    level = _LOGGER.level
    if handler is not None:
        _LOGGER.setLevel(logging.DEBUG)
        _LOGGER.addHandler(handler)
    try:
        yield met
    finally:
        met += _found[before:]
        _LOGGER.setLevel(level)
        if handler is not None:
            _LOGGER.removeHandler(handler)
