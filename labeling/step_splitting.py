"""A solution as a list of steps: by numbered lines, by blank lines, or by a given delimiter.

Never inside prose: "as we saw in Step 2: ..." in the middle of a line starts no step. Nothing is
lost: a preamble belongs to the first step, unnumbered lines to the step before.
"""

from __future__ import annotations

import re
from itertools import pairwise

from traces.errors import InputError

_NUMBERED = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*)?(?:\*\*|__)?Step[ \t]+(\d+)\b[ \t]*[:.)]", re.M | re.I
)
_BLANK = re.compile(r"\n[ \t]*\n\s*")


def split_steps(text: str, delimiter: str | None = None) -> tuple[str, ...]:
    """The steps of a solution, stripped, in order; empty if there is no text.

    Args:
        text: the solution.
        delimiter: what stands between two steps; None looks for lines that start with "Step n:"
            (Markdown heading or bold allowed) and, where there are fewer than two, for blank lines.

    Raises:
        InputError: an empty delimiter.
    """
    if delimiter == "":
        raise InputError("The step delimiter is empty.", remedy="leave it out, or name a text")
    if delimiter is not None:
        parts = text.split(delimiter)
    else:
        starts = _numbered_starts(text)
        if len(starts) > 1:
            bounds = [0, *starts[1:], len(text)]
            parts = [text[a:b] for a, b in pairwise(bounds)]
        else:
            parts = _BLANK.split(text)
    return tuple(part.strip() for part in parts if part.strip())


def _numbered_starts(text: str) -> list[int]:
    """Where numbered steps begin: the numbers must go up, a repeated one is a remark in a step."""
    starts: list[int] = []
    last = -1
    for found in _NUMBERED.finditer(text):
        if int(found[1]) > last:
            starts.append(found.start())
            last = int(found[1])
    return starts
