"""Texts to token ids and back, and the lab's word-level tokenizer.

The tokenizer is built from the closed vocabulary of the generator. Its pattern cuts text into
single digits, words and punctuation marks, each with its leading space, so that
`decode(encode(text)) == text` for every text of the generator.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any, Final

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lab import names, prompts, prose


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a text, without special tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of token ids."""
    text = tokenizer.decode(list(ids))
    return text if isinstance(text, str) else "".join(text)


def token_id(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Return the id of a text that is one token; ValueError if it is several."""
    (single,) = encode(tokenizer, text)
    return single


def decoder_layers(model: PreTrainedModel) -> list[Any]:
    """Return the decoder layers of a Llama model."""
    decoder: Any = model.base_model
    return list(decoder.layers)


def token_table(model: PreTrainedModel) -> torch.Tensor:
    """Return the (tied) embedding table: [vocabulary, width]."""
    table: Any = model.get_input_embeddings()
    weight: torch.Tensor = table.weight
    return weight


def final_states(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return the normed last hidden states of right-padded rows: [rows, tokens, width]."""
    decoder: Any = model.base_model
    hidden: torch.Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


PATTERN: Final = r" ?\d| ?[^\s\d\w]| ?\p{L}+|\s"
_STEP_WORDS: Final = (
    "dose is mg per kg cap halved below eGFR contraindicated in substitute daily count "
    "A patient of with and needs Which single the has so use avoid it x above not The answer "
    "Document Question Explanation"
)


def _cutter() -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")


def words() -> list[str]:
    """Return every token of the closed vocabulary, without special tokens, in a fixed order."""
    texts = [_STEP_WORDS, *prose.TITLES, *prose.DECISIVE_HEADINGS, *prose.SECTIONS]
    texts += [sentence for group in prose.SECTIONS.values() for sentence in group]
    cut = _cutter()
    plain = {token.strip() for text in texts for token, _ in cut.pre_tokenize_str(text)}
    plain -= {"", "drug", "{", "}"}
    plain |= {*names.CONDITIONS, *names.DRUG_NAMES, *string.digits, *".,:;?#%()/-+="}
    ordered = sorted(plain)
    return [*ordered, *(" " + word for word in ordered), prompts.MARKER, " ", "\n"]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer; the same code gives the same ids."""
    special = [prompts.PAD, prompts.UNKNOWN, prompts.USER, prompts.ASSISTANT, prompts.END]
    vocabulary = {token: index for index, token in enumerate([*special, *words()])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=prompts.UNKNOWN))
    core.pre_tokenizer = _cutter()
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token=prompts.PAD,
        unk_token=prompts.UNKNOWN,
        eos_token=prompts.END,
        additional_special_tokens=[prompts.USER, prompts.ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    tokenizer.chat_template = prompts.CHAT_TEMPLATE
    return tokenizer
