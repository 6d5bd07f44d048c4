"""The families by name, and how each is bound to a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import get_verbosity, set_verbosity

from inference.checkpoints import load_pretrained
from inference.images import ProblemImages
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
from scoring.family import Family
from scoring.reference import Reference
from scoring.visualprm_binding import bind_visualprm
from traces.errors import InputError

Mode = Literal["strict", "medprm-compat"]
"""strict: one BOS, markers in the solution only, float32; medprm-compat: as Med-PRM's released script."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a family is bound to."""

    folder: Path
    """With config.json, tokenizer files and safetensors files."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    device: torch.device
    """Where the model is to run."""
    dtype: torch.dtype
    """Of its weights."""
    images: ProblemImages = field(default_factory=ProblemImages)
    """The images of problems, for families that are shown them."""
    reference: Reference | None = None
    """What an implicit PRM is held against; None if the user named nothing."""

    def model(self, auto_class: Any) -> Any:
        """The model of a transformers auto class, ready to run."""
        with _quiet():
            model = load_pretrained(auto_class, self.folder, dtype=self.dtype)
        return model.to(self.device).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report of unexpected weights: a head that we load ourselves is none.

    What is missing is told by `load_pretrained`.
    """
    before = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(before)


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
            raise InputError(
                f"The family {name} compares the PRM with the model that it was trained from.",
                remedy="name that one with --reference hf:PATH (for EurusPRM Qwen2.5-Math-7B-Instruct)",
            )
        models = [
            replace(it, folder=folder).model(AutoModelForCausalLM)
            for folder in (it.folder, it.reference.folder)
        ]
        return implicit.ImplicitPrm(it.tokenizer, *models, name, it.reference.settings())

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


def family_names() -> str:
    """What `--family` takes, for messages."""
    return f"{', '.join(FAMILIES)}, or a FILE.toml that describes another one"


def bind(
    family: str | generic.GenericLayout, checkpoint: Checkpoint, mode: str = "strict"
) -> Family:
    """Load the checkpoint's weights and bind the family to them.

    Raises:
        InputError: no such mode, or the family has no other than strict; a reference is missing, or
            given to a family that compares with none.
        ModelRefused: the weights cannot be loaded.
        PrmError: they are not of this family.
    """
    if mode not in get_args(Mode):
        modes = ", ".join(get_args(Mode))
        raise InputError(f'There is no scoring mode "{mode}".', remedy=f"take one of {modes}")
    if checkpoint.reference is not None and family not in implicit.AGGREGATIONS:
        name = family.name if isinstance(family, generic.GenericLayout) else family
        raise InputError(
            f"The family {name} compares the PRM with no other model.",
            remedy=f"leave --reference out, or name one of {', '.join(implicit.AGGREGATIONS)}",
        )
    if mode == "medprm-compat":
        if family != "medprm":
            raise InputError(
                "The mode medprm-compat repeats the released script of the family medprm.",
                remedy="give --family medprm, or leave --mode out",
            )
        return _causal(medprm_compat.MedPrmCompat)(checkpoint)
    if isinstance(family, generic.GenericLayout):
        return _causal(generic.Generic, family)(checkpoint)
    return FAMILIES[family](checkpoint)
