"""Experts' answers from files: our own, Potato's `prm_training_data.jsonl`, Label Studio's JSON.

- Ours: `{"trace_id", "step_index", "expert", "answer", "note", "seconds", "opinions", "purpose",
  "at", "token"}`, also as CSV.
- Potato: `{"instance_id", "annotator", "mode", "steps": [{"index", "reward", "source",
  "verified"}]}`. In the mode `first_error` it marks all later steps as incorrect, so only the steps
  up to the first count, and 0 is unmarked; else 0 is neutral (`allow_neutral: true`) and null is
  unmarked. A suggestion of its model that no person verified is no answer.
- Label Studio: tasks made by `export label-studio` with `annotations`.

Of a person only a code is kept: a name that is none becomes one that does not tell it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from formats import rows as fields
from formats.field.potato import REWARDS
from formats.files.container import RawRow, read_rows
from formats.rows import RowFault
from traces import ExpertAnswer, RejectedRow, ReviewAnswer, ReviewPurpose, TraceFormatError

COLUMNS = (
    *("trace_id", "step_index", "expert", "answer", "note"),
    *("seconds", "opinions", "purpose", "at", "token"),
)
"""Our columns, in order."""
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_REWARDED = {reward: ExpertAnswer(verdict.value) for verdict, reward in REWARDS.items()}
_PLACE = re.compile(r"(verdict|note)_(\d{1,6})")


def answer_row(answer: ReviewAnswer) -> dict[str, Any]:
    """An answer as a row of our files."""
    return {name: getattr(answer, name) for name in COLUMNS}


def write_expert_answers(path: Path, answers: Iterable[ReviewAnswer]) -> int:
    """Write answers as CSV or JSON Lines, by the file's ending; returns how many."""
    rows = [answer_row(answer) for answer in answers]
    with path.open("w", encoding="utf-8", newline="") as out:
        if path.suffix == ".csv":
            table = csv.DictWriter(out, COLUMNS)
            table.writeheader()
            table.writerows(rows)
        else:
            out.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    return len(rows)


def read_expert_answers(path: Path) -> Iterator[ReviewAnswer | RejectedRow]:
    """The answers of a file, and the rows that cannot be used.

    Raises:
        TraceFormatError: the file cannot be read.
    """
    for raw in _csv_rows(path) if path.suffix == ".csv" else read_rows(path):
        try:
            if raw.fault is not None:
                raise RowFault(f"the row {raw.fault}")
            yield from _answers(raw.value)
        except RowFault as fault:
            yield RejectedRow(str(path), raw.line, None, str(fault))


def _csv_rows(path: Path) -> Iterator[RawRow]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for index, row in enumerate(csv.DictReader(file, strict=True)):
                value = {name: text for name, text in row.items() if name and text}
                yield RawRow(value=value, index=index, line=index + 2)
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise TraceFormatError(
            f"The CSV file cannot be read: {fault}.", where=str(path), remedy="save it as UTF-8"
        ) from fault


def _answers(row: Mapping[str, Any]) -> list[ReviewAnswer]:
    if "annotations" in row and "data" in row:
        return list(_label_studio(row))
    if "instance_id" in row and "annotator" in row:
        return list(_potato(row))
    if "trace_id" in row and "expert" in row:
        return [_own(row)]
    raise RowFault("the row is no answer of an expert in a known format")


def _own(row: Mapping[str, Any]) -> ReviewAnswer:
    try:
        answer = ExpertAnswer(fields.text_of(row, "answer"))
        purpose = ReviewPurpose(row.get("purpose") or "import")
        seconds = None if row.get("seconds") in (None, "") else float(row["seconds"])
        step = int(row["step_index"])
    except (KeyError, TypeError, ValueError) as fault:
        raise RowFault(f"the row is not an answer: {fault}") from fault
    trace, expert = fields.id_of(row, "trace_id"), code_of(row["expert"])
    token = fields.optional_text_of(row, "token")
    return ReviewAnswer(
        trace_id=trace,
        step_index=step,
        expert=expert,
        answer=answer,
        token=token or _token(("own", trace, step, expert, answer)),
        note=fields.optional_text_of(row, "note"),
        seconds=seconds,
        opinions=fields.optional_text_of(row, "opinions"),
        purpose=purpose,
        at=fields.optional_text_of(row, "at") or "",
    )


def _potato(row: Mapping[str, Any]) -> Iterator[ReviewAnswer]:
    trace, expert = fields.id_of(row, "instance_id"), code_of(row["annotator"])
    stated, first_error = row.get("steps"), row.get("mode") == "first_error"
    if not isinstance(stated, list) or not all(isinstance(step, dict) for step in stated):
        raise RowFault("'steps' is not a list of objects")
    for place, step in enumerate(stated):
        reward = step.get("reward")
        if reward is None or step.get("verified") is False or (first_error and reward == 0):
            continue
        index = fields.whole_number(step.get("index", place))
        answer = _REWARDED.get(reward) if not isinstance(reward, bool) else None
        if index is None or answer is None:
            raise RowFault(f"step {place + 1} has the reward {reward!r:.40}, not 1, 0 or -1")
        yield _imported(trace, index, expert, answer)
        if first_error and answer is ExpertAnswer.INCORRECT:
            return


def _label_studio(row: Mapping[str, Any]) -> Iterator[ReviewAnswer]:
    trace = fields.id_of(fields.object_of(row, "data"), "trace_id")
    for annotation in row["annotations"] or ():
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        found: dict[int, dict[str, str]] = {}
        for result in annotation.get("result") or ():
            place = _PLACE.fullmatch(str(result.get("from_name")))
            value = fields.object_of(result, "value")
            texts = value.get("choices") or value.get("text") or []
            texts = [texts] if isinstance(texts, str) else texts
            if place is not None and texts:
                found.setdefault(int(place[2]), {})[place[1]] = str(texts[0])
        person, time = annotation.get("completed_by"), annotation.get("lead_time")
        expert = code_of(person.get("id") if isinstance(person, dict) else person)
        judged = {step: said for step, said in found.items() if "verdict" in said}
        for step, said in sorted(judged.items()):
            try:
                answer = ExpertAnswer(said["verdict"])
            except ValueError as fault:
                raise RowFault(f"step {step + 1} has the choice {said['verdict']!r:.40}") from fault
            seconds = time / len(judged) if isinstance(time, int | float) else None
            yield _imported(trace, step, expert, answer, note=said.get("note"), seconds=seconds)


def _imported(
    trace: str,
    step: int,
    expert: str,
    answer: ExpertAnswer,
    *,
    note: str | None = None,
    seconds: float | None = None,
) -> ReviewAnswer:
    return ReviewAnswer(
        trace_id=trace,
        step_index=step,
        expert=expert,
        answer=answer,
        token=_token(("import", trace, step, expert, answer, note)),
        note=note,
        seconds=seconds,
        purpose=ReviewPurpose.IMPORT,
    )


def code_of(person: Any) -> str:
    """A person's code: a code or number as it is, anything else as a code that tells nothing.

    >>> code_of("E1"), code_of(7), code_of("alice@example.org")[:2]
    ('E1', 'U7', 'P-')
    """
    if isinstance(person, int) and not isinstance(person, bool):
        return f"U{person}"
    text = str(person or "")
    if not text:
        raise RowFault("the row does not say who answered")
    if _CODE.fullmatch(text):
        return text
    return f"P-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _token(parts: Sequence[Any]) -> str:
    """The same for the same answer, so that a file may be imported twice."""
    content = [str(part) for part in parts]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
