"""Chat messages that train a critic: problem and solution in, reasoning and verdicts out.

`{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}], "images"?:
["a.png"], "trace_id", "labeler"}`. The solution is split into paragraphs between tags with their
index, the first being 0, as in ProcessBench's critic prompt (arXiv 2412.06559). The answer has such
a block for every labeled step, with the judge's reasoning, its quote and the verdict, and ends with
the index of the first error in `\\boxed{}`, -1 for none:

    <paragraph_0>
    The guideline names 6 mg per kg.
    Quote from document 1: "dose is 6 mg per kg"
    Verdict: correct
    </paragraph_0>

    \\boxed{-1}

This is the layout that LLaMA-Factory (`formatting: sharegpt` with OpenAI's tags), ms-swift, TRL's
SFTTrainer and, as .parquet, verl's MultiTurnSFTDataset read. `<image>` marks where an image goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from formats import rows as fields
from formats.field.sharegpt import IMAGE
from formats.field.training import TRAINING_PARTS, asked, training_keys
from formats.files.container import RawRow
from formats.files.parquet import write_messages
from formats.labels import UNRATED, labeled_trace, outside
from formats.rows import (
    OWN_KEYS,
    CannotCarry,
    ExportRow,
    FileContext,
    FileFormat,
    FormatLimit,
    Misfit,
    Part,
    Rendered,
    RowFault,
    question_id,
    stated_first_error,
    stated_id,
)
from traces import (
    Evidence,
    ImportedTrace,
    Problem,
    RejectedRow,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
    first_error,
)

BEGIN = (
    "Check the solution of a problem. The solution is split into paragraphs, each between tags"
    " with its index; the first index is 0."
)
_DOCUMENTS, _PROBLEM, _SOLUTION = "\n\nDocuments:\n\n", "\n\nProblem:\n\n", "\n\nSolution:\n\n"
END = (
    "\n\nFor each paragraph give your reasoning and a verdict: correct, incorrect or neutral. End"
    " with the index of the first incorrect paragraph in \\boxed{}, or -1 if there is none."
)
_BLOCK = re.compile(r"<paragraph_(\d+)>\n(.*?)\n</paragraph_\1>", re.DOTALL)
_ANSWER = re.compile(
    r"(?:(?P<reasoning>.*?)\n)??(?:Quote from [^\n]*\n)?Verdict: (?P<verdict>[a-z]+)", re.DOTALL
)
_BOXED = re.compile(r"\\boxed\{(-1|\d+)\}\Z")


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    asks, answers = _turns(row.get("messages"))
    question, steps = _asked(asks)
    if file.labeler is None:
        raise RowFault("the labeler is unknown")
    images = fields.texts_of(row, "images")
    problem = Problem(question_id(question, more=images), question, images=images)
    trace = Trace(
        stated_id(row, file.row_id(raw)),
        problem.id,
        steps,
        subset=file.subset or "default",
        meta=fields.rest_of(row, {"messages", "images", *OWN_KEYS}),
    )
    try:
        label = _label(trace, answers)
    except Misfit as misfit:
        label = outside(file.labeler, trace.id, str(misfit))
    yield from labeled_trace(
        raw, file, problem=problem, trace=trace, labeler=file.labeler, label=label
    )


def _turns(messages: Any) -> tuple[str, str]:
    """What the user and the assistant say."""
    turns = messages if isinstance(messages, list) else []
    said = [turn for turn in turns if isinstance(turn, dict) and turn.get("role") != "system"]
    if [turn.get("role") for turn in said] != ["user", "assistant"]:
        raise RowFault("'messages' is not one turn of the user and one of the assistant")
    return fields.text_of(said[0], "content"), fields.text_of(said[1], "content")


def _asked(text: str) -> tuple[str, tuple[str, ...]]:
    """The question, without the documents and the marks of images, and the steps."""
    body = text.removesuffix(END)
    before, separator, solution = body.rpartition(_SOLUTION)
    _, problem, question = before.rpartition(_PROBLEM)
    if not (text.startswith(BEGIN) and body != text and separator and problem):
        raise RowFault("the user's turn is not in the layout of `stepgold export critique`")
    blocks = _BLOCK.findall(solution)
    if [int(number) for number, _ in blocks] != list(range(len(blocks))) or not blocks:
        raise RowFault("the paragraphs are not numbered from 0")
    steps = tuple(step for _, step in blocks)
    if "\n\n".join(map(_block, range(len(steps)), steps)) != solution:
        raise RowFault("the solution has text outside its paragraphs")
    while question.startswith(IMAGE):
        question = question.removeprefix(IMAGE)
    return question, steps


def _label(trace: Trace, answer: str) -> TraceLabel:
    boxed = _BOXED.search(answer.rstrip())
    if boxed is None:
        raise RowFault("the assistant's turn does not end with an index in \\boxed{}")
    index = None if boxed[1] == "-1" else int(boxed[1])
    steps = [StepLabel(abstention=UNRATED)] * len(trace.steps)
    for number, block in _BLOCK.findall(answer):
        found = _ANSWER.fullmatch(block)
        if found is None or found["verdict"] not in set(Verdict):
            raise RowFault(f"paragraph {number} has no verdict")
        if int(number) >= len(steps):
            raise Misfit(f"a verdict on paragraph {number}, of {len(steps)}")
        verdict = Verdict(found["verdict"])
        steps[int(number)] = StepLabel(verdict, reasoning=found["reasoning"] or None)
    label = TraceLabel(trace.id, tuple(steps))
    named = first_error(label)
    if index is not None and index >= len(steps):
        raise Misfit(f"the first error is paragraph {index}, of {len(steps)}")
    if named.missing or named.index != index:
        return replace(label, first_error_given=True, first_error_index=index)
    return label


def _render(row: ExportRow) -> Rendered:
    error = stated_first_error(row)
    verdicts = _verdicts(row, error)
    question, steps = asked(row.problem), row.trace.steps
    places = IMAGE * len(row.problem.images)
    paragraphs = "\n\n".join(map(_block, range(len(steps)), steps))
    asks = f"{BEGIN}{_documents(row.evidence)}{_PROBLEM}{places}{question}"
    asks += f"{_SOLUTION}{paragraphs}{END}"
    answers = [
        _block(number, "\n".join([*_remarks(row, number, verdict), f"Verdict: {verdict}"]))
        for number, verdict in enumerate(verdicts)
        if verdict is not None
    ]
    boxed = f"\\boxed{{{-1 if error is None else error}}}"
    messages = [
        {"role": "user", "content": asks},
        {"role": "assistant", "content": "\n\n".join([*answers, boxed])},
    ]
    if asks.count(IMAGE.strip()) != len(row.problem.images):
        raise CannotCarry(FormatLimit.NOT_CARRIED, "a text contains <image>, the mark of an image")
    _require_readable(row, messages, verdicts)
    images = {"images": list(row.problem.images)} if row.problem.images else {}
    return Rendered({"messages": messages, **images, **training_keys(row)})


def _block(number: int, text: str) -> str:
    return f"<paragraph_{number}>\n{text}\n</paragraph_{number}>"


def _documents(evidence: Sequence[Evidence]) -> str:
    if not evidence:
        return ""
    texts = (
        f"[{number}] {found.passage.title}\n{found.passage.text}"
        for number, found in enumerate(evidence, 1)
    )
    return _DOCUMENTS + "\n\n".join(texts)


def _verdicts(row: ExportRow, error: int | None) -> list[Verdict | None]:
    """The verdict of every step; those up to a stated first error follow from it."""
    said = [step.verdict for step in row.label.step_labels] or [None] * len(row.trace.steps)
    known = len(said) if error is None else error
    implied: list[Verdict | None] = [Verdict.CORRECT] * known
    implied += [] if error is None else [Verdict.INCORRECT]
    implied += [None] * (len(said) - len(implied))
    return [own or meant for own, meant in zip(said, implied, strict=True)]


def _remarks(row: ExportRow, number: int, verdict: Verdict) -> Iterator[str]:
    """Reasoning and quote on a step: of the label, else of a judge that it was made from."""
    labels = (row.label, *(label for _, label in row.support))
    steps = [label.step_labels[number] for label in labels if len(label.step_labels) > number]
    agreeing = [step for step in steps if step.verdict is verdict and step.reasoning]
    for step in agreeing[:1]:
        yield str(step.reasoning)
        if step.quote is not None and step.quote.verified and step.quote.document is not None:
            text = " ".join(step.quote.text.split())
            yield f'Quote from document {step.quote.document}: "{text}"'


def _require_readable(
    row: ExportRow, messages: Sequence[Mapping[str, str]], verdicts: Sequence[Verdict | None]
) -> None:
    """Refuse a text that looks like a part of the layout, so that it is read back otherwise."""
    asks, answers = (turn["content"] for turn in messages)
    try:
        question, steps = _asked(asks)
        label = _label(row.trace, answers)
    except RowFault:
        question, steps, label = "", (), TraceLabel(row.trace.id)
    back = [step.verdict for step in label.step_labels]
    same = first_error(label) == first_error(row.label) and back == list(verdicts)
    if not same or (question, steps) != (asked(row.problem), row.trace.steps):
        raise CannotCarry(FormatLimit.NOT_CARRIED, "a text looks like a part of the layout")


def _is_other(row: Mapping[str, Any]) -> bool:
    """Whether chat messages are not in this layout."""
    try:
        return not _turns(row.get("messages"))[0].startswith(BEGIN)
    except RowFault:
        return True


FORMAT = FileFormat(
    name="critique",
    required=frozenset({"messages"}),
    parse=_parse,
    render=_render,
    carries=TRAINING_PARTS | {Part.NEUTRAL, Part.IMAGES},
    needs_labeler=True,
    excludes=_is_other,
    write_table=write_messages,
)
