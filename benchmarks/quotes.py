"""Of 300 quotes each, how many are verified: ours beside a plain fuzzy threshold.

    python -m benchmarks.quotes [--quotes N]

Honest quotes should be found (95%), tampered ones never. The alternative is what production users of
fuzzy matching run: rapidfuzz `partial_ratio` >= 90 after lower-casing.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from rapidfuzz import fuzz

from judge import verify_quote
from tests.judge import spans
from tests.judge.spans import Verifier, accepted, accepted_elsewhere


def fuzzy(quote: str, passage: str) -> bool:
    """The named alternative."""
    return fuzz.partial_ratio(quote.lower(), passage.lower()) >= 90


def sources(data: Path) -> dict[str, list[str]]:
    """Passages by source; those of public data only where it is there."""
    made = {"lab": spans.lab_passages(1), "generated": spans.generated_passages(1)}
    if data.is_dir():
        made |= {
            "medquad": spans.medquad_passages(data),
            "pubmedqa": spans.pubmedqa_passages(data),
        }
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quotes", type=int, default=300, help="of each kind")
    count = parser.parse_args().quotes
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    texts = sources(Path(os.environ.get("STEPGOLD_REAL_DATA") or default))
    print(f"accepted of {count}, ours / fuzzy at 90")
    print(f"{'':<20}" + "".join(f"{name:>16}" for name in texts))

    def row(name: str, measure: Callable[[list[str], Verifier], list[str]]) -> None:
        cells = [
            f"{len(measure(passages, verify_quote))} / {len(measure(passages, fuzzy))}"
            for passages in texts.values()
        ]
        print(f"{name:<20}" + "".join(f"{cell:>16}" for cell in cells))

    for tamper in spans.TRUE:
        row(tamper.__name__, lambda p, v, t=tamper: accepted(p, t, v, 2, n=count))  # type: ignore[misc]
    for tamper, holds in spans.FALSE:
        row(
            tamper.__name__,
            lambda p, v, t=tamper, h=holds: accepted(p, t, v, 7, holds=h, n=count),  # type: ignore[misc]
        )
    row("another passage", lambda p, v: accepted_elsewhere(p, v, 8, n=count))
    chance = random.Random(3)
    for name, passages in texts.items():
        drawn = [spans.draw_span(passages, chance) for _ in range(count)]
        began = time.perf_counter()
        for passage, words in drawn:
            verify_quote(" ".join(words), passage)
        took = (time.perf_counter() - began) / count
        print(f"{name}: {took * 1e6:.0f} microseconds a quote in its passage")


if __name__ == "__main__":
    main()
