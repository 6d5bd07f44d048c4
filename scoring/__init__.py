"""PRM step scores: families (prompt, marker, read-out) and the engine that runs them.

`load_scorer` and `Scorer` are looked up on first use, so that importing the package loads no model
library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoring.engine.engine import Scorer
    from scoring.loading import load_scorer

__all__ = ["Scorer", "load_scorer"]


def __getattr__(name: str) -> Any:
    """Look up the public names where they live."""
    if name == "load_scorer":
        from scoring.loading import load_scorer

        return load_scorer
    if name == "Scorer":
        from scoring.engine.engine import Scorer

        return Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
