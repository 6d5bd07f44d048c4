"""What was spent, what the store saved, and what is still to come: the ledger's part of status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from traces import LabelerKind

if TYPE_CHECKING:
    from storage import CallSpending, LabelerSummary, Store


PURPOSE = {LabelerKind.JUDGE: "judge", LabelerKind.MC: "continue"}
"""What calls say that they are for, by the kind of labeler that sends them."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a labeler will cost until it has labelled its dataset."""

    dataset: str
    """Its dataset."""
    labeler: str
    """Its name."""
    missing: int
    """Traces without a word of it."""
    usd: float | None
    """US dollars at the mean cost of a trace so far; None where no price is known."""


def forecasts(store: Store) -> list[Forecast]:
    """What is missing of labelers that were paid for, at the mean cost of a trace so far.

    The mean is over all labelers of the same kind and model, calls that led nowhere included.
    """
    sizes, rows = store.traces.datasets(), store.labels.labelers()
    spent = store.replies.spending()
    found = []
    for row in rows:
        missing = sizes[row.dataset].traces - row.traces
        if missing and row.labeler.kind in PURPOSE and _calls(row, spent):
            usd = _usd_a_trace(row, rows, spent)
            whole = None if usd is None else usd * missing
            found.append(Forecast(row.dataset, row.labeler.name, missing, whole))
    return found


def spending_document(store: Store) -> dict[str, Any]:
    """The `calls` of status: the contract's three figures, and what they are made of."""
    from inference import PRICES_AS_OF

    totals, rows, ahead = store.replies.totals(), store.replies.spending(), forecasts(store)
    known = [each.usd for each in ahead if each.usd is not None]
    return {
        "sent": totals.sent,
        "cached": totals.cached,
        "usd": totals.usd,
        "saved_usd": totals.saved_usd,
        "unpriced": totals.unpriced,
        "input_tokens": sum(row.usage.input_tokens for row in rows),
        "cached_tokens": sum(row.usage.cached_tokens for row in rows),
        "output_tokens": sum(row.usage.output_tokens for row in rows),
        "thinking_tokens": sum(row.usage.thinking_tokens for row in rows),
        "forecast_usd": sum(known),
        "forecast": [
            {
                "dataset": each.dataset,
                "labeler": each.labeler,
                "missing": each.missing,
                "usd": each.usd,
            }
            for each in ahead
        ],
        "prices_as_of": PRICES_AS_OF.isoformat(),
    }


def spending_words(calls: dict[str, Any]) -> list[str]:
    """The same for a person."""
    lines = [
        f"calls: {calls['sent']} sent, {calls['cached']} answered from the store, "
        f"{calls['usd']:.4f} USD spent, {calls['saved_usd']:.4f} USD saved"
    ]
    if calls["unpriced"]:
        lines.append(f"  {calls['unpriced']} calls have no known price: they are not in it")
    lines += [
        f"  to come: {each['dataset']}/{each['labeler']}: {each['missing']} traces"
        + ("" if each["usd"] is None else f", about {each['usd']:.4f} USD")
        for each in calls["forecast"]
    ]
    return lines


def _calls(row: LabelerSummary, spent: Sequence[CallSpending]) -> list[CallSpending]:
    """What the ledger says of the labeler's model and purpose."""
    purpose = PURPOSE[row.labeler.kind]
    return [each for each in spent if (each.model, each.purpose) == (row.labeler.model, purpose)]


def _usd_a_trace(
    row: LabelerSummary, rows: Sequence[LabelerSummary], spent: Sequence[CallSpending]
) -> float | None:
    calls = _calls(row, spent)
    same = (row.labeler.kind, row.labeler.model)
    traces = sum(each.traces for each in rows if (each.labeler.kind, each.labeler.model) == same)
    if not traces or all(each.unpriced == each.sent for each in calls):
        return None
    return sum(each.usd for each in calls) / traces
