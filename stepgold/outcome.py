"""What a command hands back: one document, words for a person, an exit code."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from traces.errors import ToolkitError
from traces.labels import AbstentionReason

if TYPE_CHECKING:
    from rich.console import RenderableType

    from traces.labels import TraceLabel


OK, INCOMPLETE, BAD_INPUT, DEFECT, INTERRUPTED = 0, 1, 2, 70, 130

NO_FAILURE = frozenset(
    {
        AbstentionReason.DISAGREEMENT,
        AbstentionReason.FILTERED,
        AbstentionReason.UNCERTAIN,
        AbstentionReason.NOT_MEASURED,
    }
)
"""Reasons that are the purpose of a consensus, not a failure of a run."""

FAULTS = frozenset(
    {
        AbstentionReason.BLOCKED,
        AbstentionReason.TRUNCATED,
        AbstentionReason.UNREADABLE,
        AbstentionReason.OVER_LENGTH,
        AbstentionReason.MODEL_ERROR,
    }
)
"""Reasons that say that a call went wrong, and nothing about the step."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a command. `cli.py` prints it; `run` and `demo` collect it."""

    document: dict[str, Any]
    """The JSON document of the contract."""
    words: RenderableType
    """What a person reads instead of it."""
    exit_code: int = OK
    """0 all done, 1 done with something missing."""
    as_json: bool = False
    """Whether `--json` was given."""


@dataclass(slots=True)
class Tally:
    """Counts of a writing command: done + unchanged + abstained + failed = traces asked for."""

    command: str
    """Name of the command."""
    dataset: str | None
    """The dataset; None where there is none."""
    labeler: str | None = None
    """The labeler; None where there is none."""
    done: int = 0
    """Stored with a word in this call."""
    unchanged: int = 0
    """Stored before, left alone."""
    failed: int = 0
    """Still missing after this call (budget, quota, signal)."""
    abstained: Counter[str] = field(default_factory=Counter)
    """Stored in this call as an abstention, by reason."""
    steps_abstained: Counter[str] = field(default_factory=Counter)
    """Single steps without a verdict in traces that have a word, by reason."""
    near_ties: int | None = None
    """Choices of tokens that another batch might make otherwise; None where no policy counted them."""
    stopped: ToolkitError | None = None
    """What ended the run early; None if it came to its end."""
    harmless: frozenset[AbstentionReason] = NO_FAILURE
    """Reasons of traces that leave the exit code at 0."""
    step_faults: frozenset[AbstentionReason] = frozenset()
    """Reasons of single steps that do not."""
    started: float = field(default_factory=time.monotonic)
    """Clock at the start, seconds."""

    def count(self, labels: Iterable[TraceLabel]) -> None:
        """Count labels that were just stored."""
        for label in labels:
            near_ties = label.meta.get("near_ties")
            if isinstance(near_ties, int):
                self.near_ties = near_ties + (self.near_ties or 0)
            if label.abstention is not None:
                self.abstained[label.abstention.reason.value] += 1
                continue
            self.done += 1
            for step in label.step_labels:
                if step.abstention is not None:
                    self.steps_abstained[step.abstention.reason.value] += 1

    @property
    def exit_code(self) -> int:
        """0, or 1 if something was stopped or abstained for a reason that is a failure."""
        failures = any(AbstentionReason(reason) not in self.harmless for reason in self.abstained)
        faults = any(
            AbstentionReason(reason) in self.step_faults for reason in self.steps_abstained
        )
        return INCOMPLETE if failures or faults or self.failed or self.stopped else OK

    def document(self, **more: Any) -> dict[str, Any]:
        """The contract's document of a writing command."""
        document: dict[str, Any] = {
            "command": self.command,
            "dataset": self.dataset,
            "labeler": self.labeler,
            "done": self.done,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "abstained": dict(sorted(self.abstained.items())),
            "seconds": round(time.monotonic() - self.started, 3),
        }
        if self.steps_abstained:
            document["steps_abstained"] = dict(sorted(self.steps_abstained.items()))
        if self.near_ties is not None:
            document["near_ties"] = self.near_ties
        if self.stopped is not None:
            document["stopped"] = self.stopped.what
        return document | more

    def sentence(self) -> str:
        """The same for a person, one to three lines."""
        parts = [f"{self.done} done"]
        if self.unchanged:
            parts.append(f"{self.unchanged} were there already")
        if self.abstained:
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(self.abstained.items()))
            parts.append(f"{sum(self.abstained.values())} abstained ({reasons})")
        if self.failed:
            parts.append(f"{self.failed} still missing")
        name = f" '{self.labeler}'" if self.labeler else ""
        lines = [
            f"{self.command}{name}: "
            + ", ".join(parts)
            + f" in {time.monotonic() - self.started:.1f} s"
        ]
        if self.near_ties:
            lines.append(
                f"{self.near_ties} choices of tokens were near ties: in other batches they may fall otherwise"
            )
        if self.stopped is not None:
            lines.append(f"stopped: {self.stopped.what}")
        if self.exit_code != OK:
            lines.append("see what is missing: stepgold status")
        return "\n".join(lines)
