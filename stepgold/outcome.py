"""What a command returns: a JSON document, text for a person, and an exit code."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stepgold.results import INCOMPLETE, OK, Result
from traces import AbstentionReason, ToolkitError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from traces import TraceLabel


NO_FAILURE = frozenset(
    {
        AbstentionReason.DISAGREEMENT,
        AbstentionReason.FILTERED,
        AbstentionReason.UNCERTAIN,
        AbstentionReason.NOT_MEASURED,
    }
)
"""Abstentions that are a finding, not a failure of the run."""

FAULTS = frozenset(
    {
        AbstentionReason.BLOCKED,
        AbstentionReason.TRUNCATED,
        AbstentionReason.UNREADABLE,
        AbstentionReason.OVER_LENGTH,
        AbstentionReason.MODEL_ERROR,
    }
)
"""Reasons that mean that a call failed; they say nothing about the step."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a command. `cli.py` prints it; `run` and `demo` collect it."""

    document: dict[str, Any]
    """The JSON document of the contract."""
    words: RenderableType
    """The text for a person."""
    exit_code: int = OK
    """0 if all is done, 1 if something is missing."""
    as_json: bool = False
    """Whether `--json` was given."""


@dataclass(slots=True)
class Tally:
    """Counts of a writing command: done + unchanged + abstained + failed = traces asked for."""

    command: str
    """Name of the command."""
    dataset: str | None
    """The dataset; None if the command has none."""
    labeler: str | None = None
    """The labeler; None if the command has none."""
    done: int = 0
    """Traces labeled in this call."""
    unchanged: int = 0
    """Traces labeled before."""
    failed: int = 0
    """Still missing after this call (budget, quota, signal)."""
    abstained: Counter[str] = field(default_factory=Counter)
    """Stored in this call as an abstention, by reason."""
    steps_abstained: Counter[str] = field(default_factory=Counter)
    """Single steps without a verdict in labeled traces, by reason."""
    near_ties: int | None = None
    """Token choices that another batch might make differently; None if they were not counted."""
    unusable_golds: list[dict[str, str]] = field(default_factory=list)
    """Gold answers that no answer can be compared with: id, answer, reason."""
    stopped: ToolkitError | None = None
    """What ended the run early; None if it finished."""
    harmless: frozenset[AbstentionReason] = NO_FAILURE
    """Reasons for a trace's abstention that keep the exit code at 0."""
    step_faults: frozenset[AbstentionReason] = frozenset()
    """Reasons for a step's abstention that set the exit code to 1."""
    started: float = field(default_factory=time.monotonic)
    """Monotonic clock at the start, in seconds."""

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
        failures = set(self.abstained) - {reason.value for reason in self.harmless}
        faults = set(self.steps_abstained) & {reason.value for reason in self.step_faults}
        return INCOMPLETE if failures or faults or self.failed or self.stopped else OK

    def figures(self) -> dict[str, Any]:
        """The counts as fields of a `LabelingResult`."""
        return {
            "command": self.command,
            "dataset": self.dataset,
            "labeler": self.labeler,
            "done": self.done,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "abstained": dict(sorted(self.abstained.items())),
            "steps_abstained": dict(sorted(self.steps_abstained.items())),
            "near_ties": self.near_ties,
            "unusable_golds": tuple(self.unusable_golds),
            "stopped": None if self.stopped is None else self.stopped.what,
            "seconds": round(time.monotonic() - self.started, 3),
            "complete": self.exit_code == OK,
        }

    def result(self) -> LabelingResult:
        """What the call did so far."""
        return LabelingResult(**self.figures())

    def document(self, **more: Any) -> dict[str, Any]:
        """The contract's document of a writing command."""
        return self.result().as_json() | more

    def sentence(self) -> str:
        """The text for a person, one to four lines."""
        return self.result().words()


@dataclass(frozen=True, kw_only=True, repr=False)
class LabelingResult(Result):
    """What a writing verb did: done + unchanged + abstained + failed = traces asked for."""

    command: str
    """Name of the command."""
    dataset: str | None
    """The dataset; None where there is none."""
    labeler: str | None
    """The labeler; None where there is none."""
    done: int
    """Traces labeled and stored in this call."""
    unchanged: int
    """Traces that were labeled before."""
    failed: int
    """Traces still missing after this call (budget, quota, signal)."""
    abstained: Mapping[str, int]
    """Traces stored in this call as an abstention, by reason."""
    steps_abstained: Mapping[str, int]
    """Single steps without a verdict in labeled traces, by reason."""
    near_ties: int | None
    """Token choices that another batch might make differently; None if they were not counted."""
    stopped: str | None
    """What ended the run early; None if it finished."""
    seconds: float
    """How long it took."""
    complete: bool
    """Whether nothing that was asked for is missing."""
    unusable_golds: tuple[Mapping[str, str], ...] = ()
    """Gold answers that no answer can be compared with: id, answer, reason."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if something was stopped, or abstained for a reason that is a failure."""
        return OK if self.complete else INCOMPLETE

    def as_json(self) -> dict[str, Any]:
        """The contract's document of a writing command."""
        document: dict[str, Any] = {
            "command": self.command,
            "dataset": self.dataset,
            "labeler": self.labeler,
            "done": self.done,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "abstained": dict(self.abstained),
            "seconds": self.seconds,
        }
        if self.steps_abstained:
            document["steps_abstained"] = dict(self.steps_abstained)
        if self.near_ties is not None:
            document["near_ties"] = self.near_ties
        if self.unusable_golds:
            document["unusable_golds"] = [dict(one) for one in self.unusable_golds]
        if self.stopped is not None:
            document["stopped"] = self.stopped
        return document

    def words(self) -> str:
        """The counts in one to four lines."""
        parts = [f"{self.done} done"]
        if self.unchanged:
            parts.append(f"{self.unchanged} already done")
        if self.abstained:
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.abstained.items())
            parts.append(f"{sum(self.abstained.values())} abstained ({reasons})")
        if self.failed:
            parts.append(f"{self.failed} still missing")
        name = f" '{self.labeler}'" if self.labeler else ""
        lines = [f"{self.command}{name}: {', '.join(parts)} in {self.seconds:.1f} s"]
        if self.near_ties:
            lines.append(
                f"{self.near_ties} token choices were near ties and may differ in other batches"
            )
        if self.stopped is not None:
            lines.append(f"stopped: {self.stopped}")
        if not self.complete:
            lines.append("see what is missing: stepgold status")
        return "\n".join(lines)
