"""The layout of passage, question and steps for the lab's models.

Judge and policy read a user turn and write an assistant turn, one step a line:

    <|user|>Document 1: {passage}\\n\\nQuestion:
    {question}<|end|><|assistant|>{step}\\n{step}<|end|>

The marker PRM reads all steps in the user turn, each followed by ` ки`, as the Med-PRM family does:

    <|user|>Document 1: {passage}\\n\\nQuestion: {question}\\n\\nExplanation: {step} ки {step} ки
    <|end|><|assistant|>   (without the line break)

The chat template accepts a system turn and drops it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
END: Final = "<|end|>"
PAD: Final = "<|pad|>"
UNKNOWN: Final = "<|unknown|>"
MARKER: Final = " ки"
POSITIVE: Final = " +"
NEGATIVE: Final = " -"
STEP_SEPARATOR: Final = "\n"
MARKED_STEP_SEPARATOR: Final = " "

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}<|end|>"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def user_text(passage: str | None, question: str) -> str:
    """Return the user turn of judge and policy; without a passage only the question."""
    document = f"Document 1: {passage}\n\n" if passage else ""
    return f"{document}Question: {question}"


def marked_user_text(passage: str | None, question: str, steps: Sequence[str]) -> str:
    """Return the user turn of the marker PRM."""
    explanation = MARKED_STEP_SEPARATOR.join(step + MARKER for step in steps)
    return f"{user_text(passage, question)}\n\nExplanation: {explanation}"


def generation_prompt(user: str) -> str:
    """Return the prompt for the assistant turn."""
    return f"{USER}{user}{END}{ASSISTANT}"


def prefix_text(steps: Sequence[str]) -> str:
    """Return the beginning of the assistant turn, ready for the next step.

    >>> prefix_text(["a.", "b."])
    'a.\\nb.\\n'
    """
    return "".join(step + STEP_SEPARATOR for step in steps)


def split_steps(completion: str) -> list[str]:
    """Return the steps of an assistant turn."""
    return [line for line in completion.split(STEP_SEPARATOR) if line]
