"""Loading checkpoints without transformers' reports, where what is missing is told otherwise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import get_verbosity, set_verbosity


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' report of unexpected weights: a head that we load ourselves is none."""
    before = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(before)
