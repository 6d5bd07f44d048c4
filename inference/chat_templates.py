"""A model's own chat template: on this machine, and for servers that are asked through /completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inference.protocol import Message
from traces.errors import InputError

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


def template_from_tokenizer(folder: str | Path) -> Callable[[Sequence[Message]], str]:
    """The chat template of a tokenizer as a renderer of conversations.

    A trailing assistant turn is put behind the generation prompt to the letter, so that a
    separator at its end survives (the template's own `continue_final_message` may strip it). A
    leading begin-of-sequence token is left to the server wherever the tokenizer adds it itself.

    Args:
        folder: a folder (or hub id) with tokenizer files and a chat template.

    Raises:
        InputError: no tokenizer there, or one without a chat template.
    """
    from transformers import AutoTokenizer  # heavy, and only for this

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise InputError(
            f'No tokenizer can be read from "{folder}".',
            remedy="give the folder that holds tokenizer.json and the chat template",
        ) from error
    if not tokenizer.chat_template:
        raise InputError(f'The tokenizer of "{folder}" has no chat template.')
    bos = tokenizer.bos_token
    adds_bos = bos is not None and tokenizer("x").input_ids[:1] == [tokenizer.bos_token_id]

    def render(messages: Sequence[Message]) -> str:
        open_turn = messages[-1].text if messages[-1].role == "assistant" else ""
        closed = messages[:-1] if messages[-1].role == "assistant" else messages
        text = rendered_turns(tokenizer, closed)
        return (text.removeprefix(bos) if adds_bos and bos else text) + open_turn

    return render


def rendered_turns(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The conversation as the template writes it, up to where the assistant goes on.

    Some templates (Gemma 2's, the first ones of Mistral) refuse a system turn: there its text stands in
    front of the first user turn, a blank line between.

    Raises:
        InputError: the template refuses the conversation all the same.
    """
    from jinja2 import TemplateError  # what transformers renders with

    try:
        return _rendered(tokenizer, messages)
    except TemplateError as refusal:
        why = refusal
    roles = [message.role for message in messages[:2]]
    if roles == ["system", "user"]:
        first = Message("user", f"{messages[0].text}\n\n{messages[1].text}")
        try:
            return _rendered(tokenizer, [first, *messages[2:]])
        except TemplateError as refusal:
            why = refusal
    raise InputError(
        f"The chat template refuses the conversation: {why}.",
        where=str(tokenizer.name_or_path) or None,
        remedy="take an instruction-tuned model, or tokenizer files with another chat template",
    ) from why


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    turns = [{"role": message.role, "content": message.text} for message in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
