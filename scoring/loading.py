"""From a checkpoint to a scorer: which family it is, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference import (
    CHECKPOINT_CONFIG,
    ProblemImages,
    checkpoint_folder,
    checkpoint_settings,
    weights_fingerprint,
)
from scoring.engine.cost import best_device, best_dtype
from scoring.engine.engine import Scorer, window_of
from scoring.engine.fit import Overflow
from scoring.engine.heads import tensor_names
from scoring.families import (
    generic,
    implicit,
    likelihood,
    math_shepherd,
    medprm,
    qwen_prm,
    rlhflow,
    skywork,
    trl,
    visualprm,
)
from scoring.families import medprm as medprm_compat
from scoring.families import medprm as medprm_orm
from scoring.families.generic_layout import GenericLayout, named_family
from scoring.family import Checkpoint, Family
from scoring.images.internvl import bind_visualprm, load_tokenizer
from scoring.images.tokens import ShowsImages
from scoring.layout import single_token
from scoring.names import family_names, missing_reference, refuse_mismatch
from scoring.quiet import Reference
from traces import InputError, ModelRefused, PrmError


def _causal(family: Callable[..., Family], *more: Any) -> Callable[[Checkpoint], Family]:
    """For families that read the output head of a causal language model."""
    return lambda it: family(it.tokenizer, it.model(AutoModelForCausalLM), *more)


def _with_head(
    family: Callable[..., Family],
    load_head: Callable[[Path], nn.Module],
    *more: Any,
) -> Callable[[Checkpoint], Family]:
    """For families with a head of their own on the backbone's hidden states."""

    def loaded(it: Checkpoint) -> Family:
        head = load_head(it.folder).to(it.device)
        return family(it.tokenizer, it.model(AutoModel), head, *more)

    return loaded


def _against_reference(name: str) -> Callable[[Checkpoint], Family]:
    """For families that compare a causal language model with another one."""

    def loaded(it: Checkpoint) -> Family:
        if it.reference is None:
            raise missing_reference(name)
        model = it.model(AutoModelForCausalLM)
        other = replace(it, folder=it.reference.folder).model(AutoModelForCausalLM)
        return implicit.ImplicitPrm(it.tokenizer, model, other, name, it.reference.settings())

    return loaded


FAMILIES: dict[str, Callable[[Checkpoint], Family]] = {
    "medprm": _causal(medprm.MedPrm),
    "medprm-orm": _causal(medprm_orm.MedPrmOrm),
    **{n: _with_head(qwen_prm.QwenPrm, qwen_prm.load_head, n) for n in qwen_prm.NAMES},
    "math-shepherd": _causal(math_shepherd.MathShepherd),
    **{n: _causal(rlhflow.RlhFlow, n) for n in rlhflow.NAMES},
    "skywork-o1": _with_head(skywork.Skywork, skywork.load_head),
    **{n: _with_head(trl.TrlTokenClassification, trl.load_head, n) for n in trl.NAMES},
    visualprm.NAME: bind_visualprm,
    **{n: _against_reference(n) for n in implicit.AGGREGATIONS},
    "likelihood": _causal(likelihood.Likelihood),
}
"""By the name given to `--family`."""


def bind(family: str | GenericLayout, checkpoint: Checkpoint, mode: str = "strict") -> Family:
    """Load the checkpoint's weights and bind the family to them.

    Raises:
        InputError: the family has no other mode than strict; a reference is missing, or given to a
            family that compares with none.
        ModelRefused: the weights cannot be loaded.
        PrmError: they are not of this family.
    """
    name = family.name if isinstance(family, GenericLayout) else family
    refuse_mismatch(name, mode, reference=checkpoint.reference is not None)
    if mode == "medprm-compat":
        return _causal(medprm_compat.MedPrmCompat)(checkpoint)
    if isinstance(family, GenericLayout):
        return _causal(generic.Generic, family)(checkpoint)
    return FAMILIES[family](checkpoint)


# --- Which family a checkpoint is of, as far as its files say


def recognise(folder: Path, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The family whose marker or head the checkpoint has; None if that cannot be told.

    Math-Shepherd's and RLHFlow's checkpoints are plain language models, a converted VisualPRM is a
    plain InternVL, the outcome model has the tokens of Med-PRM, and the two Qwen PRMs differ in
    nothing but their weights: those are named by the user.
    """
    if visualprm.ORIGINAL in _architectures(folder):
        return visualprm.NAME
    if _own_token(tokenizer, medprm.MARKER) and None not in [
        single_token(tokenizer, sign) for sign in medprm.SIGNS
    ]:
        return "medprm"
    if _own_token(tokenizer, qwen_prm.MARKER):
        return "qwen-prm"
    names = tensor_names(folder)
    if any(f"{layer}.weight" in names for layers in skywork.HEADS for layer in layers):
        return "skywork-o1"
    if _is_token_classification(folder) and any(
        f"{layer}.weight" in names for layers in trl.HEADS for layer in layers
    ):
        return "trl"
    return None


def _own_token(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Whether the text is a token that somebody put in by itself.

    The byte pairs of large vocabularies make one token of many a short word (` ки` is one of them):
    those are spelled in the vocabulary's own signs, added ones as they are.
    """
    number = single_token(tokenizer, text)
    return number is not None and tokenizer.convert_ids_to_tokens(number) == text


def _is_token_classification(folder: Path) -> bool:
    return any(name.endswith("ForTokenClassification") for name in _architectures(folder))


def _architectures(folder: Path) -> list[str]:
    return [
        str(name)
        for name in checkpoint_settings(folder / CHECKPOINT_CONFIG).get("architectures") or []
    ]


# --- From a checkpoint to a scorer: which family it is, and how it is loaded


DEFAULT_WINDOW = 4096
"""Tokens at most where the user names no limit, however long the model's window is."""


def load_scorer(
    spec: str,
    *,
    family: str | GenericLayout | None = None,
    mode: str = "strict",
    max_tokens: int | None = None,
    overflow: Overflow = Overflow.DROP_DOCUMENTS,
    reserve: int = 0,
    packing: str = "fit",
    batch_tokens: int | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    images: ProblemImages | None = None,
    reference: str | None = None,
) -> Scorer:
    """Load a PRM.

    Args:
        spec: `hf:PATH_OR_ID`, or the bare path or id.
        family: a name of `scoring.names.FAMILY_NAMES`, the path of a FILE.toml that describes another
            one, or what such a file says; None recognises a PRM by its tokens and heads.
        mode: strict, or medprm-compat: as Med-PRM's released script, its packing included.
        max_tokens: the window a trace must fit into; None takes the model's, at most 4,096 (the
            whole of it with images, and in medprm-compat, as nothing is limited there).
        overflow, reserve, packing: which documents a trace is shown, and what happens to one that
            does not fit with all of them: see `scoring.engine.fit.FitRules`.
        batch_tokens: tokens of one forward pass; None takes what suits the device.
        device: a torch device; None takes CUDA or Apple's where there is one, else the processor.
        dtype: of the weights: float32, bfloat16 or float16; None takes float32 on a processor,
            bfloat16 elsewhere and in medprm-compat, where alone probabilities are bfloat16 too.
        images: reads the images of problems, for a family that is shown them; None reads their paths
            as they are.
        reference: the checkpoint that an implicit PRM is held against, as `spec`; with one, a PRM that
            is not recognised is read as implicit-prm.

    Raises:
        InputError: an unknown family or mode, a faulty family file, a window that the model does
            not have, no room beside the reserve, a reference too many or missing.
        PrmError: a checkpoint cannot be loaded, is not recognised, or of another family or vocabulary.
    """
    named, compat = named_family(family, mode), _is_compat(mode, reserve)
    try:
        folder = checkpoint_folder(spec.removeprefix("hf:"))
        tokenizer = load_tokenizer(folder)
        place = best_device(device)
        chosen = best_dtype(place, "bfloat16" if compat and dtype is None else dtype)
        other = Reference.find(reference, tokenizer) if reference else None
        checkpoint = Checkpoint(folder, tokenizer, place, chosen, images or ProblemImages(), other)
        bound = bind(named or told_family(folder, tokenizer, spec, other), checkpoint, mode)
    except ModelRefused as refusal:
        raise PrmError(refusal.what, where=refusal.where, remedy=refusal.remedy) from refusal
    return Scorer(
        bound,
        max_tokens=_limit(bound, max_tokens, whole=compat),
        weights=weights_fingerprint(folder),
        overflow=overflow,
        reserve=reserve,
        packing=mode if compat else packing,
        batch_tokens=batch_tokens,
    )


def _limit(family: Family, asked: int | None, *, whole: bool) -> int:
    """The window that traces must fit into.

    Args:
        family: bound to its model.
        asked: what the user wants; None for the default.
        whole: whether that is all of the model's window.

    Raises:
        InputError: the model has no such window.
    """
    window = window_of(family)
    if asked is not None and not 1 <= asked <= window:
        raise InputError(
            f"The window of {asked} tokens is not one that the PRM has.",
            remedy=f"give --max-tokens from 1 to {window}",
        )
    # An image alone may take more than the usual limit.
    roomy = whole or isinstance(family, ShowsImages)
    return asked or (window if roomy else min(window, DEFAULT_WINDOW))


def _is_compat(mode: str, reserve: int) -> bool:
    """Whether Med-PRM's released script is to be repeated, with its own reserve."""
    compat = mode == "medprm-compat"
    if compat and reserve:
        raise InputError(
            "The mode medprm-compat has a reserve of its own, of 1,024 tokens.",
            remedy="leave --reserve out",
        )
    return compat


def told_family(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    spec: str,
    reference: Reference | None = None,
) -> str:
    """The family that the checkpoint's files name; implicit-prm if they name none beside a reference.

    Raises:
        PrmError: they name none.
    """
    family = recognise(folder, tokenizer)
    if family is None and reference is not None:
        return implicit.ANY
    if family is None:
        raise PrmError(
            f'The family of the PRM "{spec}" cannot be told from its checkpoint.',
            remedy=f"name it with --family: one of {family_names()}",
        )
    return family
