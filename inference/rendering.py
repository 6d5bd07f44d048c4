"""How a problem, its evidence and a prefix become the messages that a policy continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING

from inference.protocol import Message
from traces.errors import InputError
from traces.evidence import Evidence
from traces.problem import Problem

if TYPE_CHECKING:
    from formats.images import EncodedImage


@dataclass(frozen=True, slots=True)
class ContinuationPrompt:
    """What surrounds the question and the prefix when a policy is asked to go on.

    The bundled lab uses no system turn and the separator newline: its user turn is exactly
    `Document 1: <passage>`, an empty line, `Question: <question>`.
    """

    system: str | None = None
    """The system turn; None for none."""
    separator: str = "\n"
    """What stands between two steps, and after the last step of a prefix."""


def render_question(problem: Problem, evidence: Sequence[Evidence]) -> str:
    """The user turn: numbered documents (1-based, best first), the question, the lettered options.

    Raises:
        InputError: more options than there are letters.
    """
    if len(problem.options) > len(ascii_uppercase):
        raise InputError(
            f"The problem has {len(problem.options)} options, at most {len(ascii_uppercase)} "
            "can be lettered.",
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
    """The conversation whose last turn is the prefix to be continued.

    Args:
        problem: the problem.
        evidence: what stands before the question, best first; empty for none.
        prefix_steps: the steps already written; empty asks for a whole solution, and then
            there is no assistant turn.
        system: the system turn; None for none.
        separator: what stands between two steps, and after the last one.
        images: the images of the problem, shown before the question.
    """
    head = () if system is None else (Message("system", system),)
    user = Message("user", render_question(problem, evidence), images)
    if not prefix_steps:
        return (*head, user)
    return (*head, user, Message("assistant", prefix_text(prefix_steps, separator)))


def prefix_text(prefix_steps: Sequence[str], separator: str) -> str:
    """The steps with the separator after each: the next step starts right behind it."""
    return "".join(f"{step}{separator}" for step in prefix_steps)
