"""Reciprocal rank fusion of several rankings of passages.

Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009: the fused score of a passage is the sum of 1 / (c + rank) over the
rankings that contain it, with ranks from 1 and c = 60. Scores on different scales are never
compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT_CONSTANT = 60
"""The constant c of the paper."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Passages by one search, best first."""

    ids: NDArray[np.int64]
    """Passage ids, each once."""
    scores: NDArray[np.float32]
    """Their scores, descending; equal scores share a rank."""

    def __len__(self) -> int:
        return len(self.ids)

    def ranks(self) -> NDArray[np.int64]:
        """Return 1-based ranks; passages of equal score share the best of theirs."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        starts = np.flatnonzero(np.diff(self.scores, prepend=np.float32(np.inf)))
        lengths = np.diff(np.append(starts, len(self)))
        return np.repeat(starts + 1, lengths).astype(np.int64)


def reciprocal_rank_fusion(
    rankings: Sequence[Ranking], *, constant: int = DEFAULT_CONSTANT
) -> Ranking:
    """Fuse rankings of one query; ties keep the order of the earliest ranking that has them.

    Args:
        rankings: any number of them; a passage need not be in all.
        constant: c, at least 1: the larger, the less the first places count.
    """
    fused: defaultdict[int, float] = defaultdict(float)
    for ranking in rankings:
        for passage_id, rank in zip(ranking.ids.tolist(), ranking.ranks().tolist(), strict=True):
            fused[passage_id] += 1 / (constant + rank)
    # Sorting is stable and the dict keeps insertion order, which decides ties.
    ordered = sorted(fused.items(), key=lambda entry: -entry[1])
    return Ranking(
        np.array([passage_id for passage_id, _ in ordered], dtype=np.int64),
        np.array([score for _, score in ordered], dtype=np.float32),
    )
