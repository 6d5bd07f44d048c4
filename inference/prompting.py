"""Prompts of policies: questions, evidence and prefixes as messages, rendered by chat templates.

Templates are applied here for local models, and for servers that are called through /completions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from inference.protocol import Message
from traces import Evidence, InputError, Problem

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from formats import EncodedImage


def template_from_tokenizer(
    folder: str | Path, switches: Mapping[str, Any] | None = None
) -> Callable[[Sequence[Message]], str]:
    """The chat template of a tokenizer as a renderer of conversations.

    A final assistant turn is appended verbatim to the generation prompt, outside of any thought
    (`Opening`), so that a separator at its end survives (the template's own
    `continue_final_message` may strip it). A leading begin-of-sequence token is left to the server
    if the tokenizer adds it itself.

    Args:
        folder: a folder (or hub id) with tokenizer files and a chat template.
        switches: variables of the template, such as `{"enable_thinking": False}`.

    Raises:
        InputError: there is no tokenizer, it has no chat template, or an assistant turn of the
            template cannot be continued.
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
    rendered = partial(rendered_turns, tokenizer)
    opening = Opening.found(rendered, where=str(folder), given=switches or {})

    def render(messages: Sequence[Message]) -> str:
        text = opening.conversation(rendered, messages)
        return text.removeprefix(bos) if adds_bos and bos else text

    return render


class Renderer(Protocol):
    """Renders turns with a chat template."""

    def __call__(self, turns: Sequence[Message], *, generate: bool = True, **switches: Any) -> str:
        """The text of the turns, with the generation prompt if `generate`."""


_THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<reasoning>", "</reasoning>"),
)
"""How templates begin and end a thought."""
_LIKE_A_THOUGHT = re.compile(r"think|thought|reason|analysis|channel", re.IGNORECASE)
"""What a generation prompt that opens a thought in an unknown way contains."""
_SWITCHES: tuple[dict[str, Any], ...] = (
    {"enable_thinking": False},  # Qwen3, GLM 4.5, SmolLM3
    {"thinking": False},  # DeepSeek V3.1, Granite
    {"enable_thinking": False, "thinking": False},
)
_PROBE = Message("user", "What is 2+3?")
_WRITTEN = "The sum is five"


@dataclass(frozen=True, slots=True)
class Opening:
    """How a chat template begins the assistant's text, so that a prefix can follow."""

    switches: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the template that turn thinking off for a prefix."""
    after: str = ""
    """Text between the generation prompt and a prefix."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the template that the user chose."""

    @classmethod
    def found(
        cls, render: Renderer, *, where: str | None, given: Mapping[str, Any] | None = None
    ) -> Opening:
        """Find it by rendering a probe with and without an assistant turn.

        A thought that the generation prompt opens is avoided by the template's own switch, else
        closed. What the template writes before every assistant's text, such as the channel of
        gpt-oss, is written before a prefix too.

        Raises:
            InputError: the template refuses or drops the assistant turn, or it opens something that
                cannot be closed here.
        """
        chosen = dict(given or {})
        prompt = render([_PROBE], **chosen)
        whole = render([_PROBE, Message("assistant", _WRITTEN)], generate=False, **chosen)
        if _WRITTEN not in whole:
            raise _not_continued(where, "it leaves out the text of the assistant's turn")
        before = whole[: whole.rindex(_WRITTEN)]
        opened = _open_thought(prompt)
        if opened is None:
            added = before.removeprefix(prompt) if before.startswith(prompt) else ""
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(prompt, before, strict=False))
            stray = prompt[sum(1 for _ in alike) :].strip()
            closed = stray.endswith(tuple(end for _, end in _THOUGHTS))
            if _LIKE_A_THOUGHT.search(stray) and not closed:
                raise _not_continued(where, f"it begins replies with {stray[:40]!r}")
            return cls({}, added if added.strip() else "", chosen)
        for switches in _SWITCHES:
            if _open_thought(render([_PROBE], **{**chosen, **switches})) is None:
                return cls(switches, "", chosen)
        return cls({}, f"\n{opened}\n\n", chosen)

    def conversation(self, render: Renderer, messages: Sequence[Message]) -> str:
        """The rendered conversation up to where the assistant continues."""
        turns, written = split_turns(messages)
        if not written:
            return render(turns, **self.given)
        return render(turns, **{**self.given, **self.switches}) + self.after + written


def split_turns(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """The turns before a final assistant turn, and the text of that turn; empty without one."""
    if messages and messages[-1].role == "assistant":
        return messages[:-1], messages[-1].text
    return messages, ""


def _open_thought(prompt: str) -> str | None:
    """The closing tag of the thought in which a prompt ends; None if it is in none."""
    for begin, end in _THOUGHTS:
        if prompt.rfind(begin) > prompt.rfind(end):
            return end
    return None


def _not_continued(where: str | None, why: str) -> InputError:
    return InputError(
        f"The chat template cannot continue an assistant turn: {why}.",
        where=where,
        remedy="use an instruction-tuned model or tokenizer files whose template can, or call a "
        "server that continues the turn itself: openai:MODEL without --template",
    )


def rendered_turns(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    generate: bool = True,
    **switches: Any,
) -> str:
    """The conversation as the template renders it, up to where the assistant continues.

    Some templates (Gemma 2's, the first ones of Mistral) refuse a system turn. For those its text
    is prepended to the first user turn with a blank line in between.

    Args:
        tokenizer: the tokenizer with the template.
        messages: the turns.
        generate: whether the generation prompt follows.
        **switches: variables of the template.

    Raises:
        InputError: the template refuses the conversation even then.
    """
    from jinja2 import TemplateError  # the renderer of transformers

    def rendered(turns: Sequence[Message]) -> str:
        plain = [{"role": turn.role, "content": turn.text} for turn in turns]
        return str(
            tokenizer.apply_chat_template(
                plain, tokenize=False, add_generation_prompt=generate, **switches
            )
        )

    try:
        return rendered(messages)
    except TemplateError as refusal:
        why = refusal
    roles = [message.role for message in messages[:2]]
    if roles == ["system", "user"]:
        first = Message("user", f"{messages[0].text}\n\n{messages[1].text}")
        try:
            return rendered([first, *messages[2:]])
        except TemplateError as refusal:
            why = refusal
    raise InputError(
        f"The chat template refuses the conversation: {why}.",
        where=str(tokenizer.name_or_path) or None,
        remedy="use an instruction-tuned model, or tokenizer files with another chat template",
    ) from why


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
    """The rendered conversation up to where the assistant continues, outside of any thought.

    Raises:
        InputError: the template refuses the conversation, or cannot continue an assistant turn.
    """
    turns, written = split_turns(messages)
    if tokenizer.chat_template is None:
        return "".join(f"{turn.text}\n\n" for turn in turns) + written
    if not written:
        return rendered_turns(tokenizer, turns)
    return opening_of(tokenizer).conversation(partial(rendered_turns, tokenizer), messages)


_OPENINGS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, Opening]] = WeakKeyDictionary()


def opening_of(tokenizer: PreTrainedTokenizerBase) -> Opening:
    """How the tokenizer's chat template begins the assistant's text; found once.

    Raises:
        InputError: it cannot continue an assistant turn.
    """
    known = _OPENINGS.get(tokenizer)
    if known is None or known[0] != tokenizer.chat_template:
        where = str(tokenizer.name_or_path) or None
        opening = Opening.found(partial(rendered_turns, tokenizer), where=where)
        known = _OPENINGS[tokenizer] = (tokenizer.chat_template, opening)
    return known[1]


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
    return f"{documents}Question: {problem.shown_question}{options}"


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
