"""Defects that cost one row of a file or one reply of a model instead of the whole run.

Readers of foreign data turn an exception that they do not expect into a rejected row or an
abstention. It is counted and logged with its traceback here, so that it does not pass for bad data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOGGER = logging.getLogger("stepgold.defects")
_LONGEST = 200


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
