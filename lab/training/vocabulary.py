"""The lab's word-level tokenizer, built from the closed vocabulary of the generator.

The pattern cuts text into single digits, words and punctuation marks, each with its leading space,
so `decode(encode(text)) == text` for every text the generator makes.
"""

from __future__ import annotations

import string
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lab import names, prompts, prose

PATTERN: Final = r" ?\d| ?[^\s\d\w]| ?\p{L}+|\s"
_STEP_WORDS: Final = (
    "dose is mg per kg cap halved below eGFR contraindicated in substitute daily count "
    "A patient of with and needs Which single the has so use avoid it x above not The answer "
    "Document Question Explanation"
)


def _cutter() -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")


def words() -> list[str]:
    """Return every token of the closed vocabulary, special tokens apart, in a fixed order."""
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
