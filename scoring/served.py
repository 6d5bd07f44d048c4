"""What of a family's read-out a server has to give: so much can be had over a wire, hidden states cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class ServedReadOut:
    """The numbers that a step score is made of."""

    columns: tuple[int, ...]
    """How many numbers a row of a pooling server may have: 1 is a value whose sigmoid is the score, 2 are
    the logits of wrong and right, in this order."""
    tokens: tuple[int, int] | None = None
    """Ids of the right and the wrong sign, where the score is the softmax of two tokens' logits; None where
    a head of its own is read."""


def of_signs(right: int, wrong: int) -> ServedReadOut:
    """The read-out of two tokens of the vocabulary."""
    # A server may also make a head of the two: of two classes, or of their difference.
    return ServedReadOut((1, 2), (right, wrong))


def of_head(classes: int) -> ServedReadOut:
    """The read-out of a head with so many outputs, 1 or 2."""
    return ServedReadOut((classes,))


@runtime_checkable
class Servable(Protocol):
    """A family that a server can run."""

    @property
    def served(self) -> ServedReadOut:
        """What is asked of the server."""
