"""Load a PRM: detect the family of a checkpoint, bind it, and make a scorer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel
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
from scoring.engine.fit import FitOptions
from scoring.engine.heads import tensor_names
from scoring.families import (
    generic,
    implicit,
    math_shepherd,
    medprm,
    qwen_prm,
    reasoneval,
    skywork,
    trl,
    turn_tokens,
    visualprm,
)
from scoring.families.generic_layout import GenericLayout, NamedFamily, named_family
from scoring.family import FAMILY_MEMBERS, Family, PrmCheckpoint, Reference
from scoring.generative import GenerativeFamily
from scoring.image_tokens import ShowsImages
from scoring.layout import single_token, token_after_word
from scoring.names import BUILT_IN, describe_families, find_family, refuse_mismatch
from traces import InputError, ModelRefused, PrmError, ToolkitError, whole_or_nothing
from traces.plugins import broken_plugin, load_plugin

_COMPLETE = "check that the folder holds a complete transformers checkpoint"
DEFAULT_WINDOW = 4096
"""Default limit of a trace's tokens, for models with longer windows too."""
FAMILY_KEY = "stepgold_family"
"""Key of config.json in which `stepgold train` writes the family."""


def bind(family: NamedFamily, checkpoint: PrmCheckpoint, *, mode: str = "strict") -> Family:
    """Load the checkpoint's weights and bind the family to them.

    Raises:
        InputError: an unknown family or one without this mode, a reference missing or not used by
            the family, or a plug-in that cannot be used.
        ModelRefused: the weights cannot be loaded.
        PrmError: they are not of this family.
    """
    name = family if isinstance(family, str) else family.name
    checkpoint = replace(checkpoint, family=name)
    refuse_mismatch(name, mode, reference=checkpoint.reference is not None)
    if mode == "medprm-compat":
        return medprm.MedPrmCompat(checkpoint.tokenizer, checkpoint.model())
    if isinstance(family, GenericLayout):
        return generic.Generic(checkpoint.tokenizer, checkpoint.model(), family)
    if isinstance(family, GenerativeFamily):
        if not family.is_one_pass:
            raise InputError(
                f'The family "{name}" writes text, which no single pass reads.',
                remedy=f"use stepgold score --family {name}",
            )
        return turn_tokens.TurnTokens(checkpoint.tokenizer, checkpoint.model(), family)
    entry = find_family(name)
    function = cast(Callable[[PrmCheckpoint], Family], load_plugin(entry))
    return function(checkpoint) if name in BUILT_IN else _bind_plugin(entry, function, checkpoint)


def _bind_plugin(
    entry: EntryPoint, function: Callable[[PrmCheckpoint], Family], checkpoint: PrmCheckpoint
) -> Family:
    """Bind a family of another distribution.

    Raises:
        InputError: it fails with anything but a `ToolkitError`, or does not give a family.
    """
    try:
        bound = function(checkpoint)
    except ToolkitError:
        raise
    except Exception as error:
        raise broken_plugin(entry, f"{type(error).__name__}: {error}") from error
    missing = sorted(name for name in FAMILY_MEMBERS if not hasattr(bound, name))
    if missing:
        raise broken_plugin(entry, f"its {type(bound).__name__} has no '{missing[0]}'.")
    if bound.name != entry.name:
        raise broken_plugin(entry, f"its family calls itself '{bound.name}'.")
    return bound


def bind_loaded(family: str, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Family:
    """Bind a family to a model in memory, for training.

    Args:
        family: medprm or math-shepherd, with a causal language model; or qwen-prm or trl, with a
            token classification model whose head is `score`.
        tokenizer: has the family's tokens, see `tokens_to_add`.
        model: the model.

    Raises:
        PrmError: a token or the chat template is missing.
    """
    if family == medprm.MedPrm.name:
        return medprm.MedPrm(tokenizer, model)
    if family == math_shepherd.MathShepherd.name:
        return math_shepherd.MathShepherd(tokenizer, model)
    backbone, head = cast(PreTrainedModel, model.base_model), cast(nn.Module, model.score)
    if family in qwen_prm.NAMES:
        return qwen_prm.QwenPrm(tokenizer, backbone, head, name=family)
    return trl.TrlTokenClassification(tokenizer, backbone, head, name=family)


def tokens_to_add(family: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the marker and verdicts of a trainable family that the vocabulary lacks."""
    if family == medprm.MedPrm.name:
        needed = (medprm.MARKER, *medprm.VERDICTS)
        return [text for text in needed if single_token(tokenizer, text) is None]
    if family == math_shepherd.MathShepherd.name:
        marker = math_shepherd.MARKER
        return [marker] if token_after_word(tokenizer, marker) is None else []
    if family in qwen_prm.NAMES and single_token(tokenizer, qwen_prm.MARKER) is None:
        return [qwen_prm.MARKER]
    return []


def detect_family(folder: Path, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the family whose marker or head the checkpoint has; None if no family is certain.

    One that `stepgold train` wrote says its family itself.
    The user must name these: checkpoints of Math-Shepherd and RLHFlow are plain language models, a
    converted VisualPRM is a plain InternVL, the outcome model has the tokens of Med-PRM, and the
    two Qwen PRMs differ in their weights only.
    """
    stated = checkpoint_settings(folder / CHECKPOINT_CONFIG).get(FAMILY_KEY)
    if isinstance(stated, str) and stated in BUILT_IN:
        return stated
    if visualprm.ORIGINAL in _architectures(folder):
        return visualprm.NAME
    if _is_added(tokenizer, medprm.MARKER) and None not in [
        single_token(tokenizer, verdict) for verdict in medprm.VERDICTS
    ]:
        return "medprm"
    if _is_added(tokenizer, qwen_prm.MARKER):
        return "qwen-prm"
    names = tensor_names(folder)
    if any(f"{layer}.weight" in names for layers in reasoneval.HEADS for layer in layers):
        return reasoneval.NAME
    if any(f"{layer}.weight" in names for layers in skywork.HEADS for layer in layers):
        return "skywork-o1"
    if _is_token_classification(folder) and any(
        f"{layer}.weight" in names for layers in trl.HEADS for layer in layers
    ):
        return "trl"
    return None


def _is_added(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Whether the text is a token that was added to the vocabulary deliberately.

    Large byte-pair vocabularies hold many short words as tokens (` ки` is one of them); those are
    spelled in byte symbols, added tokens as plain text.
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


def require_family(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    spec: str,
    reference: Reference | None = None,
) -> str:
    """Return the family detected from the checkpoint's files.

    With a reference, a PRM that is not recognized is read as implicit-prm.

    Raises:
        PrmError: no family is detected.
    """
    family = detect_family(folder, tokenizer)
    if family is None and reference is not None:
        return implicit.ANY
    if family is None:
        raise PrmError(
            f'Cannot detect the family of the PRM "{spec}" from its checkpoint.',
            remedy=f"name it with --family: one of {describe_families()}",
        )
    return family


def load_scorer(
    spec: str,
    *,
    family: NamedFamily | None = None,
    mode: str = "strict",
    options: FitOptions | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    images: ProblemImages | None = None,
    reference: str | None = None,
) -> Scorer:
    """Load a PRM.

    Args:
        spec: `hf:PATH_OR_ID`, or the bare path or id.
        family: one of `scoring.known_families()`, the path of a FILE.toml that describes another
            one, or the content of such a file; None detects it from the checkpoint.
        mode: strict, or medprm-compat: as Med-PRM's released script, its packing included.
        options: window and documents. Without a window the model's is used, at most 4,096 tokens
            (all of it with images, and in medprm-compat, which has no limit).
        device: a torch device; None for CUDA or Apple's GPU if present, else the CPU.
        dtype: of the weights: float32, bfloat16 or float16; None for float32 on a CPU, else
            bfloat16 (always in medprm-compat).
        images: reads the images of problems; None reads their paths as they are.
        reference: the model that an implicit PRM is compared with, as `spec`.

    Raises:
        InputError: an unknown family or mode, a faulty family file or plug-in, a window or
            reserve that does not fit, a reference missing or not used.
        PrmError: a checkpoint cannot be loaded or recognized, or is of another family.
    """
    options, place = options or FitOptions(), best_device(device)
    named, compat = named_family(family, mode), _is_compat(mode, options.reserve)
    try:
        with whole_or_nothing(spec, error=PrmError, remedy=_COMPLETE):
            folder = checkpoint_folder(spec.removeprefix("hf:"))
            tokenizer = visualprm.load_tokenizer(folder)
            other = Reference.find(reference, tokenizer) if reference else None
            checkpoint = PrmCheckpoint(
                folder,
                tokenizer,
                device=place,
                dtype=best_dtype(place, "bfloat16" if compat and dtype is None else dtype),
                images=images or ProblemImages(),
                reference=other,
            )
            found = named or require_family(folder, tokenizer, spec, other)
            bound = bind(found, checkpoint, mode=mode)
    except ModelRefused as refusal:
        raise PrmError(refusal.what, where=refusal.where, remedy=refusal.remedy) from refusal
    # A single image may exceed the usual limit.
    unlimited, window = compat or isinstance(bound, ShowsImages), window_of(bound)
    return Scorer(
        bound,
        max_tokens=limited(options.max_tokens, window, window if unlimited else DEFAULT_WINDOW),
        weights=weights_fingerprint(folder),
        overflow=options.overflow,
        reserve=options.reserve,
        packing=mode if compat else options.packing,
    )


def limited(asked: int | None, window: int, default: int) -> int:
    """Return the window that traces must fit into, tokens: `asked`, or at most `default`.

    Raises:
        InputError: `window`, the model's, is smaller than what is asked for.
    """
    if asked is not None and not 1 <= asked <= window:
        raise InputError(
            f"A window of {asked} tokens is outside what the PRM supports.",
            remedy=f"choose --max-tokens from 1 to {window}",
        )
    return asked or min(window, default)


def _is_compat(mode: str, reserve: int) -> bool:
    """Whether Med-PRM's released script is reproduced, which has its own reserve."""
    compat = mode == "medprm-compat"
    if compat and reserve:
        raise InputError(
            "The mode medprm-compat always reserves 1,024 tokens.", remedy="drop --reserve"
        )
    return compat
