"""Disagreements: the steps that some labelers call incorrect and some do not, most disputed
first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.frames import Index
from evaluation.label_table import LabelTable, StepColumns, called_counts
from traces import Evidence, FirstError, Quote, StepLabel, TraceInContext, TraceLabel


@dataclass(frozen=True, slots=True)
class DisputedTrace:
    """A trace on which labelers disagree."""

    trace_id: str
    place: int
    """Its position in the table."""
    steps: tuple[int, ...]
    """0-based indices of the steps that some call incorrect and some do not."""
    conflicts: int
    """Pairs of labelers that disagree on its most disputed step."""


@dataclass(frozen=True, slots=True)
class Disputes:
    """All disputed traces of a table."""

    table: LabelTable
    conflicts: NDArray[np.int16]
    """Per step of the table, the pairs of labelers that disagree on it."""
    places: Index
    """Positions of the disputed traces, most disputed first, ties in order."""
    steps: int
    """Number of their disputed steps."""

    def __len__(self) -> int:
        return len(self.places)

    def first(self, n: int) -> tuple[DisputedTrace, ...]:
        """The `n` most disputed traces."""
        frame, starts = self.table.frame, self.table.frame.starts
        return tuple(
            DisputedTrace(
                trace_id=frame.ids[place],
                place=place,
                steps=tuple(np.flatnonzero(found := self.conflicts[start:end]).tolist()),
                conflicts=int(found.max()),
            )
            for place in self.places[:n].tolist()
            for start, end in [(int(starts[place]), int(starts[place + 1]))]
        )


def find_disputes(table: LabelTable) -> Disputes:
    """The traces with a step on which at least two labelers disagree."""
    conflicts = np.zeros(table.n_steps, dtype=np.int16)
    for _, steps, good, bad in called_counts(table):
        conflicts[steps] = bad * good
    most = np.zeros(0, dtype=np.int16)
    if len(table.frame):
        most = np.maximum.reduceat(conflicts, table.frame.starts[:-1])
    places = np.flatnonzero(most)
    places = places[np.argsort(-most[places], kind="stable")]
    return Disputes(table, conflicts, places, int((conflicts > 0).sum()))


def disagreement_json(
    disputed: DisputedTrace,
    table: LabelTable,
    context: TraceInContext,
    labels: Mapping[str, TraceLabel],
) -> dict[str, Any]:
    """One entry of the key `disagreements`: steps, labels with reasons, and evidence.

    Args:
        disputed: the trace.
        table: the labels as columns.
        context: the texts.
        labels: the labels of the trace by labeler, in full.
    """
    place, frame = disputed.place, table.frame
    start = int(frame.starts[place])
    return {
        "id": disputed.trace_id,
        "problem_id": frame.problem_ids[frame.problem[place]],
        "subset": frame.subsets[frame.subset[place]],
        "question": context.problem.question,
        "options": list(context.problem.options),
        "answer": context.problem.answer,
        "final_answer": context.trace.final_answer,
        "n_steps": int(frame.n_steps[place]),
        "first_errors": {
            name: _first_error_json(columns.first_errors[place])
            for name, columns in table.columns.items()
        },
        "steps": [
            {
                "step_index": index,
                "text": context.trace.steps[index],
                "labels": {
                    name: _label_json(columns, start + index, _step(labels.get(name), index))
                    for name, columns in table.columns.items()
                },
            }
            for index in disputed.steps
        ],
        "evidence": [_evidence_json(one) for one in context.evidence],
    }


def verdict_at(columns: StepColumns, step: int) -> str | None:
    """A labeler's verdict on a step, given by its position in the table; None for an unlabeled
    step."""
    if not columns.known[step]:
        return None
    if columns.neutral(slice(step, step + 1))[0]:
        return "neutral"
    return "incorrect" if columns.incorrect[step] else "correct"


def _step(label: TraceLabel | None, index: int) -> StepLabel | None:
    if label is None or not label.step_labels:
        return None
    return label.step_labels[index]


def _label_json(columns: StepColumns, step: int, label: StepLabel | None) -> dict[str, Any]:
    abstention = None if label is None else label.abstention
    return {
        "verdict": verdict_at(columns, step),
        "score": None if label is None else label.score,
        "abstention": None if abstention is None else abstention.reason.value,
        "reasoning": None if label is None else label.reasoning,
        "quote": None if label is None or label.quote is None else _quote_json(label.quote),
    }


def _first_error_json(found: FirstError) -> dict[str, Any]:
    return {"missing": found.missing, "index": found.index}


def _quote_json(quote: Quote) -> Mapping[str, Any]:
    return {"text": quote.text, "document": quote.document, "verified": quote.verified}


def _evidence_json(one: Evidence) -> Mapping[str, Any]:
    passage = one.passage
    return {
        "corpus": passage.corpus,
        "document": passage.document,
        "title": passage.title,
        "start": passage.start,
        "end": passage.end,
        "similarity": one.similarity,
        "text": passage.text,
    }


def disagreement_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The entries of `disagreement_json` as lines of text."""
    lines = []
    for entry in entries:
        lines.append(f"\n{entry['id']} ({entry['subset']}, {entry['n_steps']} steps)")
        for step in entry["steps"]:
            lines.append(f"  step {step['step_index']}: {step['text']}")
            lines += [
                f"    {name}: {_label_text(label)}"
                for name, label in step["labels"].items()
                if label["verdict"] is not None
            ]
        lines += [
            f"  evidence {number}: {found['document']}: {found['text'][:200]}"
            + ("..." if len(found["text"]) > 200 else "")
            for number, found in enumerate(entry["evidence"], 1)
        ]
    return lines


def _label_text(label: Mapping[str, Any]) -> str:
    parts = [label["verdict"]]
    if label["score"] is not None:
        parts.append(f"{label['score']:.2f}")
    if label["reasoning"]:
        parts.append(label["reasoning"])
    if label["quote"] is not None:
        kind = "quote" if label["quote"]["verified"] else "quote not found in the evidence"
        parts.append(f'{kind}: "{label["quote"]["text"]}"')
    return ", ".join(parts)
