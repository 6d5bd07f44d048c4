"""Monte-Carlo labelling: what strategies save, what the engine is worth. `make bench-continue`.

`python -m benchmarks.continuation engine` or `... strategies --problems 50` runs one part, smaller.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks import continuation_engine, continuation_strategies, continuation_vision

PARTS = {
    "engine": continuation_engine.main,
    "strategies": continuation_strategies.main,
    "vision": continuation_vision.main,
}


def main(argv: Sequence[str]) -> None:
    """Run the named part with the rest of the arguments, or all parts as they are."""
    if argv and argv[0] in PARTS:
        PARTS[argv[0]](list(argv[1:]))
        return
    for part in PARTS.values():
        part([])


if __name__ == "__main__":
    main(sys.argv[1:])
