"""The batch jobs of the loopback Gemini: what is asked of them, how they go on, what they cost."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.loopback import gemini_answers
from tests.loopback.gemini_billing import bill

TOP_LEVEL = {
    "contents",
    "systemInstruction",
    "safetySettings",
    "cachedContent",
    "tools",
    "toolConfig",
    "generationConfig",
}
IN_CONFIG = {
    "temperature",
    "topP",
    "maxOutputTokens",
    "stopSequences",
    "seed",
    "responseMimeType",
    "responseJsonSchema",
    "thinkingConfig",
}


@dataclass(frozen=True)
class Plan:
    """How one job goes."""

    looks: int = 1
    """How often it is looked at before it ends."""
    ending: str = "SUCCEEDED"
    """Its last state; STUCK never ends, and never shows a sign of life."""
    share: float = 1.0
    """Share of the rows that are answered, first ones first."""
    errors: int = 0
    """So many of the answered rows get an error instead of a reply."""
    error: Mapping[str, Any] = field(default_factory=lambda: {"code": 13, "message": "Internal."})
    """The error of a row, or of a failed job."""
    twice: bool = False
    """Whether every line comes twice, the second time with another text."""
    alive: bool = False
    """Whether it shows a sign of life at every look though it does not go on."""
    torn: bool = False
    """Whether a line that is no JSON and one with a foreign key stand between the others."""


@dataclass
class Job:
    """A job as the service has it."""

    name: str
    model: str
    display_name: str
    rows: list[tuple[str, dict[str, Any]]]
    plan: Plan
    number: int
    state: str = "PENDING"
    looks: int = 0
    results: str | None = None
    error: Mapping[str, Any] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


class BatchWorld:
    """Files and jobs; outlives a restart of the server."""

    def __init__(
        self, plans: Sequence[Plan] = (), *, usage: Mapping[str, Any] | None = None
    ) -> None:
        """Nothing is there yet.

        Args:
            plans: of the first jobs, in order of creation; later ones go well.
            usage: the `usageMetadata` of every reply; None counts characters.
        """
        self.lock = threading.RLock()
        self.plans = list(plans)
        self.usage = usage
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, Job] = {}
        self.sent: Counter[str] = Counter()
        """How often each key was in a job."""
        self.bought: Counter[str] = Counter()
        """How often each key was answered with a reply."""
        self.usd = Decimal()
        """What the replies cost."""
        self.deaf_to_cancel = False
        """Whether a job goes on when its end is asked for."""
        self.forgetful = 0
        """So many downloads find that the file is gone."""

    def create(self, model: str, display_name: str, file: str) -> Job:
        """Make a job."""
        rows = [json.loads(line) for line in self.files[file].splitlines()]
        number = len(self.jobs)
        plan = self.plans.pop(0) if self.plans else Plan()
        pairs = [(row["key"], row["request"]) for row in rows]
        job = Job(f"batches/b{number}", model, display_name, pairs, plan, number)
        self.jobs[job.name] = job
        self.sent.update(key for key, _ in pairs)
        return job

    def look(self, job: Job) -> None:
        """The job goes on by one step."""
        job.looks += 1
        if job.has_ended or job.plan.ending == "STUCK":
            return
        if job.looks < job.plan.looks:
            job.state = "RUNNING"
            return
        unknown = [name for _, request in job.rows for name in _unknown_fields(request)]
        if unknown:
            job.state = "FAILED"
            job.error = {"code": 3, "message": f"no such field: '{unknown[0]}'"}
            return
        job.state = job.plan.ending
        if job.state == "FAILED":
            job.error = job.plan.error
        self._answer(job, round(job.plan.share * len(job.rows)))

    def cancel(self, job: Job, *, answered: float = 0.0) -> None:
        """Cancel it, with that share of its rows answered."""
        job.state = "CANCELLED"
        self._answer(job, round(answered * len(job.rows)))

    def describe(self, job: Job) -> dict[str, Any]:
        """The job as the REST interface shows it."""
        moment = f"2026-11-22T00:00:{job.number % 60:02d}Z"
        seconds = job.looks if job.plan.alive else 0
        pending = 0 if job.has_ended else len(job.rows)
        metadata: dict[str, Any] = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": f"models/{job.model}",
            "displayName": job.display_name,
            "state": f"BATCH_STATE_{job.state}",
            "createTime": moment,
            "updateTime": f"2026-11-23T00:{seconds // 60 % 60:02d}:{seconds % 60:02d}Z",
            "batchStats": {
                "requestCount": str(len(job.rows)),
                "pendingRequestCount": str(pending),
            },
            "name": job.name,
        }
        if job.results is not None:
            metadata["output"] = {"responsesFile": job.results}
        described: dict[str, Any] = {"name": job.name, "metadata": metadata}
        if job.has_ended:
            described["done"] = True
        if job.error is not None:
            described["error"] = dict(job.error)
        return described

    def _answer(self, job: Job, count: int) -> None:
        if not count:
            return
        lines = [
            self._line(job, key, request, is_error=number < job.plan.errors)
            for number, (key, request) in enumerate(job.rows[:count])
        ]
        if job.plan.twice:
            lines += [
                {**line, "response": {"candidates": [], "usageMetadata": {}}} for line in lines
            ]
        else:
            random.Random(job.number).shuffle(lines)
        encoded = [json.dumps(line).encode() for line in lines]
        if job.plan.torn:
            foreign = {"key": "of somebody else", "response": {"candidates": []}}
            encoded[1:1] = [b'{"key": "cut of', json.dumps(foreign).encode(), b"[]"]
        job.results = f"files/r{job.number}"
        self.files[job.results] = b"\n".join(encoded) + b"\n"

    def _line(
        self, job: Job, key: str, request: dict[str, Any], *, is_error: bool
    ) -> dict[str, Any]:
        if is_error:
            return {"key": key, "error": dict(job.plan.error)}
        reply = gemini_answers.full_reply(request, job.model)
        if self.usage is not None:
            reply["usageMetadata"] = dict(self.usage)
        self.bought[key] += 1
        self.usd += bill(job.model, reply["usageMetadata"], "batch") or Decimal()
        return {"key": key, "response": reply}


def _unknown_fields(request: Mapping[str, Any]) -> list[str]:
    """What the service would not know: a batch file is read strictly."""
    config = request.get("generationConfig", {})
    return [name for name in request if name not in TOP_LEVEL] + [
        name for name in config if name not in IN_CONFIG
    ]
