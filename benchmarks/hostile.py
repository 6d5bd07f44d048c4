"""CPU seconds that 1 MB of hostile text takes in each reader: `make bench-hostile`.

The texts repeat one unit (`tests/test_hostile_texts.py` has the list). Time is linear in the length
of each; a quadratic reader would take hours.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

from tests.test_hostile_texts import READERS, SHAPES

AIM_S = 2.0
"""CPU seconds that no reader should exceed on a quiet machine."""


def seconds(reader: str, shape: str, size: int) -> float:
    """CPU seconds of one reader for one text of `size` characters."""
    unit = SHAPES[shape]
    text = unit * (size // len(unit))
    before = time.process_time()
    READERS[reader](text)
    return time.process_time() - before


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the slowest texts of each reader, or every figure as JSON."""
    parser = argparse.ArgumentParser(prog="hostile", description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000, help="characters [1000000]")
    parser.add_argument("--reader", choices=READERS, action="append", help="[all]")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args(arguments)
    found = {}
    for reader in asked.reader or READERS:
        seconds(reader, "digits", 1000)  # what is loaded once does not count
        seconds(reader, "Korean", 1000)
        seconds(reader, "Chinese", 1000)
        found[reader] = {shape: seconds(reader, shape, asked.size) for shape in SHAPES}
        if asked.json:
            continue
        slowest = sorted(found[reader].items(), key=lambda one: -one[1])[:3]
        over = sum(taken > AIM_S for taken in found[reader].values())
        shown = ", ".join(f"{shape} {taken:.2f}" for shape, taken in slowest)
        print(f"{reader:<18}{over:>3} over {AIM_S:g} s; slowest: {shown}", flush=True)
    if asked.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
