"""Prompts of policies: questions, evidence and prefixes as messages, rendered by chat templates.

Templates are applied here for local models, and for servers that are called through /completions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING

from inference.protocol import Message
from traces import Evidence, InputError, Problem

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from formats import EncodedImage


def template_from_tokenizer(folder: str | Path) -> Callable[[Sequence[Message]], str]:
    """The chat template of a tokenizer as a renderer of conversations.

    A final assistant turn is appended verbatim to the generation prompt, so that a separator at its
    end survives (the template's own `continue_final_message` may strip it). A leading
    begin-of-sequence token is left to the server if the tokenizer adds it itself.

    Args:
        folder: a folder (or hub id) with tokenizer files and a chat template.

    Raises:
        InputError: there is no tokenizer, or it has no chat template.
    """
    from transformers import AutoTokenizer  # heavy, and only needed here

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # damaged files raise anything
        raise InputError(
            f'No tokenizer can be read from "{folder}".',
            remedy="give the folder with tokenizer.json and the chat template",
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
    """The conversation as the template renders it, up to where the assistant continues.

    Some templates (Gemma 2's, the first ones of Mistral) refuse a system turn. For those its text
    is prepended to the first user turn with a blank line in between.

    Raises:
        InputError: the template refuses the conversation even then.
    """
    from jinja2 import TemplateError  # the renderer of transformers

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
        remedy="use an instruction-tuned model, or tokenizer files with another chat template",
    ) from why


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    turns = [{"role": message.role, "content": message.text} for message in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]]
) -> list[tuple[int, ...]]:
    """Token ids of conversations, each ready for the next token of the assistant.

    A final assistant turn is appended verbatim to the template's generation prompt, so the model
    continues right after it. Text and ids are those of the whole rendered conversation. A tokenizer
    without a chat template gets the turns as plain paragraphs.

    Raises:
        InputError: the template refuses the conversation.
    """
    texts = [conversation_text(tokenizer, conversation) for conversation in conversations]
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    start = first_ids(tokenizer)
    return [tuple(ids) if tuple(ids[: len(start)]) == start else (*start, *ids) for ids in rows]


def conversation_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The rendered conversation up to where the assistant continues."""
    open_turn = bool(messages) and messages[-1].role == "assistant"
    written = messages[-1].text if open_turn else ""
    turns = messages[:-1] if open_turn else messages
    if tokenizer.chat_template is None:
        return "".join(f"{turn.text}\n\n" for turn in turns) + written
    return rendered_turns(tokenizer, turns) + written


def first_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids that this tokenizer prepends to every text: one BOS, or nothing."""
    alone = tokenizer("")["input_ids"]
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and bos in alone else ()


@dataclass(frozen=True, slots=True)
class ContinuationPrompt:
    """The text around the question and the prefix that a policy continues.

    The bundled lab uses no system turn and a newline as separator: its user turn is exactly
    `Document 1: <passage>`, an empty line, `Question: <question>`.
    """

    system: str | None = None
    """The system turn; None for none."""
    separator: str = "\n"
    """Text between two steps, and after the last step of a prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """How a policy is asked, and how it samples."""

    max_tokens: int
    """Maximum new tokens of a continuation or solution, at least 1."""
    prompt: ContinuationPrompt = ContinuationPrompt()
    temperature: float | None = 0.7
    """Sampling temperature; 0 is greedy. None uses a server's default; local models need one."""
    top_p: float | None = None
    """Nucleus sampling, in (0, 1]; None uses a server's default, locally all tokens."""
    top_k: int | None = None
    """Sample from the k most probable tokens (local models only); None for all."""
    stop: tuple[str, ...] = ()
    """Strings that end the text; removed from it."""
    with_evidence: bool = True
    """Whether the documents are shown before the question."""


def render_question(problem: Problem, evidence: Sequence[Evidence]) -> str:
    """The user turn: numbered documents (1-based, best first), the question, the lettered options.

    Raises:
        InputError: more options than there are letters.
    """
    if len(problem.options) > len(ascii_uppercase):
        raise InputError(
            f"The problem has {len(problem.options)} options, but there are only "
            f"{len(ascii_uppercase)} letters.",
            where=problem.id,
        )
    documents = "".join(
        f"Document {number}: {item.passage.text}\n\n" for number, item in enumerate(evidence, 1)
    )
    options = "".join(
        f"\n({letter}) {option}"
        for letter, option in zip(ascii_uppercase, problem.options, strict=False)
    )
    return f"{documents}Question: {problem.question}{options}"


def continuation_messages(
    problem: Problem,
    evidence: Sequence[Evidence],
    prefix_steps: Sequence[str],
    *,
    system: str | None,
    separator: str,
    images: tuple[EncodedImage, ...] = (),
) -> tuple[Message, ...]:
    """The conversation whose last turn is the prefix to continue.

    Args:
        problem: the problem.
        evidence: the documents shown before the question, best first.
        prefix_steps: the steps already written; empty asks for a whole solution, without an
            assistant turn.
        system: the system turn; None for none.
        separator: text between two steps, and after the last one.
        images: the images of the problem, shown before the question.
    """
    head = () if system is None else (Message("system", system),)
    user = Message("user", render_question(problem, evidence), images)
    if not prefix_steps:
        return (*head, user)
    return (*head, user, Message("assistant", prefix_text(prefix_steps, separator)))


def prefix_text(prefix_steps: Sequence[str], separator: str) -> str:
    """The steps with the separator after each, so that the next step can follow directly."""
    return "".join(f"{step}{separator}" for step in prefix_steps)
