"""AgentProcessBench (arXiv 2603.14465): trajectories of agents, rated action by action.

`{"total_index": 0, "question", "data_source", "ground_truth": {"target": [..]}, "answer_text",
"messages": [{"role": "system" | "user" | "assistant" | "tool", "content", "tool_calls"?}, ..],
"step_labels": {"2": 1, "4": 0, "6": -1}, "final_label": -1}`. The keys of `step_labels` are indices
of messages of the assistant, not of steps. A step is such a message with its tool calls, and the
messages that answer it (the tools' results, and what a simulated user says next); the messages
before the first one belong to the problem. 1 is correct, 0 neutral, -1 incorrect. Files of this
format are only read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import human_gold, labeled_trace, outside, rated_label, usable_label
from formats.rows import OWN_KEYS, FileContext, FileFormat, RowFault, stated_id
from traces import ImportedTrace, Problem, RejectedRow, Trace, TraceLabel

GOLD = human_gold("agentprocessbench")
_KEYS = (
    "total_index", "record_id", "question", "data_source", "ground_truth", "answer_text",
    "messages", "step_labels", "final_label", *OWN_KEYS,
)  # fmt: skip


def _name_row(row: RawRow, file: FileContext) -> str | None:
    known = fields.id_or_none(row.value, "total_index") or fields.id_or_none(row.value, "record_id")
    return stated_id(row.value, known or file.row_id(row))


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise RowFault("'messages' is not a list of messages")
    places = [place for place, one in enumerate(messages) if one.get("role") == "assistant"]
    if not places:
        raise RowFault("no message of 'messages' is the assistant's")
    question, answer = _question(row, messages[: places[0]]), _answer(row.get("ground_truth"))
    outcome = fields.whole_number(row.get("final_label"))
    ends = [*places[1:], len(messages)]
    steps = tuple(
        "\n".join(filter(None, map(_shown, messages[place:end]))) or "(empty message)"
        for place, end in zip(places, ends, strict=True)
    )
    trace = Trace(
        _name_row(raw, file) or file.row_id(raw),
        fields.question_id(question, more=[answer]),
        steps,
        subset=file.subset or fields.optional_text_of(row, "data_source") or "default",
        final_answer=fields.optional_text_of(row, "answer_text"),
        final_answer_correct=None if outcome not in (1, -1) else outcome == 1,
        meta=fields.rest_of(row, _KEYS) | _truth(row, answer),
    )
    label = usable_label(GOLD, trace, lambda: _label(row.get("step_labels"), places, trace, file))
    problem = Problem(trace.problem_id, question, answer=answer)
    yield from labeled_trace(raw, file, problem=problem, trace=trace, labeler=GOLD, label=label)


def _question(row: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> str:
    """The text before the agent's first message; `question` where that is nothing."""
    texts = [_text(one.get("content")) for one in before]
    asked = "\n\n".join(text for text in texts if text.strip())
    return asked or fields.text_of(row, "question")


def _answer(truth: Any) -> str | None:
    """The gold answer where there is one text only."""
    target = truth.get("target") if isinstance(truth, dict) else truth
    target = target[0] if isinstance(target, list) and len(target) == 1 else target
    return target if isinstance(target, str) and target.strip() else None


def _truth(row: Mapping[str, Any], answer: str | None) -> dict[str, Any]:
    stated = row.get("ground_truth")
    return {} if answer is not None or stated is None else {"ground_truth": stated}


def _shown(message: Mapping[str, Any]) -> str:
    """A message as text: what is said, then each call as `name(arguments)`."""
    said = _text(message.get("content"))
    listed = message.get("tool_calls")
    calls = (
        [_call(one) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    )
    role = message.get("role")
    if role != "assistant":
        said = f"[{message.get('name') or role}] {said}"
    return "\n".join(part for part in (said, *calls) if part.strip())


def _call(stated: Mapping[str, Any]) -> str:
    function = stated.get("function")
    called = function if isinstance(function, dict) else stated
    return f"{called.get('name')}({_text(called.get('arguments'))})"


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return json.dumps(content, ensure_ascii=False)


def _label(stated: Any, places: Sequence[int], trace: Trace, file: FileContext) -> TraceLabel:
    if not isinstance(stated, dict):
        raise RowFault("'step_labels' is not an object of message numbers and ratings")
    known = {str(place) for place in places}
    if stray := sorted(key for key in stated if key not in known):
        detail = f"gold rates message {stray[0]}, which is not one of the assistant's"
        return outside(GOLD, trace.id, detail)
    ratings = [_whole(stated.get(str(place))) for place in places]
    return rated_label(trace.id, ratings, file.neutral)


def _whole(rating: Any) -> Any:
    number = fields.whole_number(rating)
    return rating if number is None else number


FORMAT = FileFormat(
    name="agentprocessbench",
    required=frozenset({"messages", "step_labels"}),
    parse=_parse,
    name_row=_name_row,
    takes=frozenset({"neutral"}),
)
