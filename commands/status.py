"""`stepgold status`: what is there, what is missing and why, what was spent."""

from __future__ import annotations

import typer

from commands.options import Json
from commands.outcome import Outcome
from commands.workspace import Workspace

SHOWN_FAILURES = 20


def status(ctx: typer.Context, json_output: Json = False) -> Outcome:
    """Show datasets, labelers, failures and the ledger."""
    workspace: Workspace = ctx.obj
    with workspace.open_store() as store:
        datasets, labelers = store.datasets(), store.labelers()
        failures, calls = store.failures(), store.call_totals()
    document = {
        "datasets": {
            name: {"problems": n.problems, "traces": n.traces, "steps": n.steps}
            for name, n in datasets.items()
        },
        "labelers": [
            {
                "dataset": row.dataset,
                "name": row.labeler.name,
                "kind": row.labeler.kind.value,
                "model": row.labeler.model,
                "resolved_model": row.labeler.resolved_model,
                "traces": row.traces,
                "steps": row.steps,
                "abstained": row.abstained,
            }
            for row in labelers
        ],
        "failures": [
            {"id": f.id, "stage": f.stage, "reason": f.reason.value, "retryable": f.retryable}
            for _, f in failures
        ],
        "calls": {"sent": calls.sent, "cached": calls.cached, "usd": calls.usd},
    }
    words = [
        f"{name}: {n.problems} problems, {n.traces} traces, {n.steps} steps"
        for name, n in datasets.items()
    ]
    words += [
        f"  {row.dataset}/{row.labeler.name} ({row.labeler.kind.value}"
        + (f", {row.labeler.resolved_model or row.labeler.model}" if row.labeler.model else "")
        + f"): {row.traces} traces, {row.steps} steps, {row.abstained} abstained"
        for row in labelers
    ]
    words += [
        f"  missing: {dataset}/{f.id}: {f.stage}: {f.reason.value}"
        + (" (retryable)" if f.retryable else "")
        + (f": {f.detail}" if f.detail else "")
        for dataset, f in failures[:SHOWN_FAILURES]
    ]
    if len(failures) > SHOWN_FAILURES:
        words.append(f"  ... and {len(failures) - SHOWN_FAILURES} more: --json lists them all")
    words.append(
        f"calls: {calls.sent} sent, {calls.cached} answered from the store, {calls.usd:.4f} USD"
    )
    return Outcome(document, "\n".join(words), as_json=json_output)
