"""The parts of a labelled trace beside its question and steps, so that a format can say which it carries."""

from __future__ import annotations

from enum import StrEnum

from formats.export_row import ExportRow
from traces.abstention import AbstentionReason
from traces.first_error import first_error
from traces.labels import StepLabel, Verdict


class Part(StrEnum):
    """What an export may lose; each is counted where a format has no place for it."""

    OPTIONS = "options"
    """The answer options."""
    ANSWER = "answer"
    """The gold answer."""
    IMAGES = "images"
    """Paths of the question's images."""
    PROBLEM_META = "problem_meta"
    """What the source said about the problem beyond our fields."""
    SUBSET = "subset"
    """The subset, where it is not `default`."""
    GENERATOR = "generator"
    """The model that wrote the trace."""
    FINAL_ANSWER = "final_answer"
    """The answer the trace ends with."""
    OUTCOME = "final_answer_correct"
    """Whether that answer is right."""
    TRACE_META = "trace_meta"
    """What the source said about the trace beyond our fields."""
    EVIDENCE = "evidence"
    """Evidence for the problem."""
    TEXT = "text"
    """Question and steps to the letter: the format trims or numbers them, or joins their lines."""
    NEUTRAL = "neutral"
    """Neutral verdicts: where the format has two words, neutral is no error."""
    SCORES = "scores"
    """Step scores."""
    LATER_VERDICTS = "later_verdicts"
    """Verdicts or scores behind the first error."""
    ABSTENTIONS = "abstentions"
    """Why single steps have no verdict (`not_measured` needs no place)."""
    REMARKS = "remarks"
    """Reasoning, quotes and Monte-Carlo counts of steps."""
    LABEL_META = "label_meta"
    """What else the labeler said about the trace."""


def parts_of(row: ExportRow) -> frozenset[Part]:
    """The parts that a labelled trace has."""
    problem, trace, label = row.problem, row.trace, row.label
    steps = label.step_labels
    there = {
        Part.OPTIONS: problem.options,
        Part.ANSWER: problem.answer is not None,
        Part.IMAGES: problem.images,
        Part.PROBLEM_META: problem.meta,
        Part.SUBSET: trace.subset != "default",
        Part.GENERATOR: trace.generator is not None,
        Part.FINAL_ANSWER: trace.final_answer is not None,
        Part.OUTCOME: trace.final_answer_correct is not None,
        Part.TRACE_META: trace.meta,
        Part.EVIDENCE: row.evidence,
        Part.NEUTRAL: any(step.verdict is Verdict.NEUTRAL for step in steps),
        Part.SCORES: any(step.score is not None for step in steps),
        Part.LATER_VERDICTS: any(step.abstention is None for step in _later_steps(row)),
        Part.ABSTENTIONS: any(
            step.abstention is not None
            and step.abstention.reason is not AbstentionReason.NOT_MEASURED
            for step in steps
        ),
        Part.REMARKS: any(_has_remarks(step) for step in steps),
        Part.LABEL_META: label.meta,
    }
    return frozenset(part for part, found in there.items() if found)


def _later_steps(row: ExportRow) -> tuple[StepLabel, ...]:
    found = first_error(row.label)
    if found.missing or found.index is None:
        return ()
    return row.label.step_labels[found.index + 1 :]


def _has_remarks(step: StepLabel) -> bool:
    said = (step.reasoning, step.quote, step.successes, step.continuations)
    return any(value is not None for value in (*said, step.unparsed, step.unfinished))
