"""Reranking of the best candidates by a cross-encoder, which reads query and passage together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.documents import cut_to_tokens
from traces import InputError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


_BATCH = 16
_WIDEST_WINDOW = 8192
_LEAST_ROOM = 16
"""Tokens of a passage that must fit with the query."""


class Reranker(Protocol):
    """Scores pairs of query and passage."""

    @property
    def name(self) -> str:
        """The model with a hash of its weights."""

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return a score per pair (query, passage): higher is more relevant, on no fixed scale."""


def load_reranker(model: str) -> CrossEncoderReranker:
    """Load a cross-encoder of sentence-transformers in float32, from a folder or the hub.

    Raises:
        InputError: it cannot be loaded, or gives more than one score per pair.
    """
    from sentence_transformers import CrossEncoder

    try:
        loaded = CrossEncoder(model, trust_remote_code=False, model_kwargs={"dtype": "float32"})
    except Exception as fault:  # the hub, and damaged files such as a pickle, raise anything
        reason = f" ({str(fault).splitlines()[0]})" if str(fault) else ""
        raise InputError(
            f"Cannot load the cross-encoder '{model}'{reason}.",
            remedy="use --rerank FOLDER, or connect this machine to the Hugging Face Hub",
        ) from fault
    if loaded.num_labels != 1:
        raise InputError(
            f"'{model}' gives {loaded.num_labels} scores per pair; a reranker gives one.",
            remedy="use a reranker such as cross-encoder/ms-marco-MiniLM-L6-v2",
        )
    return CrossEncoderReranker(Path(model).name, loaded)


class CrossEncoderReranker:
    """A sentence-transformers cross-encoder with one score per pair."""

    def __init__(self, label: str, model: CrossEncoder) -> None:
        self._model = model
        self._name = f"{label}@{_weights_hash(model)}"
        widest = int(model.max_seq_length or _WIDEST_WINDOW)
        special = int(model.tokenizer.num_special_tokens_to_add(pair=True))
        self._window = min(widest, _WIDEST_WINDOW) - special

    @property
    def name(self) -> str:
        """Label and hash of the weights."""
        return self._name

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return a score per pair; a passage beyond the window is read in pieces, and the best one
        counts.

        Raises:
            InputError: a query leaves no room for a passage.
        """
        pieces: list[tuple[str, str]] = []
        owners: list[int] = []
        for owner, (query, passage) in enumerate(pairs):
            for piece in self._pieces(query, passage):
                pieces.append((query, piece))
                owners.append(owner)
        best = np.full(len(pairs), -np.inf, dtype=np.float32)
        if pieces:
            scores = self._model.predict(
                pieces,
                batch_size=_BATCH,
                show_progress_bar=False,
                # Raw logits: after a sigmoid all clearly relevant passages would be 1.
                activation_fn=lambda logits: logits,
            )
            np.maximum.at(best, owners, np.asarray(scores, dtype=np.float32))
        return best

    def _pieces(self, query: str, passage: str) -> list[str]:
        room = self._window - self._count(query)
        if room < _LEAST_ROOM:
            raise InputError(
                f"A query of {self._count(query)} tokens leaves no room for a passage in the"
                f" cross-encoder's window of {self._window}.",
                remedy="drop --rerank, or use a model with a longer window",
            )
        if self._count(passage) <= room:
            return [passage]
        return [passage[start:end] for start, end in cut_to_tokens(passage, room, self._count)]

    def _count(self, text: str) -> int:
        return len(self._model.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _weights_hash(model: CrossEncoder) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
