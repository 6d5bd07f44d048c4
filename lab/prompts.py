"""How a passage, a question and steps are laid out for the lab's models.

Judge and policy read a user turn and write an assistant turn, one step a line. The marker PRM
reads, as the Med-PRM family does, all steps inside the user turn, each followed by ` ки`:

    <|user|>Document 1: {passage}\\n\\nQuestion: {question}<|end|><|assistant|>{step}\\n{step}<|end|>
    <|user|>Document 1: {passage}\\n\\nQuestion: {question}\\n\\nExplanation: {step} ки {step} ки<|end|><|assistant|>

A system turn is accepted by the chat template and left out.
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
    """Return the user turn of judge and policy; without a passage only the question stands."""
    document = f"Document 1: {passage}\n\n" if passage else ""
    return f"{document}Question: {question}"


def marked_user_text(passage: str | None, question: str, steps: Sequence[str]) -> str:
    """Return the user turn of the marker PRM."""
    explanation = MARKED_STEP_SEPARATOR.join(step + MARKER for step in steps)
    return f"{user_text(passage, question)}\n\nExplanation: {explanation}"


def generation_prompt(user: str) -> str:
    """Return the text from which the assistant turn is written."""
    return f"{USER}{user}{END}{ASSISTANT}"


def prefix_text(steps: Sequence[str]) -> str:
    """Return the assistant turn so far, ready for the next step.

    >>> prefix_text(["a.", "b."])
    'a.\\nb.\\n'
    """
    return "".join(step + STEP_SEPARATOR for step in steps)


def split_steps(completion: str) -> list[str]:
    """Return the steps of an assistant turn."""
    return [line for line in completion.split(STEP_SEPARATOR) if line]
