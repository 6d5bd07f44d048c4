"""`stepgold judge`: RAG-as-a-judge over the traces of a dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.options import (
    AllowMixed,
    AllowPhi,
    BaseUrl,
    Budget,
    Concurrency,
    Dataset,
    Json,
    Limit,
    Name,
    Replace,
    refuse_idle,
)
from stepgold.images import IgnoreImages, ImageOptions, ImagesFolder
from stepgold.judging import Asking, Calling, run_judge
from stepgold.models import BATCH, BatchOptions, EnqueuedTokens, PollSeconds, StuckHours
from stepgold.outcome import FAULTS, NO_FAILURE, Outcome, Tally
from stepgold.workspace import Workspace
from traces.labels import AbstentionReason

if TYPE_CHECKING:
    from storage import Store


KINDS = ("verified", "unverified", "absent")


def judge_report(store: Store, dataset: str, labeler: str) -> dict[str, Any]:
    """What `judge` adds to its document: `quotes` by verdict and `votes`, of all stored labels.

    Empty if the labeler does not exist (nothing was stored).
    """
    if all(row.labeler.name != labeler for row in store.labels.labelers(dataset)):
        return {}
    totals = store.labels.votes.totals(dataset, labeler)
    return {
        "quotes": store.labels.votes.quotes(dataset, labeler),
        "votes": {
            "traces": totals.traces,
            "cast": totals.cast,
            "escalated": totals.escalated,
        },
    }


def quote_table(quotes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The counts as lines of a small table; verdicts that no step has are left out."""
    rows = [(word, counts) for word, counts in quotes.items() if any(counts.values())]
    if not any(counts["verified"] or counts["unverified"] for _, counts in rows):
        return []  # a judge that quotes nothing needs no table that says so
    lines = [f"{'quotes':<13}" + "".join(f"{kind:>12}" for kind in KINDS)]
    lines += [
        f"  {word:<11}" + "".join(f"{counts[kind]:>12}" for kind in KINDS) for word, counts in rows
    ]
    made_up = quotes["incorrect"]["unverified"]
    if made_up:
        lines.append(
            f"{made_up} incorrect verdicts rest on a quote that is not in the evidence: "
            "kept, marked unverified (--require-quotes takes them out)"
        )
    return lines


# --- `stepgold judge`: RAG-as-a-judge over the traces of a dataset


JudgeSpec = Annotated[
    str, typer.Option("--judge", help="gemini:MODEL, openai:MODEL, hf:PATH or lab.")
]
PromptFile = Annotated[Path | None, typer.Option("--prompt", help="An own prompt file.")]
ServiceName = Annotated[
    str, typer.Option("--service", help="standard, flex or batch (half the price).")
]
EvidenceTokens = Annotated[
    int, typer.Option("--evidence-tokens", min=0, help="Token budget of the evidence.")
]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=1, help="Limit of one reply, thinking included.")
]
GranularityName = Annotated[
    str, typer.Option("--granularity", help="trace: one call a trace; step: one call a step.")
]
VoteCount = Annotated[int, typer.Option("--votes", min=1, help="At most N votes on a trace.")]
Agree = Annotated[
    int,
    typer.Option("--agree", min=2, max=3, help="Voting ends when this many votes all agree: 2, 3."),
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", min=0, max=2, help="Sampling [default: 0; with --votes 0.7]."),
]
RequireQuotes = Annotated[
    bool,
    typer.Option(
        "--require-quotes", help="An incorrect verdict without a verified quote is no_evidence."
    ),
]
Escalate = Annotated[
    str | None, typer.Option("--escalate", help="Another model that split votes are put to.")
]
EscalateBaseUrl = Annotated[
    str | None, typer.Option("--escalate-base-url", help="Its server; else from the environment.")
]


def judge(
    ctx: typer.Context,
    dataset: Dataset,
    judge: JudgeSpec,
    name: Name = "judge",
    votes: VoteCount = 1,
    agree: Agree = 2,
    escalate: Escalate = None,
    escalate_base_url: EscalateBaseUrl = None,
    granularity: GranularityName = "trace",
    require_quotes: RequireQuotes = False,
    budget: Budget = None,
    prompt: PromptFile = None,
    service: ServiceName = "standard",
    enqueued_tokens: EnqueuedTokens = None,
    poll_seconds: PollSeconds = 30.0,
    stuck_hours: StuckHours = 24.0,
    evidence_tokens: EvidenceTokens = 3072,
    max_tokens: MaxTokens = 8192,
    temperature: Temperature = None,
    images: ImagesFolder = None,
    ignore_images: IgnoreImages = False,
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    allow_phi: AllowPhi = False,
    allow_mixed: AllowMixed = False,
    limit: Limit = None,
    replace: Replace = False,
    json_output: Json = False,
) -> Outcome:
    """Put verdicts on steps, grounded in the retrieved evidence."""
    _refuse_idle(ctx, service, votes, escalate)
    asking = Asking(
        prompt,
        evidence_tokens,
        max_tokens,
        granularity,
        votes,
        agree,
        temperature,
        require_quotes,
        escalate,
    )
    calling = Calling(
        judge, base_url, escalate_base_url, service, concurrency, budget, allow_phi, allow_mixed
    )
    workspace: Workspace = ctx.obj
    jobs = BatchOptions(enqueued_tokens, poll_seconds, stuck_hours)
    shown = ImageOptions.of(workspace, images, ignore_images)
    calling = dataclasses.replace(calling, batch=jobs, images=shown)
    # A split is no purpose of a judge, and a step whose call went wrong is not done.
    harmless = NO_FAILURE - {AbstentionReason.UNCERTAIN}
    tally = Tally("judge", dataset, name, harmless=harmless, step_faults=FAULTS)
    with workspace.open_store() as store:
        store.traces.require_dataset(dataset)
        run_judge(store, tally, asking, calling, limit=limit, replace=replace)
        report = judge_report(store, dataset, name)
    words = "\n".join([tally.sentence(), *quote_table(report.get("quotes", {}))])
    return Outcome(tally.document(**report), words, tally.exit_code, json_output)


def _refuse_idle(ctx: typer.Context, service: str, votes: int, escalate: str | None) -> None:
    """Refuse options that nothing would be done with."""
    if service != BATCH:
        jobs_only = ("enqueued_tokens", "poll_seconds", "stuck_hours")
        refuse_idle(ctx, *jobs_only, without=f"--service {BATCH}")
    if votes < 2:
        refuse_idle(ctx, "agree", without="--votes N")
    if escalate is None:
        refuse_idle(ctx, "escalate_base_url", without="--escalate SPEC")
