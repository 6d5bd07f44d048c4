"""From a checkpoint to a scorer: which family it is, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.transformers_local import (
    checkpoint_folder,
    load_pretrained,
    model_window,
    weights_fingerprint,
)
from scoring.chat_layout import single_token
from scoring.engine import Scorer
from scoring.engine_fit import Overflow
from scoring.engine_memory import best_device, best_dtype
from scoring.families import likelihood, medprm, qwen_prm
from scoring.family import Family
from traces.errors import InputError, ModelRefused, PrmError

_DEFAULT_WINDOW = 4096
"""Tokens at most where the user names no limit, however long the model's window is."""


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """What a family is bound to."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype

    def model(self, auto_class: Any) -> Any:
        """The model of a transformers auto class, ready to run."""
        return load_pretrained(auto_class, self.folder, dtype=self.dtype).to(self.device).eval()


def _load_medprm(checkpoint: _Checkpoint) -> Family:
    return medprm.MedPrm(checkpoint.tokenizer, checkpoint.model(AutoModelForCausalLM))


def _load_qwen_prm(checkpoint: _Checkpoint) -> Family:
    head = qwen_prm.load_head(checkpoint.folder).to(checkpoint.device)
    return qwen_prm.QwenPrm(checkpoint.tokenizer, checkpoint.model(AutoModel), head)


def _load_likelihood(checkpoint: _Checkpoint) -> Family:
    return likelihood.Likelihood(checkpoint.tokenizer, checkpoint.model(AutoModelForCausalLM))


_LOADERS: dict[str, Callable[[_Checkpoint], Family]] = {
    "medprm": _load_medprm,
    "qwen-prm": _load_qwen_prm,
    "likelihood": _load_likelihood,
}


def load_scorer(
    spec: str,
    *,
    family: str | None = None,
    max_tokens: int | None = None,
    overflow: Overflow = Overflow.DROP_DOCUMENTS,
    reserve: int = 0,
    packing: str = "fit",
    batch_tokens: int | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Scorer:
    """Load a PRM.

    Args:
        spec: `hf:PATH_OR_ID`, or the bare path or id.
        family: one of medprm, qwen-prm, likelihood; None recognises a PRM by its tokens.
        max_tokens: the window a trace must fit into; None takes the model's, at most 4,096.
        overflow: what happens to a trace that does not fit with all its documents.
        reserve: tokens kept free for question and solution, see `scoring.engine_fit.FitRules`.
        packing: fit or medprm-compat, see there.
        batch_tokens: tokens of one forward pass; None takes what suits the device.
        device: a torch device; None takes CUDA or Apple's where there is one, else the processor.
        dtype: of the weights: float32, bfloat16 or float16; None takes float32 on a processor,
            bfloat16 elsewhere. Probabilities are computed in float32 whatever it is.

    Raises:
        InputError: an unknown family, a window that the model does not have, no room beside the
            reserve.
        PrmError: the checkpoint cannot be loaded, is not recognised or is of another family.
    """
    if family is not None and family not in _LOADERS:
        raise InputError(f'Unknown PRM family "{family}".', remedy=f"take one of {_names()}")
    try:
        folder = checkpoint_folder(spec.removeprefix("hf:"))
        tokenizer = load_pretrained(AutoTokenizer, folder)
        place = best_device(device)
        checkpoint = _Checkpoint(folder, tokenizer, place, best_dtype(place, dtype))
        bound = _LOADERS[family or _recognise(tokenizer, spec)](checkpoint)
    except ModelRefused as refusal:
        raise PrmError(refusal.what, where=refusal.where, remedy=refusal.remedy) from refusal
    window = model_window(bound.backbone.config, tokenizer)
    if max_tokens is not None and not 1 <= max_tokens <= window:
        raise InputError(
            f"The window of {max_tokens} tokens is not one that the PRM has.",
            remedy=f"give --max-tokens from 1 to {window}",
        )
    limit = max_tokens or min(window, _DEFAULT_WINDOW)
    return Scorer(
        bound,
        max_tokens=limit,
        weights=weights_fingerprint(folder),
        overflow=overflow,
        reserve=reserve,
        packing=packing,
        batch_tokens=batch_tokens,
    )


def _recognise(tokenizer: PreTrainedTokenizerBase, spec: str) -> str:
    """The family whose tokens the checkpoint has."""
    marks = {"medprm": (medprm.MARKER, *medprm.SIGNS), "qwen-prm": (qwen_prm.MARKER,)}
    for family, texts in marks.items():
        if all(single_token(tokenizer, text) is not None for text in texts):
            return family
    raise PrmError(
        f'The family of the PRM "{spec}" cannot be told from its checkpoint.',
        remedy=f"name it with --family: one of {_names()}",
    )


def _names() -> str:
    return ", ".join(_LOADERS)
