"""Texts into tokens where what is a token must be certain: markers, signs, and text that is only text."""

from __future__ import annotations

from collections.abc import Collection

from transformers.tokenization_utils_base import PreTrainedTokenizerBase


def single_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The one token that is exactly this text; None if there is none."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    known = len(ids) == 1 and ids[0] != tokenizer.unk_token_id
    return int(ids[0]) if known else None


def token_behind(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The one token that this text is behind a word; None if it is none.

    Sentence-piece tokenizers put a blank of their own before a text, so that ` ки` alone is two
    tokens with them; behind a word it is the one that stands there in a running text.
    """
    word = tokenizer("a", add_special_tokens=False)["input_ids"]
    ids = tokenizer(f"a{text}", add_special_tokens=False)["input_ids"]
    known = len(ids) == len(word) + 1 and ids[:-1] == word and ids[-1] != tokenizer.unk_token_id
    return int(ids[-1]) if known else None


def plain_ids(
    tokenizer: PreTrainedTokenizerBase, text: str, never: Collection[int] = ()
) -> list[int]:
    """A text's ids as mere text: what looks like a control token is spelled out.

    Args:
        tokenizer: the checkpoint's.
        text: any.
        never: ids of markers. One that was added to the vocabulary without being declared special
            would be found in texts all the same: there it is cut in two and encoded in parts.
    """
    ids = list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    # Seldom; and the table of added tokens, made anew at each look, is long with some tokenizers.
    for marker in (marker for marker in set(ids) if marker in never):
        if (token := tokenizer.added_tokens_decoder.get(marker)) is not None:
            signs = token.content
            first, *others = text.split(signs)
            parts = [first + signs[:1], *(signs[1:] + part + signs[:1] for part in others)]
            parts[-1] = parts[-1][:-1]
            return [i for part in parts for i in plain_ids(tokenizer, part, never)]
    return ids
