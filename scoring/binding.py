"""The families by name, and how each is bound to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from scoring.checkpoint import Checkpoint
from scoring.families import (
    generic,
    implicit,
    likelihood,
    math_shepherd,
    medprm,
    medprm_compat,
    medprm_orm,
    qwen_prm,
    rlhflow,
    skywork,
    trl,
    visualprm,
)
from scoring.families.generic_layout import GenericLayout
from scoring.family import Family
from scoring.names import missing_reference, refuse_mismatch
from scoring.visualprm_binding import bind_visualprm


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
