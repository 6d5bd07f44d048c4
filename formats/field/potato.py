"""Items for Potato's `process_reward` scheme (potatoannotator.com), with a labeler as pre-label.

JSONL, one item a trace: `{"id", "problem", "options"?, "steps": [{"action": text}], "suggestions",
"pre_labels": [{"index", "reward": null, "source": "ai", "verified": false, "ai_reward": 1|0|-1,
"ai_reasoning", "confidence"}]}`: steps as the scheme reads them (`steps_key: steps`,
`step_text_key: action`), the pre-labels with the keys that its own have, and `suggestions` as one
text to show beside the steps. What Potato exports is read by `formats.field.expert_answers`.
"""

from __future__ import annotations

from typing import Any

from formats.rows import ExportRow, FileFormat, Part, Rendered, require_label
from traces import StepLabel, Verdict

REWARDS = {Verdict.CORRECT: 1, Verdict.NEUTRAL: 0, Verdict.INCORRECT: -1}
"""The three rewards of `process_reward` with `allow_neutral`."""


def remarks(step: StepLabel) -> str:
    """A step's quote and reasoning as one text."""
    quote = None if step.quote is None else f'"{step.quote.text}"'
    return "\n".join(filter(None, (quote, step.reasoning)))


def words(row: ExportRow) -> str:
    """What the labeler says of each step, one line a step."""
    return "\n".join(
        f"Step {number}: {step.verdict.value} {remarks(step)}".rstrip()
        for number, step in enumerate(row.label.step_labels, start=1)
        if step.verdict is not None
    )


def _pre_label(index: int, step: StepLabel) -> dict[str, Any]:
    return {
        "index": index,
        "reward": None,
        "source": "ai",
        "verified": False,
        "ai_reward": None if step.verdict is None else REWARDS[step.verdict],
        "ai_reasoning": remarks(step),
        "confidence": step.score,
    }


def _render(row: ExportRow) -> Rendered:
    require_label(row)
    item: dict[str, Any] = {"id": row.trace.id, "problem": row.problem.question}
    if row.problem.options:
        item["options"] = list(row.problem.options)
    item["steps"] = [{"action": text} for text in row.trace.steps]
    item["evidence"] = "\n\n".join(one.passage.text for one in row.evidence)
    item["suggestions"] = words(row)
    item["pre_labels"] = [
        _pre_label(index, step) for index, step in enumerate(row.label.step_labels)
    ]
    return Rendered(item | {"labeler": row.labeler.name})


FORMAT = FileFormat(
    name="potato",
    required=frozenset({"id", "problem", "steps", "pre_labels"}),
    render=_render,
    carries=frozenset(
        {Part.OPTIONS, Part.NEUTRAL, Part.LATER_VERDICTS, Part.EVIDENCE, Part.REMARKS}
    ),
)
