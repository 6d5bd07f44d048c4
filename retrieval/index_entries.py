"""Of which texts the vectors of an index are: passage ids with digests of what was encoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.embedding import text_to_embed
from retrieval.vector_journal import DIGEST_BYTES, digest_of
from traces.evidence import Passage

_ENTRY = np.dtype([("id", "<i8"), ("digest", f"V{DIGEST_BYTES}")])


@dataclass(frozen=True, slots=True)
class IndexEntries:
    """Passage ids and, in the same order, the digests of their texts."""

    ids: NDArray[np.int64]
    """n passage ids."""
    digests: Sequence[bytes]
    """n digests; two passages of the same text have the same."""

    @classmethod
    def of(cls, passages: Iterable[tuple[int, Passage]]) -> IndexEntries:
        """The entries of passages, one after the other: their texts are not kept."""
        ids: list[int] = []
        digests: list[bytes] = []
        for passage_id, passage in passages:
            ids.append(passage_id)
            digests.append(digest_of(text_to_embed(passage)))
        return cls(np.asarray(ids, dtype=np.int64), digests)

    @classmethod
    def read(cls, path: Path) -> IndexEntries:
        """Read what `write` wrote; OSError if the file cannot be read."""
        entries = np.fromfile(path, dtype=_ENTRY)
        return cls(entries["id"].astype(np.int64), [bytes(one) for one in entries["digest"]])

    def write(self, path: Path) -> None:
        """Write them; OSError if that fails."""
        entries = np.zeros(len(self.ids), dtype=_ENTRY)
        entries["id"] = self.ids
        entries["digest"] = np.frombuffer(b"".join(self.digests), dtype=f"V{DIGEST_BYTES}")
        entries.tofile(path)

    def by_id(self) -> dict[int, bytes]:
        """The digest of each passage."""
        return dict(zip(self.ids.tolist(), self.digests, strict=True))

    def by_digest(self) -> dict[bytes, int]:
        """One passage of each text."""
        return dict(zip(self.digests, self.ids.tolist(), strict=True))
