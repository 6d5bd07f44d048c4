"""What a family is bound to: a checkpoint's folder and tokenizer, and where its model is to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.checkpoints import load_pretrained
from inference.images import ProblemImages
from scoring.quiet import quiet
from scoring.reference import Reference


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
        with quiet():
            model = load_pretrained(auto_class, self.folder, dtype=self.dtype)
        return model.to(self.device).eval()
