"""The model that is trained: markers in the vocabulary, a head, and LoRA adapters if asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    AddedToken,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import get_verbosity, set_verbosity, set_verbosity_error

from scoring import FAMILY_KEY, Family, bind_loaded, detect_family, tokens_to_add
from traces import InputError, ModelRefused
from training.config import TrainConfig

_TOKENS: Final = ("medprm", "math-shepherd")
"""Families that compare two tokens of the vocabulary; the others have a head of two classes."""
_HEAD: Final = {"score.weight", "score.bias"}


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Silence transformers and peft, which warn of new heads and of each other's names."""
    verbosity = get_verbosity()
    set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        set_verbosity(verbosity)


@dataclass(frozen=True, slots=True)
class TrainableModel:
    """A base made ready for training."""

    tokenizer: PreTrainedTokenizerBase
    model: Any
    """The model, with adapters if LoRA was asked for."""
    family: Family
    """Lays traces out."""
    verdicts: Sequence[int] | None
    """Ids of the tokens for incorrect and correct; None with a head of two classes."""

    @property
    def pad(self) -> int:
        """The id that fills rows; any will do, because nothing reads it."""
        return int(self.tokenizer.pad_token_id or 0)

    def save(self, trainer: Any, out: Path) -> None:
        """Write the PRM as a plain checkpoint; adapters are merged into the weights."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        if hasattr(model, "merge_and_unload"):
            merged = model.merge_and_unload()
            merged.save_pretrained(out)
            self.tokenizer.save_pretrained(out)
        else:
            trainer.save_model(str(out))
        (out / "training_args.bin").unlink(missing_ok=True)  # a pickle, with paths of this machine


def find_family(folder: Path) -> str | None:
    """The family of a base that is a PRM already; None for any other model."""
    return detect_family(folder, _tokenizer(folder))


def prepare(folder: Path, family: str, config: TrainConfig) -> TrainableModel:
    """Load a base, add the family's tokens and head, and bind the family.

    A token that is added starts as the line break, which ends steps in the base's own texts.

    Raises:
        ModelRefused: the base cannot be loaded.
        PrmError: its tokenizer or chat template does not fit the family.
    """
    tokenizer = _tokenizer(folder)
    added = tokens_to_add(family, tokenizer)
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False, special=True) for text in added], special_tokens=True
    )
    model = _model(folder, family, getattr(torch, config.dtype))
    _grow(model, tokenizer, added)
    setattr(model.config, FAMILY_KEY, family)
    bound = bind_loaded(family, tokenizer, model)
    verdicts = None
    if family in _TOKENS:
        right, wrong = bound.served.tokens  # type: ignore[attr-defined]
        verdicts = (wrong, right)
    if config.lora is not None:
        model = _with_adapters(model, tokenizer.convert_tokens_to_ids(added), config)
    return TrainableModel(tokenizer, model, bound, verdicts)


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as fault:  # a damaged file raises anything
        raise _unusable(folder, fault) from fault


def _model(folder: Path, family: str, dtype: torch.dtype) -> Any:
    """The base with the family's head; only a new head may be missing from its weights."""
    kind: Any = AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if family not in _TOKENS:
            kind = AutoModelForTokenClassification
            config.id2label = {0: "incorrect", 1: "correct"}
            config.label2id = {"incorrect": 0, "correct": 1}
            # Without this transformers puts a dropout of 0.1 before the head.
            config.classifier_dropout = 0.0
        with silent_libraries():
            model, report = kind.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as fault:  # as above
        raise _unusable(folder, fault) from fault
    if missing := sorted(set(report["missing_keys"]) - _HEAD):
        raise _unusable(folder, ValueError(f'the weight "{missing[0]}" is missing'))
    return model


def _unusable(folder: Path, fault: Exception) -> ModelRefused:
    reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
    return ModelRefused(
        f'The base in "{folder}" cannot be trained: {reason[:200]}',
        remedy="give a folder with config.json, a tokenizer and *.safetensors",
    )


@torch.no_grad()
def _grow(model: Any, tokenizer: Any, added: Sequence[str]) -> None:
    if not added:
        return
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    source = tokenizer("\n\n", add_special_tokens=False)["input_ids"][-1:]
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    for table in tables:
        if table is not None and source:
            for text in added:
                row = table.weight[source[0]].clone()
                table.weight[tokenizer.convert_tokens_to_ids(text)] = row


def _with_adapters(model: Any, added: Sequence[int], config: TrainConfig) -> Any:
    """The model with LoRA adapters on its linear layers; head and new tokens are trained whole."""
    try:
        from peft import LoraConfig, TaskType, get_peft_model
    except ImportError as fault:
        raise InputError(
            "LoRA needs peft, which is not installed.", remedy="pip install 'stepgold[train]'"
        ) from fault
    classes = hasattr(model, "score")
    given: dict[str, Any] = {
        "r": config.lora,
        "lora_alpha": 2 * (config.lora or 1),
        "target_modules": "all-linear",
        **({"exclude_modules": ["score"]} if classes else {}),
        "task_type": TaskType.TOKEN_CLS if classes else TaskType.CAUSAL_LM,
        **({"trainable_token_indices": list(added)} if added else {}),
        **config.lora_options,
    }
    try:
        with silent_libraries():
            return get_peft_model(model, LoraConfig(**given))
    except (TypeError, ValueError) as fault:
        raise InputError(
            f"peft refuses the options: {str(fault).strip().splitlines()[0]}",
            where="--lora-option",
        ) from fault
