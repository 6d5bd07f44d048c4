"""PRM800K (Lightman et al., arXiv 2305.20050, openai/prm800k): MATH solutions rated step by step.

JSONL: `{"labeler": uuid, "timestamp", "generation", "question": {"problem",
"ground_truth_solution", "ground_truth_answer", "pre_generated_steps"?: [..]}, "label": {"steps":
[{"completions": [{"text", "rating": 1|0|-1|null, "flagged"}], "human_completion": null,
"chosen_completion": 0}], "total_time",
"finish_reason": "found_error"|"solution"|"bad_problem"|"give_up"}}`. A step is the chosen
completion, or the one a person wrote (rated +1 by the instructions). At the last step of a found
error nothing is chosen: the solution's own step is then the completion that occurs in
`pre_generated_steps`. Alternatives are kept in the trace's meta. Rows have no id: `<file stem>:i`.
`--neutral` says how to read 0; `--alternatives` makes a trace of every rated alternative and the
steps before it, as the authors trained on them (openai/prm800k#10).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import (
    human_gold,
    labeled_trace,
    rated_label,
    ratings_of,
    text_or_number,
    usable_label,
)
from formats.rows import (
    CannotCarry,
    ExportRow,
    FileContext,
    FileFormat,
    FormatLimit,
    NeutralPolicy,
    Part,
    Rendered,
    RowFault,
    require_label,
    stated_id,
)
from traces import ImportedTrace, Labeler, LabelerKind, Problem, RejectedRow, Trace

ALTERNATIVES, HUMAN, FLAGGED = "alternatives", "human_steps", "flagged_steps"
"""Keys of the trace's meta: completions that were not taken, and 0-based steps that a person wrote
or that the rater flagged as impossible to judge."""
_Completion = tuple[str, Any, Any]
"""Text, rating, flag."""


@dataclass(frozen=True, slots=True)
class RatedSteps:
    """The solution of a row, with its ratings."""

    steps: tuple[str, ...]
    """At least one."""
    ratings: tuple[Any, ...]
    """One per step, unchecked."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Alternatives and human steps, where there are any."""
    cut: str | None = None
    """Why the trace lacks steps of the row; None if it has all."""


def read_steps(stated: Any, own_steps: Any) -> RatedSteps:
    """The steps of `label.steps`; `own_steps` is `question.pre_generated_steps` (phase 2) or None.

    Raises:
        RowFault: a value is of the wrong type, or no step is left.
    """
    if not isinstance(stated, list):
        raise RowFault("'label.steps' is not a list")
    steps: list[str] = []
    ratings: list[Any] = []
    alternatives: list[dict[str, Any]] = []
    human: list[int] = []
    flagged: list[int] = []
    end = None
    for index, step in enumerate(stated):
        completions, chosen, written = _step(step)
        if chosen is None and written is None:
            end = index
            chosen = _own(completions, own_steps, index)
        others = [
            {"step": index, "text": text, "rating": rating} | ({"flagged": flag} if flag else {})
            for number, (text, rating, flag) in enumerate(completions)
            if number != chosen or written is not None
        ]
        alternatives.extend(others)
        if written is not None:
            human.append(index)
        if written is not None or chosen is not None:
            text, rating, flag = (
                (written, 1, None) if written is not None else completions[chosen or 0]
            )
            steps.append(text)
            ratings.append(rating)
            flagged.extend([index] if flag else [])
        if end is not None:
            break
    if not any(text.strip() for text in steps):
        raise RowFault("there are no steps in 'label.steps'")
    meta = {ALTERNATIVES: alternatives, HUMAN: human, FLAGGED: flagged}
    cut = None
    if end is not None and end + 1 < len(stated):
        cut = (
            f"no completion of step {end + 1} was chosen; the trace lacks the"
            f" {len(stated) - end - 1} steps after it"
        )
    return RatedSteps(
        tuple(steps), tuple(ratings), {key: value for key, value in meta.items() if value}, cut
    )


def _step(step: Any) -> tuple[list[_Completion], int | None, str | None]:
    """Completions, the index of the chosen one, and the text that a person wrote instead."""
    if not isinstance(step, dict):
        raise RowFault("an entry of 'label.steps' is not an object")
    stated = step.get("completions") or []
    if not isinstance(stated, list) or not all(isinstance(one, dict) for one in stated):
        raise RowFault("'completions' is not a list of objects")
    completions = [
        (_text(one.get("text")), one.get("rating"), one.get("flagged")) for one in stated
    ]
    chosen = step.get("chosen_completion")
    if chosen is not None:
        whole = isinstance(chosen, int) and not isinstance(chosen, bool)
        if not whole or not 0 <= chosen < len(completions):
            raise RowFault(
                f"'chosen_completion' is {chosen!r:.40}, there are {len(completions)} completions"
            )
        return completions, chosen, None
    written = step.get("human_completion")
    # A text by the README, an object in the data.
    written = written.get("text") if isinstance(written, dict) else written
    return completions, None, None if written is None else _text(written)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RowFault("the text of a completion is not a text")
    return value


def _own(completions: list[_Completion], own_steps: Any, index: int) -> int | None:
    """Index of the solution's own completion where none was chosen; None if unknown."""
    if isinstance(own_steps, list):
        own = own_steps[index] if index < len(own_steps) else None
        for number, (text, _, _) in enumerate(completions):
            if text == own:
                return number
        return None
    # Phase 1: a single candidate is the step; of several, none was taken.
    return 0 if len(completions) == 1 else None


def label_of(row: ExportRow) -> list[int | None]:
    """The ratings of a label, None for unlabeled steps.

    Raises:
        CannotCarry: the label abstains, or has scores only.
    """
    require_label(row)
    if not row.label.step_labels:
        error, n_steps = row.label.first_error_index, len(row.trace.steps)
        if error is None:
            return [1] * n_steps
        return [*([1] * error), -1, *([None] * (n_steps - error - 1))]
    ratings = ratings_of(row.label)
    if any(
        step.verdict is None and step.score is not None for step in row.label.step_labels
    ) or not any(rating is not None for rating in ratings):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED, "the label is a score; this format carries verdicts"
        )
    return ratings


def write_steps(
    steps: Sequence[str], ratings: Sequence[int | None], meta: dict[str, Any]
) -> tuple[list[dict[str, Any]], frozenset[Part]]:
    """`label.steps` of a trace; removes from `meta` what is written there."""
    written: list[dict[str, Any]] = [
        {
            "completions": [{"text": text, "rating": rating, "flagged": None}],
            "human_completion": None,
            "chosen_completion": 0,
        }
        for text, rating in zip(steps, ratings, strict=True)
    ]
    before = {key: meta.pop(key) for key in (ALTERNATIVES, HUMAN, FLAGGED) if key in meta}
    for index in _indices(before.get(HUMAN), len(steps)):
        if ratings[index] == 1:
            written[index] |= {
                "completions": [],
                "human_completion": {"text": steps[index], "rating": 1, "flagged": None},
                "chosen_completion": None,
            }
    for index in _indices(before.get(FLAGGED), len(steps)):
        for completion in written[index]["completions"]:
            completion["flagged"] = True
    others = before.get(ALTERNATIVES)
    for other in others if isinstance(others, list) else []:
        if isinstance(other, dict) and isinstance(other.get("text"), str):
            place = _indices([other.get("step")], len(steps))
            kept = {key: other.get(key) for key in ("text", "rating", "flagged")}
            for index in place:
                written[index]["completions"].append(kept)
    again = read_steps(written, None).meta
    return written, frozenset() if again == before else frozenset({Part.TRACE_META})


def _indices(stated: Any, n_steps: int) -> list[int]:
    listed = stated if isinstance(stated, list) else []
    return [
        index
        for index in listed
        if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < n_steps
    ]


_QUESTION = ("problem", "ground_truth_answer")
_ROW = ("question", "label", "trace_id", "labeler_kind")
_OF_QUESTION = (
    "ground_truth_solution",
    "pre_generated_steps",
    "pre_generated_answer",
    "pre_generated_verifier_score",
)
"""Keys of `question` that are kept in the trace's meta: equal problems may differ in them."""
_OF_LABEL = ("total_time", "finish_reason")


def gold(policy: NeutralPolicy) -> Labeler:
    """The human labeler, whose configuration names the policy for neutral steps."""
    chosen = {} if policy is NeutralPolicy.KEEP else {"neutral": policy.value}
    return human_gold("prm800k", **chosen)


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    asked, said = fields.object_of(row, "question"), fields.object_of(row, "label")
    question, answer = (
        fields.text_of(asked, "problem"),
        text_or_number(asked, "ground_truth_answer"),
    )
    found = read_steps(said.get("steps"), asked.get("pre_generated_steps"))
    meta = {
        **fields.rest_of(row, {*_ROW, *({"labeler"} if "labeler_kind" in row else ())}),
        **fields.rest_of(asked, _QUESTION),
        **fields.rest_of(said, {"steps"}),
        **found.meta,
    }
    trace = Trace(
        stated_id(row, file.row_id(raw)),
        fields.question_id(question, more=[answer]),
        found.steps,
        subset=file.subset or "default",
        meta=meta,
    )
    labeler = _labeler(row, file)
    label = usable_label(labeler, trace, lambda: rated_label(trace.id, found.ratings, file.neutral))
    problem = Problem(trace.problem_id, question, answer=answer)
    yield from labeled_trace(raw, file, problem=problem, trace=trace, labeler=labeler, label=label)
    if found.cut is not None:
        yield file.rejected(raw, trace.id, found.cut, imported=True)
    if file.alternatives:
        for other, ratings in _alternatives(trace, found):
            label = rated_label(other.id, ratings, file.neutral)
            yield ImportedTrace(problem, other, ((labeler, label),), line=raw.line)


def _alternatives(trace: Trace, found: RatedSteps) -> Iterator[tuple[Trace, tuple[Any, ...]]]:
    """Each rated completion that was not taken as the last step of a trace `ID/STEP.NUMBER`.

    STEP is the 0-based index of the step, NUMBER counts its alternatives from 1.
    """
    numbers: Counter[int] = Counter()
    for other in found.meta.get(ALTERNATIVES, ()):
        index = other["step"]
        numbers[index] += 1
        if other["rating"] is None or not other["text"].strip():
            continue
        yield (
            replace(
                trace,
                id=f"{trace.id}/{index}.{numbers[index]}",
                steps=(*found.steps[:index], other["text"]),
                meta={"alternative_of": trace.id},
            ),
            (*found.ratings[:index], other["rating"]),
        )


def _labeler(row: dict[str, Any], file: FileContext) -> Labeler:
    """The labeler: our exports name its kind, an original row only a person's id."""
    if "labeler_kind" not in row:
        return gold(file.neutral)
    name, kind = fields.text_of(row, "labeler"), row["labeler_kind"]
    if kind not in set(LabelerKind):
        raise RowFault(f"'labeler_kind' is not one of {', '.join(LabelerKind)}")
    return Labeler(name, LabelerKind(kind), gold(file.neutral).config)


def _render(row: ExportRow) -> Rendered:
    ratings = label_of(row)
    meta = dict(row.trace.meta)
    steps, lost = write_steps(row.trace.steps, ratings, meta)
    question = {
        "problem": row.problem.question,
        "ground_truth_answer": row.problem.answer,
        **{key: meta.pop(key) for key in _OF_QUESTION if key in meta},
    }
    label = {"steps": steps, **{key: meta.pop(key) for key in _OF_LABEL if key in meta}}
    written: dict[str, Any] = {"question": question, "label": label, "trace_id": row.trace.id}
    if row.labeler.kind is not LabelerKind.GOLD or row.labeler.name != "gold":
        # The original `labeler` is a text, so the kind gets a key of its own.
        written |= {"labeler": row.labeler.name, "labeler_kind": row.labeler.kind.value}
    if clashes := meta.keys() & {*written, *_QUESTION, "steps", "labeler_kind"}:
        lost |= {Part.TRACE_META}
    more = {key: value for key, value in meta.items() if key not in clashes}
    return Rendered(written | more, lost=lost)


FORMAT = FileFormat(
    name="prm800k",
    required=frozenset({"question", "label"}),
    parse=_parse,
    render=_render,
    carries=frozenset({Part.ANSWER, Part.TRACE_META, Part.LATER_VERDICTS, Part.NEUTRAL}),
    excludes=lambda row: isinstance(row["label"], list),  # OpenR
    takes=frozenset({"neutral", "alternatives"}),
)
