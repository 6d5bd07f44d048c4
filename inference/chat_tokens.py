"""Conversations as token ids: the chat template around them, a last assistant turn continued."""

from __future__ import annotations

from collections.abc import Sequence

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.chat_templates import rendered_turns
from inference.protocol import Message


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]]
) -> list[tuple[int, ...]]:
    """Token ids of conversations, each ready for the next token of the assistant.

    A last assistant turn is put behind the template's generation prompt to the letter, so nothing
    stands between it and what the model writes next. Text and ids are those of the whole rendered
    conversation. A tokenizer without a chat template gets the turns as plain paragraphs.

    Raises:
        InputError: the template refuses the conversation.
    """
    texts = [conversation_text(tokenizer, conversation) for conversation in conversations]
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    start = first_ids(tokenizer)
    return [tuple(ids) if tuple(ids[: len(start)]) == start else (*start, *ids) for ids in rows]


def conversation_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The rendered conversation up to where the assistant goes on."""
    open_turn = bool(messages) and messages[-1].role == "assistant"
    written = messages[-1].text if open_turn else ""
    turns = messages[:-1] if open_turn else messages
    if tokenizer.chat_template is None:
        return "".join(f"{turn.text}\n\n" for turn in turns) + written
    return rendered_turns(tokenizer, turns) + written


def first_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids that this tokenizer puts before every text by itself: one BOS, or nothing."""
    alone = tokenizer("")["input_ids"]
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and bos in alone else ()
