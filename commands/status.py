"""`stepgold status`: what is there, what is missing and why, what was spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from commands.options import Json
from stepgold.models import job_words, open_jobs
from stepgold.outcome import Outcome
from stepgold.spending import spending_document, spending_words
from stepgold.workspace import WorkspaceFolder

if TYPE_CHECKING:
    from storage import LabelerSummary, ShortenedTrace, Store
    from traces import RejectedRow

SHOWN_FAILURES = 20


def status(ctx: typer.Context, json_output: Json = False) -> Outcome:
    """Show datasets, labelers, failures and the ledger."""
    workspace: WorkspaceFolder = ctx.obj
    with workspace.open_store() as store:
        datasets, labelers = store.traces.datasets(), store.labels.labelers()
        failures, calls = _failures(store), spending_document(store)
        shortened = [_shortened_document(trace) for trace in store.labels.shortened()]
        jobs = open_jobs(store)
    document = {
        "datasets": {
            name: {"problems": n.problems, "traces": n.traces, "steps": n.steps}
            for name, n in datasets.items()
        },
        "labelers": [_labeler_document(row) for row in labelers],
        "failures": failures,
        "shortened": shortened,
        "calls": calls,
    } | ({"batch_jobs": jobs} if jobs else {})
    words = [
        f"{name}: {n.problems} problems, {n.traces} traces, {n.steps} steps"
        for name, n in datasets.items()
    ]
    words += [
        f"  {row.dataset}/{row.labeler.name} ({row.labeler.kind.value}"
        + (f", {row.labeler.resolved_model or row.labeler.model}" if row.labeler.model else "")
        + f"): {row.traces} of {datasets[row.dataset].traces} traces, {row.steps} steps, "
        + f"{row.abstained} abstained"
        + _parity_words(row)
        for row in labelers
    ]
    words += [
        f"  missing: {f['dataset']}/{f['id']}: {f['stage']}: {f['reason']}"
        + (" (retryable)" if f["retryable"] else "")
        + (f": {f['detail']}" if f["detail"] else "")
        for f in failures[:SHOWN_FAILURES]
    ]
    if len(failures) > SHOWN_FAILURES:
        words.append(f"  ... and {len(failures) - SHOWN_FAILURES} more: --json lists them all")
    words += [
        f"  shortened: {s['dataset']}/{s['id']}: {s['labeler']}: {s['detail']}"
        for s in shortened[:SHOWN_FAILURES]
    ]
    if len(shortened) > SHOWN_FAILURES:
        words.append(f"  ... and {len(shortened) - SHOWN_FAILURES} more: --json lists them all")
    words += job_words(jobs)
    words += spending_words(calls)
    return Outcome(document, "\n".join(words), as_json=json_output)


def _labeler_document(row: LabelerSummary) -> dict[str, Any]:
    return {
        "dataset": row.dataset,
        "name": row.labeler.name,
        "kind": row.labeler.kind.value,
        "model": row.labeler.model,
        "resolved_model": row.labeler.resolved_model,
        "traces": row.traces,
        "steps": row.steps,
        "abstained": row.abstained,
        # Of a PRM behind a server: how it compared with its checkpoint.
        **({"parity": gate} if (gate := row.labeler.config.get("parity")) else {}),
    }


def _parity_words(row: LabelerSummary) -> str:
    """How a PRM behind a server compared with its checkpoint; empty for all other labelers."""
    gate = row.labeler.config.get("parity")
    if not gate:
        return ""
    return (
        f"\n    held against its checkpoint on {gate['traces']} traces: scores differ by at most"
        f" {gate['max_difference']:.2g}, first errors agree on {gate['first_error_agreement']:.1%}"
    )


def _shortened_document(trace: ShortenedTrace) -> dict[str, Any]:
    size = "" if trace.tokens is None else f" in {trace.tokens} tokens"
    return {
        "id": trace.id,
        "dataset": trace.dataset,
        "labeler": trace.labeler,
        "documents": trace.kept,
        "documents_dropped": trace.dropped,
        "detail": f"{trace.kept} of {trace.kept + trace.dropped} documents fit{size}",
    }


def _failures(store: Store) -> list[dict[str, Any]]:
    """Rejected rows, and what could not be labelled; ids are unique within a dataset only."""
    rejected = [
        {
            "id": row.id or _place(row),
            "stage": "import",
            "reason": "rejected",
            "retryable": False,
            "dataset": dataset,
            "detail": f"{_place(row)}: {row.reason}",
        }
        for dataset, row in store.traces.rejected_rows()
    ]
    return rejected + [
        {
            "id": f.id,
            "stage": f.stage,
            "reason": f.reason.value,
            "retryable": f.retryable,
            "dataset": dataset,
            "detail": f.detail,
        }
        for dataset, f in store.labels.failures.load()
    ]


def _place(row: RejectedRow) -> str:
    return row.file if row.line is None else f"{row.file}:{row.line}"
