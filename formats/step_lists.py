"""Labels as lists with one entry per step: `verdicts`, `scores`, `first_error`, and what stands behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from formats.fields import Misfit, RowFault, object_of, optional_text_of
from traces.abstention import Abstention, AbstentionReason
from traces.evidence import Quote
from traces.labels import StepLabel, TraceLabel, Verdict

_VERDICTS = {1: Verdict.CORRECT, 0: Verdict.NEUTRAL, -1: Verdict.INCORRECT}
_NUMBERS = {verdict: number for number, verdict in _VERDICTS.items()}
_COUNTS = ("successes", "continuations", "unparsed", "unfinished")
SILENT = Abstention(AbstentionReason.NOT_MEASURED, "null in the file")


def read_label(trace_id: str, entry: Mapping[str, Any], n_steps: int) -> TraceLabel:
    """A label from `verdicts` (1, 0, -1, null), `scores` ([0, 1] or null) and `first_error` (0-based or null).

    Raises:
        Misfit: a list has another length than the trace, or the first error lies outside it.
        RowFault: a value is of the wrong type, or nothing is said at all.
    """
    if not entry.keys() & {"verdicts", "scores", "first_error"}:
        raise RowFault("it has none of 'verdicts', 'scores', 'first_error'")
    verdicts = [_verdict(value) for value in _list_of(entry, "verdicts", n_steps)]
    scores = [_score(value) for value in _list_of(entry, "scores", n_steps)]
    details = _list_of(entry, "details", n_steps)
    steps = []
    for index in range(n_steps if verdicts or scores else 0):
        verdict = verdicts[index] if verdicts else None
        score = scores[index] if scores else None
        label = StepLabel(verdict, score, SILENT if verdict is None and score is None else None)
        steps.append(_with_details(label, details[index]) if details and details[index] else label)
    given = "first_error" in entry
    return TraceLabel(
        trace_id,
        tuple(steps),
        first_error_given=given,
        first_error_index=_first_error(entry["first_error"], n_steps) if given else None,
        meta=object_of(entry, "meta"),
    )


def write_label(label: TraceLabel) -> dict[str, Any]:
    """The JSON of a label, such that `read_label` gives it back."""
    entry: dict[str, Any] = {}
    steps = label.step_labels
    # A label without any verdict or score still has its steps: as nulls.
    if any(step.verdict is not None for step in steps) or (
        steps and all(step.score is None for step in steps)
    ):
        entry["verdicts"] = [
            None if step.verdict is None else _NUMBERS[step.verdict] for step in steps
        ]
    if any(step.score is not None for step in steps):
        entry["scores"] = [step.score for step in steps]
    if label.first_error_given:
        entry["first_error"] = label.first_error_index
    details = [_details(step) for step in steps]
    if any(details):
        entry["details"] = [detail or None for detail in details]
    if label.meta:
        entry["meta"] = dict(label.meta)
    return entry


def _list_of(entry: Mapping[str, Any], key: str, n_steps: int) -> list[Any]:
    value = entry.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RowFault(f"'{key}' is not a list")
    if len(value) != n_steps:
        raise Misfit(f"'{key}' has {len(value)} entries, the trace has {n_steps} steps")
    return value


def _verdict(value: Any) -> Verdict | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value not in _VERDICTS:
        raise RowFault(f"a verdict is {value!r}, not 1, 0, -1 or null")
    return _VERDICTS[value]


def _score(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowFault(f"a score is {value!r}, not a number or null")
    if not 0 <= value <= 1:
        raise RowFault(f"a score is {value}, outside [0, 1]: bring the scores into that range")
    return float(value)


def _first_error(value: Any, n_steps: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise RowFault(f"'first_error' is {value!r}, not a 0-based step index or null")
    if value == -1:
        raise RowFault("'first_error' is -1: write null for no error")
    if not 0 <= value < n_steps:
        raise Misfit(f"the first error {value} (0-based) lies outside the {n_steps} steps")
    return value


def _details(step: StepLabel) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(step, name) for name in (*_COUNTS, "reasoning")}
    if step.quote is not None:
        found["quote"] = {name: getattr(step.quote, name) for name in Quote.__slots__}
    if step.abstention is not None and step.abstention != SILENT:
        found["abstention"] = {
            "reason": step.abstention.reason.value,
            "detail": step.abstention.detail,
        }
    return {name: value for name, value in found.items() if value is not None and value != ""}


def _with_details(label: StepLabel, details: Any) -> StepLabel:
    if not isinstance(details, dict):
        raise RowFault("an entry of 'details' is not an object")
    label = replace(
        label,
        reasoning=optional_text_of(details, "reasoning"),
        quote=_quote(details),
        successes=_count(details, "successes"),
        continuations=_count(details, "continuations"),
        unparsed=_count(details, "unparsed"),
        unfinished=_count(details, "unfinished"),
    )
    stated = object_of(details, "abstention")
    if not stated:
        return label
    if stated.get("reason") not in set(AbstentionReason):
        raise RowFault(f"'{stated.get('reason')}' is no reason for an abstention")
    detail = optional_text_of(stated, "detail") or ""
    return replace(label, abstention=Abstention(AbstentionReason(stated["reason"]), detail))


def _count(details: Mapping[str, Any], name: str) -> int | None:
    value = details.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise RowFault(f"'{name}' is {value!r}, not a count")
    return value


def _quote(details: Mapping[str, Any]) -> Quote | None:
    stated = object_of(details, "quote")
    if not stated:
        return None
    return Quote(
        optional_text_of(stated, "text") or "",
        _count(stated, "document"),
        stated.get("verified") is True,
        _count(stated, "start"),
        _count(stated, "end"),
        optional_text_of(stated, "method"),
    )
