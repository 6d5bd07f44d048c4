"""Where labelers part: the steps that some call incorrect and some do not, most evenly divided first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.step_words import ComparedTrace, StepWords, WordTable
from traces import Evidence, FirstError, Quote, StepLabel, TraceInContext


@dataclass(frozen=True, slots=True)
class DisputedTrace:
    """A trace on which labelers part."""

    trace_id: str
    """The trace."""
    steps: tuple[int, ...]
    """0-based indices of the steps that some call incorrect and some do not."""
    conflicts: int
    """Pairs of labelers that part on its most disputed step."""


@dataclass(frozen=True, slots=True)
class Disputes:
    """All of them."""

    traces: tuple[DisputedTrace, ...]
    """Most disputed first, else in order."""
    steps: int
    """Their disputed steps."""


def find_disputes(table: WordTable) -> Disputes:
    """The traces on which at least two labelers part on a step."""
    words = table.words.values()
    n_steps = len(table.trace_of_step)
    bad = sum((one.known & one.incorrect for one in words), np.zeros(n_steps, dtype=np.int64))
    good = sum((one.known & ~one.incorrect for one in words), np.zeros(n_steps, dtype=np.int64))
    conflicts = np.asarray(bad * good)
    first_step = np.searchsorted(table.trace_of_step, np.arange(len(table.traces)))
    steps: dict[int, list[int]] = {}
    for step in np.flatnonzero(conflicts):
        steps.setdefault(int(table.trace_of_step[step]), []).append(int(step))
    found = [
        DisputedTrace(
            table.traces[place].trace_id,
            tuple(step - int(first_step[place]) for step in those),
            max(int(conflicts[step]) for step in those),
        )
        for place, those in steps.items()
    ]
    found.sort(key=lambda trace: -trace.conflicts)
    return Disputes(tuple(found), int((conflicts > 0).sum()))


def disagreement_json(
    disputed: DisputedTrace, table: WordTable, context: TraceInContext
) -> dict[str, Any]:
    """One entry of the key `disagreements`: the steps, who says what and why, and the evidence."""
    place = next(
        place for place, one in enumerate(table.traces) if one.trace_id == disputed.trace_id
    )
    trace = table.traces[place]
    start = int(np.searchsorted(table.trace_of_step, place))
    return {
        "id": trace.trace_id,
        "problem_id": trace.problem_id,
        "subset": trace.subset,
        "question": context.problem.question,
        "options": list(context.problem.options),
        "answer": context.problem.answer,
        "final_answer": context.trace.final_answer,
        "n_steps": trace.n_steps,
        "first_errors": {
            name: _first_error_json(words.first_errors[place])
            for name, words in table.words.items()
        },
        "steps": [
            {
                "step_index": index,
                "text": context.trace.steps[index],
                "words": {
                    name: _word_json(words, start + index, _step(trace, name, index))
                    for name, words in table.words.items()
                },
            }
            for index in disputed.steps
        ],
        "evidence": [_evidence_json(one) for one in context.evidence],
    }


def word_of(words: StepWords, step: int) -> str | None:
    """A labeler's word on a step (its place in the table); None if it is silent."""
    if not words.known[step]:
        return None
    if words.neutral[step]:
        return "neutral"
    return "incorrect" if words.incorrect[step] else "correct"


def _step(trace: ComparedTrace, name: str, index: int) -> StepLabel | None:
    label = trace.labels.get(name)
    if label is None or not label.step_labels:
        return None
    return label.step_labels[index]


def _word_json(words: StepWords, step: int, said: StepLabel | None) -> dict[str, Any]:
    abstention = None if said is None else said.abstention
    return {
        "verdict": word_of(words, step),
        "score": None if said is None else said.score,
        "abstention": None if abstention is None else abstention.reason.value,
        "reasoning": None if said is None else said.reasoning,
        "quote": None if said is None or said.quote is None else _quote_json(said.quote),
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
    """The entries of `disagreement_json` for a person at a terminal."""
    lines = []
    for entry in entries:
        lines.append(f"\n{entry['id']} ({entry['subset']}, {entry['n_steps']} steps)")
        for step in entry["steps"]:
            lines.append(f"  step {step['step_index']}: {step['text']}")
            lines += [
                f"    {name}: {_spoken(word)}"
                for name, word in step["words"].items()
                if word["verdict"] is not None
            ]
        lines += [
            f"  evidence {number}: {found['document']}: {found['text'][:200]}"
            + ("..." if len(found["text"]) > 200 else "")
            for number, found in enumerate(entry["evidence"], 1)
        ]
    return lines


def _spoken(word: Mapping[str, Any]) -> str:
    parts = [word["verdict"]]
    if word["score"] is not None:
        parts.append(f"{word['score']:.2f}")
    if word["reasoning"]:
        parts.append(word["reasoning"])
    if word["quote"] is not None:
        kind = "quote" if word["quote"]["verified"] else "quote not found in the evidence"
        parts.append(f'{kind}: "{word["quote"]["text"]}"')
    return ", ".join(parts)
