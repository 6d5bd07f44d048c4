"""Which problems may leave this machine."""

from __future__ import annotations

from traces.abstention import AbstentionReason
from traces.context import TraceInContext
from traces.labels import TraceLabel, abstained


def refuse_phi(context: TraceInContext, *, hosted: bool, allow_phi: bool) -> TraceLabel | None:
    """The abstention for a trace that must not be sent; None if it may be.

    A problem whose metadata says `phi_removed: false` may hold protected health information: it
    goes to no model that is hosted elsewhere, unless the user allows it. The rest of the run goes
    on; the trace is listed as `filtered` with this sentence.
    """
    if not hosted or allow_phi or context.problem.meta.get("phi_removed") is not False:
        return None
    detail = (
        "the problem says phi_removed: false; it is sent to no hosted model without --allow-phi"
    )
    return abstained(context.trace.id, AbstentionReason.FILTERED, detail)
