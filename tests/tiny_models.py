"""Real transformers models and tokenizers, small and random, made in a second and saved to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTROL = ("<|pad|>", "<|begin|>", "<|start|>", "<|close|>", "<|end|>")
TEMPLATE = (
    "<|begin|>{% for message in messages %}<|start|>{{ message['role'] }}<|close|>\n\n"
    "{{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|close|>\n\n{% endif %}"
)
"""Shaped like Llama 3's: one BOS, headers with blank lines, contents trimmed."""
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = (
    "Step 1: the dose is 6 mg per kg, so 6 x 30 = 180 mg. " * 4,
    "Question: which single dose? Explanation: the answer is 300 mg.\n\nDocument 1: cap is 300 mg.",
    "A + B + C - D - E + 1 - 2, the patient has gout and needs it daily.\n" * 4,
)


def tiny_tokenizer(*, extra: Sequence[str] = (), begin: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Llama 3's splitting, a chat template and one BOS.

    Args:
        extra: further special tokens, such as a step marker.
        begin: whether it puts a BOS before every text by itself.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_CORPUS, trainer)
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in extra])
    if begin:
        first = (CONTROL[1], core.token_to_id(CONTROL[1]))
        core.post_processor = processors.TemplateProcessing(
            single=f"{first[0]} $A", special_tokens=[first]
        )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token=CONTROL[0],
        bos_token=CONTROL[1],
        eos_token=CONTROL[4],
        extra_special_tokens=[*CONTROL[2:4], *extra],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_llama(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, **changes: Any) -> Any:
    """A random Llama with clear preferences; grouped key-value heads."""
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.35,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(seed)
    return evaluating(LlamaForCausalLM(LlamaConfig(**settings | changes)))


def evaluating(model: Any) -> Any:
    """The model in evaluation mode; transformers' own annotations do not say so much."""
    return model.eval()


def save(folder: Path, tokenizer: Any, model: Any) -> Path:
    """Write both as a checkpoint folder."""
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
