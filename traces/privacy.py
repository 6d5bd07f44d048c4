"""Which problems may leave this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traces.labels import Abstention, AbstentionReason, TraceLabel, abstained
from traces.problem import TraceInContext


def refuse_phi(context: TraceInContext, *, hosted: bool, allow_phi: bool) -> TraceLabel | None:
    """The abstention `filtered` for a trace that must not be sent; None if it may be.

    A problem whose metadata says `phi_removed: false` may contain protected health information:
    it is never sent to a hosted model unless the user allows it. The trace's own metadata counts
    too, because a row of our format has one `meta` for both.
    """
    metas = context.problem.meta, context.trace.meta
    why = withheld(*metas, hosted=hosted, allow_phi=allow_phi)
    return None if why is None else abstained(context.trace.id, why.reason, why.detail)


def withheld(*metas: Mapping[str, Any], hosted: bool, allow_phi: bool) -> Abstention | None:
    """Why something with this metadata must not be sent; None if it may be; see `refuse_phi`."""
    if not hosted or allow_phi or not any(map(may_hold_phi, metas)):
        return None
    detail = (
        "the problem says phi_removed: false; it is sent to no hosted model without --allow-phi"
    )
    return Abstention(AbstentionReason.FILTERED, detail)


def may_hold_phi(meta: Mapping[str, Any]) -> bool:
    """Whether it says `phi_removed: false`, at the top level or in the `metadata` of a case."""
    inner = meta.get("metadata")
    stated = (meta, inner) if isinstance(inner, Mapping) else (meta,)
    return any(said.get("phi_removed") is False for said in stated)
