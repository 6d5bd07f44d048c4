"""What becomes of a step that its annotator called neutral: neither wrong nor of use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from formats.fields import RowFault
from formats.neutral_policy import NeutralPolicy
from traces.abstention import Abstention, AbstentionReason
from traces.labels import StepLabel, TraceLabel, Verdict

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
    """A label from ratings 1, 0, -1 or None (not rated), one per step.

    Raises:
        RowFault: a rating is something else.
    """
    steps = tuple(_step(rating, policy) for rating in ratings)
    if policy is not NeutralPolicy.IGNORE or None in ratings:
        return TraceLabel(trace_id, steps, meta=meta or {})
    index = ratings.index(-1) if -1 in ratings else None
    return TraceLabel(trace_id, steps, True, index, meta=meta or {})


def ratings_of(label: TraceLabel) -> list[int | None]:
    """The ratings of a label's steps, for formats with three words; None where there is no verdict."""
    return [None if step.verdict is None else NUMBERS[step.verdict] for step in label.step_labels]


def _step(rating: Any, policy: NeutralPolicy) -> StepLabel:
    if rating is None:
        return StepLabel(abstention=UNRATED)
    # True == 1, but a file that says true does not say +1 of three.
    if isinstance(rating, bool) or not isinstance(rating, int | float) or rating not in RATINGS:
        raise RowFault(f"a rating is {_shown(rating)}, not 1, 0, -1 or null")
    verdict = RATINGS[int(rating)]
    return _READ_AS[policy] if verdict is Verdict.NEUTRAL else StepLabel(verdict)


def _shown(value: Any) -> str:
    return f"{value!r:.40}"
