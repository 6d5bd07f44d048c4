"""The stored labels of one labeler, for reading in Python."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepgold.options import DatasetOptions
from stepgold.results import Result
from traces import StepLabel, Verdict, option

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder
    from traces import TraceLabel


class LabelsOptions(DatasetOptions):
    """Whose labels."""

    labeler: str = option(metavar="NAME", help="Labeler in the dataset.")


@dataclass(frozen=True, kw_only=True, repr=False)
class LabelsResult(Result):
    """The labels of a labeler, one per labeled trace, in the order of import."""

    dataset: str
    """Name of the dataset."""
    labeler: str
    """Who labeled."""
    labels: tuple[TraceLabel, ...]
    """One per trace that was labeled or abstained from."""
    steps: Mapping[str, int]
    """How many steps these traces have, by trace id."""

    def __iter__(self) -> Iterator[TraceLabel]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def as_json(self) -> dict[str, Any]:
        """The counts and the rows."""
        return {
            "dataset": self.dataset,
            "labeler": self.labeler,
            "traces": len(self.labels),
            "labels": list(self.rows()),
        }

    def words(self) -> str:
        """The counts in one line."""
        abstained = sum(label.abstention is not None for label in self.labels)
        labeled = len(self.labels) - abstained
        return f"{self.labeler} on {self.dataset}: {labeled} traces labeled, {abstained} abstained"

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """One row per step of the labeled traces: verdict, score, or the reason for neither.

        Where a labeler named only a first error, the steps before it are correct and those after
        it have no verdict. An abstention from a whole trace is repeated on each of its steps.
        """
        for label in self.labels:
            for index, step in enumerate(_step_labels(label, self.steps[label.trace_id])):
                yield {
                    "trace_id": label.trace_id,
                    "step_index": index,
                    "verdict": None if step.verdict is None else step.verdict.value,
                    "score": step.score,
                    "abstention": None if step.abstention is None else step.abstention.reason.value,
                }

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def _step_labels(label: TraceLabel, steps: int) -> Sequence[StepLabel]:
    if label.step_labels:
        return label.step_labels
    if not label.first_error_given:
        return [StepLabel(abstention=label.abstention)] * steps
    correct = StepLabel(verdict=Verdict.CORRECT)
    if label.first_error_index is None:
        return [correct] * steps
    before = label.first_error_index
    wrong = StepLabel(verdict=Verdict.INCORRECT)
    return [*[correct] * before, wrong, *[StepLabel()] * (steps - before - 1)]


def labels(workspace: WorkspaceFolder, options: LabelsOptions) -> LabelsResult:
    """Read the labels of one labeler.

    Raises:
        InputError: unknown dataset or labeler.
    """
    with workspace.open_store() as store:
        store.traces.require_dataset(options.dataset)
        store.labels.labeler(options.dataset, options.labeler)
        found = store.labels.load(options.dataset, options.labeler)
        steps = {
            context.trace.id: len(context.trace.steps)
            for context in store.traces.contexts(options.dataset, with_evidence=False)
            if context.trace.id in found
        }
    return LabelsResult(
        dataset=options.dataset,
        labeler=options.labeler,
        labels=tuple(found.values()),
        steps=steps,
    )
