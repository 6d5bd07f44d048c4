"""Problems and their traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with what is needed to answer and to check it."""

    id: str
    """Unique within a dataset. Formats that list traces only use the trace id or a hash of the question."""
    question: str
    """The question as shown to a model, without the options."""
    options: tuple[str, ...] = ()
    """Answer options in order (A, B, ...); empty for open questions."""
    answer: str | None = None
    """The gold answer: an option letter where there are options; None if unknown."""
    images: tuple[str, ...] = ()
    """Paths of images that belong to the question."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the source said beyond our fields (strict JSON)."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One solution as a list of steps."""

    id: str
    """Unique within a dataset."""
    problem_id: str
    """The problem this trace tries to solve."""
    steps: tuple[str, ...]
    """The steps in order, at least one; step index is 0-based."""
    subset: str = "default"
    """The part of the dataset it is reported under."""
    generator: str | None = None
    """The model that wrote the trace; None if unknown."""
    final_answer: str | None = None
    """The answer the trace ends with; None if unknown."""
    final_answer_correct: bool | None = None
    """Whether that answer is the gold answer; None if unknown."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the source said beyond our fields (strict JSON)."""

    def prefix(self, step_index: int) -> tuple[str, ...]:
        """The steps up to and with `step_index` (0-based)."""
        return self.steps[: step_index + 1]
