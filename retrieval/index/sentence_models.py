"""Models that turn texts into vectors: sentence-transformers, and plain BERT without that library.

Importing sentence-transformers takes longer than a search. So a BERT with mean pooling in a local
folder (all-MiniLM-L6-v2 is one) runs on torch's own encoder layers on a CPU. Vectors differ by at
most 1e-6 from the library's, and `content` is the same.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from traces import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_WIDEST_WINDOW = 8192
_IMAGES_AT_ONCE = 16
_MODULES: Final = ["Transformer", "Pooling", "Normalize"]
_NO_PROMPTS: Final = {"query": "", "document": ""}


class SentenceModel(Protocol):
    """One model of an encoder."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    def device_type(self) -> str:
        """cpu, cuda or mps."""

    @property
    def window(self) -> int:
        """Most tokens of a text, beside special tokens and the model's longest prompt."""

    @property
    def unknown_id(self) -> int | None:
        """Id of the token for unknown text, if there is one."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens."""

    def encode(self, texts: Sequence[str], *, query: bool) -> NDArray[np.float32]:
        """Return one vector per text, shape (n, dimension), in one batch."""

    @property
    def sees_images(self) -> bool:
        """Whether it also gives images vectors, in the space of the texts."""

    def encode_images(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Return one vector per image (PNG or JPEG), shape (n, dimension), in batches."""

    def use_bfloat16(self) -> None:
        """Compute in bfloat16 from now on."""

    def content(self) -> Iterator[bytes]:
        """Yield everything that determines the vectors, independent of the files' location."""


def load_sentence_model(model: str, pooling: str | None) -> SentenceModel:
    """Load one model in float32.

    Args:
        model: folder or hub id.
        pooling: cls or mean; None if the model defines it.

    Raises:
        InputError: the model does not define its pooling, and none is given.
        OSError, ValueError, RuntimeError: it cannot be loaded.
    """
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    if pooling is None and not accelerated and (bert := PlainBert.load(Path(model))) is not None:
        return bert
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from sentence_transformers.util import is_sentence_transformer_model, load_file_path

    # Explicit, because transformers 5 defaults to the checkpoint's dtype.
    options = {"dtype": "float32"}
    if pooling is not None:
        safe = {"trust_remote_code": False}
        words = Transformer(
            model,
            model_kwargs=options | safe,
            config_kwargs=safe,
            processor_kwargs=safe,
        )
        modules = [words, Pooling(words.get_embedding_dimension(), pooling)]
        return LibraryModel(SentenceTransformer(modules=modules, trust_remote_code=False))
    if is_sentence_transformer_model(model):
        return LibraryModel(
            SentenceTransformer(model, trust_remote_code=False, model_kwargs=options)
        )
    if (Path(model) / "config.json").is_file() or (
        not Path(model).is_dir() and load_file_path(model, "config.json") is not None
    ):
        raise InputError(
            f"'{model}' does not define how token vectors are pooled.",
            remedy=f"add the pooling: '{model}#cls' or '{model}#mean'",
        )
    raise OSError(f"{model} is not a model")


class LibraryModel:
    """A sentence-transformers model."""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model
        self.dimension = int(model.get_embedding_dimension() or 0)
        self.device_type = str(model.device.type)
        self.unknown_id: int | None = model.tokenizer.unk_token_id

    @property
    def window(self) -> int:
        """Most tokens of a text, beside special tokens and the model's longest prompt."""
        widest = min(self._model.get_max_seq_length() or _WIDEST_WINDOW, _WIDEST_WINDOW)
        prompts = self.token_ids([prompt for prompt in self._model.prompts.values() if prompt])
        special = int(self._model.tokenizer.num_special_tokens_to_add())
        return int(widest) - special - max(map(len, prompts), default=0)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens."""
        if not texts:
            return []
        tokenizer = self._model.tokenizer
        found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return found

    def encode(self, texts: Sequence[str], *, query: bool) -> NDArray[np.float32]:
        """Return one vector per text, shape (n, dimension), in one batch."""
        encode = self._model.encode_query if query else self._model.encode_document
        vectors: NDArray[np.float32] = encode(
            list(texts), batch_size=len(texts), convert_to_numpy=True, show_progress_bar=False
        )
        return vectors

    @property
    def sees_images(self) -> bool:
        """Whether it also gives images vectors, in the space of the texts."""
        return "image" in self._model.modalities

    def encode_images(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Return one vector per image (PNG or JPEG), shape (n, dimension), in batches."""
        read = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
        vectors: NDArray[np.float32] = self._model.encode(
            read, batch_size=_IMAGES_AT_ONCE, convert_to_numpy=True, show_progress_bar=False
        )
        return vectors

    def use_bfloat16(self) -> None:
        """Compute in bfloat16 from now on."""
        self._model.bfloat16()

    def content(self) -> Iterator[bytes]:
        """Yield weights, tokenizer and settings."""
        yield from _weights_content(self._model.state_dict())
        tokenizer = self._model.tokenizer
        core = getattr(tokenizer, "backend_tokenizer", None)
        words = core.to_str() if core is not None else sorted(tokenizer.get_vocab())
        modules = [repr(module) for module in self._model][1:]
        settings = [words, self._model.get_max_seq_length(), self._model.prompts, modules]
        yield json.dumps(settings, sort_keys=True).encode()


def _weights_content(weights: Mapping[str, Tensor]) -> Iterator[bytes]:
    for key, tensor in sorted(weights.items()):
        array = tensor.cpu().numpy()
        yield f"{key} {array.dtype} {array.shape}".encode()
        yield array.tobytes()


class PlainBert:
    """A BERT with mean pooling and unit vectors, on torch's encoder layers."""

    device_type = "cpu"
    sees_images = False

    def __init__(
        self, weights: Mapping[str, Tensor], config: Mapping[str, Any], tokenizer: Tokenizer
    ) -> None:
        """Take weights under transformers' names, and the content of config.json."""
        self._weights, self._config, self._tokenizer = weights, config, tokenizer
        self._written = tokenizer.to_str()
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._layers = [self._layer(number) for number in range(config["num_hidden_layers"])]
        self._dtype = torch.float32
        self.unknown_id: int | None = tokenizer.token_to_id("[UNK]")
        self.dimension = int(config["hidden_size"])
        self.window = int(config["max_seq_length"]) - tokenizer.num_special_tokens_to_add(False)

    @classmethod
    def load(cls, folder: Path) -> PlainBert | None:
        """Load a folder of sentence-transformers; None if it is not a plain BERT."""
        config = _plain_config(folder)
        if config is None:
            return None
        weights = {
            name: value.float()
            for name, value in load_file(folder / "model.safetensors").items()
            if name != "embeddings.position_ids"
        }
        layers = {name.split(".")[2] for name in weights if name.startswith("encoder.layer.")}
        if (
            "embeddings.word_embeddings.weight" not in weights
            or len(layers) != (config["num_hidden_layers"])
        ):
            return None
        return cls(weights, config, Tokenizer.from_file(str(folder / "tokenizer.json")))

    def _layer(self, number: int) -> nn.TransformerEncoderLayer:
        """Return one encoder layer; torch keeps queries, keys and values in one matrix."""
        head = f"encoder.layer.{number}."
        part = {
            name.removeprefix(head): value
            for name, value in self._weights.items()
            if name.startswith(head)
        }
        layer = nn.TransformerEncoderLayer(
            self._config["hidden_size"],
            self._config["num_attention_heads"],
            dim_feedforward=self._config["intermediate_size"],
            activation="gelu",
            layer_norm_eps=self._config["layer_norm_eps"],
            batch_first=True,
            device="meta",
        )
        state = {
            f"self_attn.in_proj_{kind}": torch.cat(
                [part[f"attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            )
            for kind in ("weight", "bias")
        }
        for ours, theirs in _LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                state[f"{ours}.{kind}"] = part[f"{theirs}.{kind}"]
        layer.load_state_dict(state, assign=True)
        return layer.eval()

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [each.ids for each in found]

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, query: bool) -> NDArray[np.float32]:
        """Return one unit vector per text, shape (n, dimension), in one batch."""
        found = self._tokenizer.encode_batch(list(texts))
        lengths = torch.tensor([len(each.ids) for each in found])
        ids = nn.utils.rnn.pad_sequence(
            [torch.tensor(each.ids) for each in found], batch_first=True
        )
        padding = torch.arange(ids.shape[1]) >= lengths.unsqueeze(1)
        hidden = self._embedded(ids)
        for layer in self._layers:
            hidden = layer(hidden, src_key_padding_mask=padding)
        shown = (~padding).unsqueeze(-1).float()
        pooled = (hidden.float() * shown).sum(1) / shown.sum(1)
        vectors: NDArray[np.float32] = nn.functional.normalize(pooled).numpy()
        return vectors

    def _embedded(self, ids: Tensor) -> Tensor:
        tables = {
            name: self._weights[f"embeddings.{name}.weight"].to(self._dtype)
            for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")
        }
        hidden = tables["word_embeddings"][ids] + tables["token_type_embeddings"][0]
        hidden = hidden + tables["position_embeddings"][: ids.shape[1]]
        scale, shift = (
            self._weights[f"embeddings.LayerNorm.{kind}"].to(self._dtype)
            for kind in ("weight", "bias")
        )
        return nn.functional.layer_norm(
            hidden, (self.dimension,), scale, shift, eps=self._config["layer_norm_eps"]
        )

    def encode_images(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Refuse: it reads texts alone."""
        raise TypeError("a BERT sees no images")

    def use_bfloat16(self) -> None:
        """Compute in bfloat16 from now on."""
        self._dtype = torch.bfloat16
        self._layers = [layer.bfloat16() for layer in self._layers]

    def content(self) -> Iterator[bytes]:
        """Yield weights, tokenizer and settings, as `LibraryModel.content` does."""
        yield from _weights_content({f"0.model.{k}": v for k, v in self._weights.items()})
        settings = [self._written, self._config["max_seq_length"], _NO_PROMPTS, self._modules()]
        yield json.dumps(settings, sort_keys=True).encode()

    def _modules(self) -> list[str]:
        """Return the library's description of the modules after the transformer."""
        pooling = {"embedding_dimension": self.dimension, "pooling_mode": "mean"}
        output = "sentence_embedding"
        normalize = {"module_input_name": output, "module_output_name": output}
        return [f"Pooling({pooling | {'include_prompt': True}})", f"Normalize({normalize})"]


_LAYER_NAMES: Final = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Parts of torch's encoder layer, and what transformers calls them."""


def _plain_config(folder: Path) -> dict[str, Any] | None:
    """Return config.json with `max_seq_length` if the folder holds a plain BERT, else None.

    Plain is: transformer, mean pooling and normalization, no prompts, and one safetensors file.
    """
    files = ("modules.json", "config.json", "tokenizer.json", "model.safetensors")
    if not all((folder / name).is_file() for name in files):
        return None
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    if [module["type"].rsplit(".", 1)[-1] for module in modules] != _MODULES:
        return None
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    text = _settings(folder / modules[0]["path"] / "sentence_bert_config.json")
    pooling = _settings(folder / modules[1]["path"] / "config.json")
    other = _settings(folder / "config_sentence_transformers.json")
    modes = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    wanted = (
        config.get("model_type") == "bert",
        config.get("hidden_act") == "gelu",
        config.get("position_embedding_type", "absolute") == "absolute",
        not config.get("is_decoder"),
        modules[0]["path"] == "",
        isinstance(text.get("max_seq_length"), int),
        not text.get("do_lower_case"),
        set(text) <= {"max_seq_length", "do_lower_case"},
        modes == ["pooling_mode_mean_tokens"] or pooling.get("pooling_mode") == "mean",
        pooling.get("include_prompt", True),
        not any((other.get("prompts") or {}).values()),
        other.get("default_prompt_name") is None,
    )
    return {**config, "max_seq_length": text["max_seq_length"]} if all(wanted) else None


def _settings(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
