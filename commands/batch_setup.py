"""Options of `--service batch` into a runner, and its open jobs for `status`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.backends import text_model
from commands.console import note
from traces.errors import InputError

if TYPE_CHECKING:
    from commands.model_truth import ModelTruth
    from inference.batch_runner import BatchRunner
    from inference.budget import Purse
    from inference.specs import ModelSpec
    from storage import Store

BATCH = "batch"
"""The service whose calls are jobs: half the price, within a day."""

EnqueuedTokens = Annotated[
    int | None,
    typer.Option(
        "--enqueued-tokens",
        min=1,
        help="batch: input tokens on their way at once [default: the model's in Tier 1].",
    ),
]
PollSeconds = Annotated[
    float,
    typer.Option("--poll-seconds", min=0.1, max=600, help="batch: look at the jobs this often."),
]
StuckHours = Annotated[
    float,
    typer.Option(
        "--stuck-hours",
        min=0.1,
        max=48,
        help="batch: cancel a job without a sign of life for this long, send it again.",
    ),
]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How batch jobs are packed and watched, as given on the command line."""

    enqueued_tokens: int | None = None
    """Input tokens on their way at once; None takes the model's cap in the lowest paid tier."""
    poll_seconds: float = 30.0
    """Seconds between two looks at the jobs."""
    stuck_hours: float = 24.0
    """Hours without a sign of life after which a job is cancelled."""


def refuse_batch(spec: ModelSpec) -> None:
    """Refuse the batch service for a model that has none.

    Raises:
        InputError: the model is not one of Gemini.
    """
    if spec.kind != "gemini":
        raise InputError(
            f"The service 'batch' is Gemini's: '{spec}' has none.",
            where="--service",
            remedy="leave --service out, or take gemini:MODEL",
        )


def batch_runner(
    spec: ModelSpec,
    store: Store,
    closing: ExitStack,
    options: BatchOptions,
    *,
    base_url: str | None = None,
    budget_usd: float | Purse | None = None,
    truth: ModelTruth | None = None,
) -> BatchRunner:
    """A runner in the place of `backends.dispatcher`; `closing` closes it and leaves its jobs running.

    Raises:
        InputError: the model has no batch service, no key is set, or a budget cannot be kept.
    """
    refuse_batch(spec)
    from inference.batch_limits import BatchLimits, enqueued_tokens
    from inference.batch_runner import BatchRunner
    from inference.gemini import GeminiModel
    from inference.gemini_batch import GeminiBatches

    model = text_model(spec, base_url=base_url)
    if not isinstance(model, GeminiModel):
        raise TypeError(f"{spec} is no Gemini model")
    limits = BatchLimits(
        options.enqueued_tokens or enqueued_tokens(spec.name),
        poll_s=options.poll_seconds,
        stuck_s=options.stuck_hours * 3600,
    )
    return closing.enter_context(
        BatchRunner(
            GeminiBatches(model),
            store.batch_jobs,
            store.responses,
            limits,
            budget_usd,
            inspect=truth.see if truth is not None else None,
            report=note,
        )
    )


def open_jobs(store: Store) -> list[dict[str, Any]]:
    """The batch jobs that are on their way, for the document of `status`."""
    return [
        {
            "name": job.name,
            "display_name": job.display_name,
            "model": job.model,
            "requests": job.requests,
            "outstanding": job.outstanding,
            "enqueued_tokens": job.tokens,
            "usd_at_most": job.usd,
            "created_at": datetime.fromtimestamp(job.created_at, UTC).isoformat(timespec="seconds"),
            "cancelled": job.cancelled_at is not None,
        }
        for job in store.batch_jobs.alive()
    ]


def job_words(jobs: list[dict[str, Any]]) -> list[str]:
    """The same for a person."""
    return [
        f"  batch job {job['name'] or job['display_name']} ({job['model']}): "
        f"{job['outstanding']} of {job['requests']} requests on their way since "
        f"{job['created_at']}, at most {job['usd_at_most']:.4f} USD"
        + (", cancelled" if job["cancelled"] else "")
        for job in jobs
    ]
