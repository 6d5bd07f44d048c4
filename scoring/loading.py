"""From a checkpoint to a scorer: which family it is, and how it is loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.checkpoints import (
    checkpoint_folder,
    weights_fingerprint,
)
from inference.images import ProblemImages
from scoring.binding import bind
from scoring.checkpoint import Checkpoint
from scoring.engine import Scorer
from scoring.engine_fit import Overflow
from scoring.engine_memory import best_device, best_dtype
from scoring.engine_readers import window_of
from scoring.families import implicit
from scoring.families.generic_layout import GenericLayout, named_family
from scoring.family import Family
from scoring.image_tokens import ShowsImages
from scoring.internvl_original import load_tokenizer
from scoring.names import family_names
from scoring.recognition import recognise
from scoring.reference import Reference
from traces.errors import InputError, ModelRefused, PrmError

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
            does not fit with all of them: see `scoring.engine_fit.FitRules`.
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
