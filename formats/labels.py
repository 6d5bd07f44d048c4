"""Labels in files: who labeled, where the first error is, ratings and lists per step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from formats.files.container import RawRow
from formats.rows import (
    OWN_KEYS,
    ExportRow,
    FileContext,
    Misfit,
    NeutralPolicy,
    Part,
    Rendered,
    RowFault,
    object_of,
    optional_text_of,
    whole_number,
)
from traces import (
    Abstention,
    AbstentionReason,
    ImportedTrace,
    Labeler,
    LabelerKind,
    Problem,
    Quote,
    RejectedRow,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
    abstained,
)


def human_gold(format: str, **config: str) -> Labeler:
    """The labeler of a format's human annotation."""
    return Labeler("gold", LabelerKind.GOLD, {"imported_from": format, **config})


def stated_labeler(row: Mapping[str, Any], otherwise: Labeler) -> Labeler:
    """The row's labeler: the one that our export wrote into it, else the format's own.

    Without this, a judge's exported labels would be imported as human gold.
    """
    stated = row.get("labeler")
    if not isinstance(stated, dict):
        return otherwise
    name, kind = stated.get("name"), stated.get("kind")
    stated_both = isinstance(name, str) and isinstance(kind, str)
    if not stated_both or not str(name).strip() or kind not in set(LabelerKind):
        raise RowFault(f"'labeler' needs a name and one of the kinds {', '.join(LabelerKind)}")
    return Labeler(str(name), LabelerKind(str(kind)), otherwise.config)


def outside(labeler: Labeler, trace_id: str, detail: str) -> TraceLabel:
    """The abstention that replaces a label that is not one of its steps, or cannot be read."""
    gold = labeler.kind is LabelerKind.GOLD
    reason = AbstentionReason.GOLD_UNUSABLE if gold else AbstentionReason.UNREADABLE
    return abstained(trace_id, reason, detail)


def usable_label(labeler: Labeler, trace: Trace, read: Callable[[], TraceLabel]) -> TraceLabel:
    """The label that is read, or an abstention if it cannot be: the trace is imported all the same.

    Args:
        labeler: who gives the label.
        trace: the labeled trace.
        read: reads the label; a `RowFault` that it raises says what is wrong with it.
    """
    try:
        return read()
    except RowFault as fault:
        return outside(labeler, trace.id, str(fault))


def first_error_label(labeler: Labeler, trace: Trace, index: int | None, stated: str) -> TraceLabel:
    """The label of a first error, or an abstention if that is not a step of the trace.

    Args:
        labeler: who gives the label.
        trace: the labeled trace.
        index: the first error, 0-based; None for no error.
        stated: the error as the file states it, for the list of unusable labels.
    """
    if index is not None and not 0 <= index < len(trace.steps):
        detail = f"gold names {stated} as the first error, the trace has {len(trace.steps)} steps"
        return outside(labeler, trace.id, detail)
    return TraceLabel(trace.id, first_error_given=True, first_error_index=index)


def labeled_trace(
    raw: RawRow,
    file: FileContext,
    *,
    problem: Problem,
    trace: Trace,
    labeler: Labeler,
    label: TraceLabel,
) -> Iterator[ImportedTrace | RejectedRow]:
    """Yield the trace, and a note if its label cannot be used."""
    yield ImportedTrace(problem, trace, ((labeler, label),), line=raw.line)
    if label.abstention is not None:
        yield file.rejected(raw, trace.id, label.abstention.detail, imported=True)


def labeler_key(row: ExportRow) -> dict[str, Any]:
    """The key that names the labeler, unless it is the human annotation the format is for."""
    if row.labeler.kind is LabelerKind.GOLD and row.labeler.name == "gold":
        return {}
    return {"labeler": {"name": row.labeler.name, "kind": row.labeler.kind.value}}


def with_meta(
    row: ExportRow,
    given: Mapping[str, Any],
    own_keys: Collection[str],
    lost: frozenset[Part] = frozenset(),
) -> Rendered:
    """The row with the trace's meta as further keys, the reverse of `rest_of`.

    A key of the meta that is also a key of the format counts as lost; it overwrites nothing.
    """
    clashes = row.trace.meta.keys() & {*own_keys, *OWN_KEYS}
    kept = {key: value for key, value in given.items() if value is not None}
    written = kept | {key: value for key, value in row.trace.meta.items() if key not in clashes}
    return Rendered(written, lost=lost | ({Part.TRACE_META} if clashes else frozenset()))


def text_or_number(row: Mapping[str, Any], key: str) -> str | None:
    """An answer, which some files write as a number."""
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return optional_text_of(row, key)


RATINGS = {1: Verdict.CORRECT, 0: Verdict.NEUTRAL, -1: Verdict.INCORRECT}
NUMBERS = {verdict: number for number, verdict in RATINGS.items()}
IGNORED = Abstention(AbstentionReason.FILTERED, "neutral, left out by --neutral ignore")
UNRATED = Abstention(AbstentionReason.NOT_MEASURED, "not rated in the file")
_READ_AS = {
    NeutralPolicy.KEEP: StepLabel(Verdict.NEUTRAL),
    NeutralPolicy.POSITIVE: StepLabel(Verdict.CORRECT),
    NeutralPolicy.NEGATIVE: StepLabel(Verdict.INCORRECT),
    NeutralPolicy.IGNORE: StepLabel(abstention=IGNORED),
}


def rated_label(
    trace_id: str,
    ratings: Sequence[Any],
    policy: NeutralPolicy,
    meta: Mapping[str, Any] | None = None,
) -> TraceLabel:
    """A label from one rating per step: 1, 0, -1 or None (not rated).

    Raises:
        RowFault: for any other rating.
    """
    steps = tuple(_step(rating, policy) for rating in ratings)
    if policy is not NeutralPolicy.IGNORE or None in ratings:
        return TraceLabel(trace_id, steps, meta=meta or {})
    index = ratings.index(-1) if -1 in ratings else None
    return TraceLabel(
        trace_id, steps, first_error_given=True, first_error_index=index, meta=meta or {}
    )


def ratings_of(label: TraceLabel) -> list[int | None]:
    """The ratings 1, 0, -1 of a label's steps; None for steps without a verdict."""
    return [None if step.verdict is None else NUMBERS[step.verdict] for step in label.step_labels]


def _step(rating: Any, policy: NeutralPolicy) -> StepLabel:
    if rating is None:
        return StepLabel(abstention=UNRATED)
    # True == 1, but true is not one of three ratings.
    if isinstance(rating, bool) or not isinstance(rating, int | float) or rating not in RATINGS:
        raise RowFault(f"a rating is {_shown(rating)}, not 1, 0, -1 or null")
    verdict = RATINGS[int(rating)]
    return _READ_AS[policy] if verdict is Verdict.NEUTRAL else StepLabel(verdict)


def _shown(value: Any) -> str:
    return f"{value!r:.40}"


_COUNTS = ("successes", "continuations", "unparsed", "unfinished")
SILENT = Abstention(AbstentionReason.NOT_MEASURED, "null in the file")


def read_label(trace_id: str, entry: Mapping[str, Any], n_steps: int) -> TraceLabel:
    """A label from our JSON, as `write_label` writes it.

    `verdicts` is a list of 1, 0, -1 or null, `scores` a list of numbers in [0, 1] or null,
    `first_error` a 0-based step index or null; `details` and `meta` are optional.

    Raises:
        Misfit: a list has another length than the trace, or the first error is not a step.
        RowFault: a value is of the wrong type, or all three keys are missing.
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
    """The JSON of a label, which `read_label` reads back unchanged."""
    entry: dict[str, Any] = {}
    steps = label.step_labels
    # Without any verdict or score, the steps are still written, as nulls.
    if any(step.verdict is not None for step in steps) or (
        steps and all(step.score is None for step in steps)
    ):
        entry["verdicts"] = [
            None if step.verdict is None else NUMBERS[step.verdict] for step in steps
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
    number = whole_number(value)
    if number not in RATINGS:
        raise RowFault(f"a verdict is {value!r}, not 1, 0, -1 or null")
    return RATINGS[number]


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
    index = whole_number(value)
    if index is None:
        raise RowFault(f"'first_error' is {value!r}, not a 0-based step index or null")
    if index == -1:
        raise RowFault("'first_error' is -1: write null for no error")
    if not 0 <= index < n_steps:
        raise Misfit(f"the first error {index} (0-based) is outside the {n_steps} steps")
    return index


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
        raise RowFault(
            f"'{stated.get('reason')}' is not a reason for an abstention,"
            f" one of {', '.join(AbstentionReason)}"
        )
    detail = optional_text_of(stated, "detail") or ""
    return replace(label, abstention=Abstention(AbstentionReason(stated["reason"]), detail))


def _count(details: Mapping[str, Any], name: str) -> int | None:
    value = details.get(name)
    count = whole_number(value)
    if value is not None and (count is None or count < 0):
        raise RowFault(f"'{name}' is {value!r}, not a count")
    return count


def _quote(details: Mapping[str, Any]) -> Quote | None:
    stated = object_of(details, "quote")
    if not stated:
        return None
    return Quote(
        text=optional_text_of(stated, "text") or "",
        document=_count(stated, "document"),
        verified=stated.get("verified") is True,
        start=_count(stated, "start"),
        end=_count(stated, "end"),
        method=optional_text_of(stated, "method"),
    )
