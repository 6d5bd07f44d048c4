"""The models shipped with the lab, loaded through plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

ModelName = Literal["policy", "judge", "prm"]


def bundled_model_folder(name: ModelName) -> Path:
    """Return the folder of a shipped model; it works wherever `hf:PATH` does."""
    return Path(__file__).parent / "models" / name


def load_bundled(
    name: ModelName, folder: Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a shipped model in float32 and evaluation mode, with its tokenizer."""
    place = folder if folder is not None else bundled_model_folder(name)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        place, dtype="float32", trust_remote_code=False
    )
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        place, trust_remote_code=False
    )
    model.eval()  # type: ignore[no-untyped-call]
    return model, tokenizer
