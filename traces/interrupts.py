"""Interrupts by signals: raised where that is safe, noted where it is not.

Python runs a signal handler between any two instructions of the main thread. An exception that is
raised there may leave a lock taken for ever, or lose a reply that was paid for. Code that must not
be cut short is put in an `uninterrupted()` block. An interrupt that comes meanwhile is raised at
the end of the block, unless the code in it has asked `interrupt_noted()` and acts on it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _State:
    """Of the whole process. Changed by the main thread only, apart from `blocks`."""

    blocks: set[object] = field(default_factory=set)
    """The open blocks of the main thread; another thread may close one, in a generator."""
    arrived: bool = False
    """Whether there was an interrupt; later ones are the signal handler's business."""
    noted: bool = False
    """Whether it is still to be raised or acted on."""
    ignored: bool = False
    """Whether the exception was raised where Python ignores it, as in `__del__`."""


_STATE = _State()


def interrupt() -> None:
    """Interrupt the main thread; for its signal handler.

    Raises:
        KeyboardInterrupt: it is the first one, and no `uninterrupted()` block is open.
    """
    if _STATE.arrived:
        return
    _STATE.arrived = True
    if _STATE.blocks:
        _STATE.noted = True
    else:
        raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that no `interrupt()` cuts short; in other threads than the main one, nothing.

    Raises:
        KeyboardInterrupt: at the end of the outermost block, if one was noted and not taken.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    block = object()
    _STATE.blocks.add(block)
    try:
        yield
    finally:
        _STATE.blocks.discard(block)
        if not _STATE.blocks and interrupt_noted():
            raise KeyboardInterrupt


def interrupt_noted() -> bool:
    """Whether an interrupt was noted and not yet taken; the caller takes it and has to act on it.

    False in all threads but the main one.
    """
    if not _STATE.noted or threading.current_thread() is not threading.main_thread():
        return False
    _STATE.noted = False
    return True


def interrupt_ignored() -> None:
    """Note that Python ignored the exception of `interrupt()`; for `sys.unraisablehook`."""
    _STATE.arrived, _STATE.ignored = False, True


def interrupt_is_due() -> bool:
    """Whether `interrupt()` has to be called again, in the main thread, because of that."""
    due, _STATE.ignored = _STATE.ignored, False
    return due
