"""Which family a checkpoint is of, as far as its files say."""

from __future__ import annotations

from pathlib import Path

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.vision_config import CONFIG, settings
from scoring.families import medprm, qwen_prm, skywork, trl, visualprm
from scoring.heads import tensor_names
from scoring.tokens import single_token


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
    return [str(name) for name in settings(folder / CONFIG).get("architectures") or []]
