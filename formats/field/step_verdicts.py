"""FoVer and Hard2Verify: lists of steps, each with a list of their verdicts.

FoVer (Kamoi et al.; psunlpgroup/FoVer): `{"id", "problem", "solution_steps": [..], "error_labels":
[true, false, null], "base_dataset"}`. Despite its name, `error_labels` is true for a correct step.
The labels are a prover's, not a person's: labeler `fover` of kind judge. `messages` and
`messages_for_prediction`, which repeat the steps as a conversation, are left out.

Hard2Verify (Pandit et al., arXiv 2510.13744): `{"unique_id", "question", "model_response_by_step":
[..], "human_labels": [1, 0], "human_labels_first_error_idx": 1 or -1, "canary"}`. Published rows
are masked, so that crawlers do not train on them: base64 of the JSON, XORed with the repeated
SHA-256 of the row's own canary. Both forms are read. Files of these formats are only read.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from itertools import cycle
from typing import Any

from formats import rows as fields
from formats.field.training import plain_label
from formats.files.container import RawRow
from formats.labels import human_gold, labeled_trace, usable_label
from formats.rows import OWN_KEYS, FileContext, FileFormat, RowFault, stated_id
from traces import ImportedTrace, Labeler, LabelerKind, Problem, RejectedRow, Trace, TraceLabel

FOVER = Labeler("fover", LabelerKind.JUDGE, {"imported_from": "fover"})
GOLD = human_gold("hard2verify")
_MASKED = ("question", "model_response_by_step", "human_labels", "human_labels_first_error_idx")


def _trace(
    raw: RawRow,
    file: FileContext,
    *,
    trace: Trace,
    question: str,
    labeler: Labeler,
    values: Any,
) -> Iterator[ImportedTrace | RejectedRow]:
    if isinstance(values, list):  # pandas writes 1.0 once a column had a gap
        values = [int(value) if value in (0, 1) else value for value in values]
    if values is None:
        raise RowFault("the labels are not a list")
    label = usable_label(labeler, trace, lambda: plain_label(values, trace))
    problem = Problem(trace.problem_id, question)
    yield from labeled_trace(raw, file, problem=problem, trace=trace, labeler=labeler, label=label)


def _fover(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question = fields.text_of(row, "problem")
    known = ("id", "problem", "solution_steps", "error_labels", "base_dataset", *OWN_KEYS)
    trace = Trace(
        stated_id(row, fields.id_or_none(row, "id") or file.row_id(raw)),
        fields.question_id(question),
        fields.steps_of(row, "solution_steps"),
        subset=file.subset or fields.optional_text_of(row, "base_dataset") or "default",
        meta=fields.rest_of(row, (*known, "messages", "messages_for_prediction")),
    )
    values = row.get("error_labels")
    yield from _trace(raw, file, trace=trace, question=question, labeler=FOVER, values=values)


def _hard2verify(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = _unmasked(raw.value)
    question = fields.text_of(row, "question")
    trace = Trace(
        _hard2verify_id(raw, file),
        fields.question_id(question),
        fields.steps_of(row, "model_response_by_step"),
        subset=file.subset or "default",
        generator=fields.optional_text_of(row, "model"),
        meta=fields.rest_of(row, (*_MASKED, "unique_id", "canary", "model", *OWN_KEYS)),
    )
    values = row.get("human_labels")
    for item in _trace(raw, file, trace=trace, question=question, labeler=GOLD, values=values):
        yield item
        if isinstance(item, ImportedTrace) and _contradicts(row, item.labels[0][1]):
            reason = "human_labels_first_error_idx is not the first 0 of human_labels, which count"
            yield file.note(raw, trace.id, reason)


def _hard2verify_id(raw: RawRow, file: FileContext) -> str:
    return stated_id(raw.value, fields.id_or_none(raw.value, "unique_id") or file.row_id(raw))


def _contradicts(row: dict[str, Any], label: TraceLabel) -> bool:
    stated = fields.whole_number(row.get("human_labels_first_error_idx"))
    if stated is None or label.abstention is not None:
        return False
    values = row["human_labels"]
    wrong = [index for index, value in enumerate(values) if value is not None and not value]
    return stated != (wrong[0] if wrong else -1)


def _unmasked(row: dict[str, Any]) -> dict[str, Any]:
    """The row in plain text.

    Raises:
        RowFault: a masked value does not fit the row's canary.
    """
    if isinstance(row.get("model_response_by_step"), list):
        return row
    canary = fields.text_of(row, "canary")
    masked = {key: row[key] for key in _MASKED if isinstance(row.get(key), str)}
    return row | {key: _plain(key, value, canary) for key, value in masked.items()}


def _plain(key: str, value: str, canary: str) -> Any:
    stream = cycle(hashlib.sha256(canary.encode()).digest())
    try:
        data = base64.b64decode(value, validate=True)
        text = bytes(a ^ b for a, b in zip(data, stream, strict=False)).decode()
    except ValueError as fault:
        raise RowFault(f"'{key}' cannot be unmasked with the row's canary") from fault
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


FOVER_FORMAT = FileFormat(
    name="fover",
    required=frozenset({"problem", "solution_steps", "error_labels"}),
    parse=_fover,
    name_row=lambda row, file: stated_id(
        row.value, fields.id_or_none(row.value, "id") or file.row_id(row)
    ),
)
HARD2VERIFY_FORMAT = FileFormat(
    name="hard2verify",
    required=frozenset({"question", "model_response_by_step", "human_labels"}),
    parse=_hard2verify,
    name_row=_hard2verify_id,
)
