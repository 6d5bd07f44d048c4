"""OpenAI's batch API through the openai client: files of rows, jobs, and their results.

A row sent is `{"custom_id": KEY, "method": "POST", "url": "/v1/chat/completions", "body": {..}}`.
Replies and errors come back in two files, in any order:

    {"custom_id": "..", "response": {"status_code": 200, "body": {..}}, "error": null}
    {"custom_id": "..", "response": {"status_code": 400, "body": {"error": {..}}}, "error": null}
    {"custom_id": "..", "response": null, "error": {"code": "batch_expired", "message": ".."}}

Source: platform.openai.com/docs/guides/batch, read 2026-11.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import openai

from inference.batch.jobs import (
    CALL_POLICY,
    TRANSFER_POLICY,
    NotTaken,
    RemoteJob,
    RowOutcome,
    row_outcome,
)
from inference.openai.model import OpenAIModel
from inference.openai.wire import mapping, read_body, read_object, text_of
from inference.protocol import GenerationRequest, over_length_reply
from inference.retries import (
    HttpFault,
    RequestTooLong,
    Retrier,
    RetryPolicy,
    Sleep,
    TransientFault,
    exception_for,
)
from traces import BatchEnding, InputError, ModelRefused, ModelReply, ModelUnavailable

ENDPOINT = "/v1/chat/completions"
OPENAI_FILE_BYTES = 200_000_000
"""Largest file of requests that the service accepts."""
PAGE = 100
MOST_LISTED = 100_000
"""Bound of a listing."""
_NAME = "stepgold"
"""Key of our display name in a job's metadata."""
_ENDINGS = {
    "completed": BatchEnding.SUCCEEDED,
    "failed": BatchEnding.FAILED,
    "expired": BatchEnding.EXPIRED,
    "cancelled": BatchEnding.CANCELLED,
}
_HOPELESS = frozenset(
    {"invalid_json_line", "model_not_found", "invalid_request", "mismatched_model"}
)
"""Codes of a failed job that would fail again."""

T = TypeVar("T")


def read_openai_job(described: Mapping[str, Any]) -> RemoteJob:
    """A job as the service describes it; an unknown status counts as running.

    Raises:
        TransientFault: it has no id.
    """
    name = text_of(described.get("id"))
    if name is None:
        raise TransientFault("the description of a batch job has no id")
    status = str(described.get("status", ""))
    faults = mapping(described.get("errors")).get("data")
    fault = mapping(faults[0] if isinstance(faults, list) and faults else None)
    files = [text_of(described.get(each)) for each in ("output_file_id", "error_file_id")]
    return RemoteJob(
        name=name,
        display_name=text_of(mapping(described.get("metadata")).get(_NAME)),
        ending=_ENDINGS.get(status),
        progress=json.dumps([status, described.get("request_counts")], sort_keys=True),
        results=" ".join(filter(None, files)) or None,
        created=str(described.get("created_at") or ""),
        error=f"{fault.get('code', '')} {fault.get('message', '')}".strip() or None,
        hopeless=str(fault.get("code")) in _HOPELESS,
    )


class OpenAIBatches:
    """Batch jobs of one model on an OpenAI-compatible server; implements `BatchService`."""

    def __init__(
        self,
        model: OpenAIModel,
        *,
        calls: RetryPolicy = CALL_POLICY,
        transfers: RetryPolicy = TRANSFER_POLICY,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Nothing is sent yet; closing the model closes this.

        Args:
            model: the model that answers, whose connection is used.
            calls: bounds of the retries of short calls.
            transfers: bounds of the retries of uploads and downloads.
            sleep: waits between attempts.

        Raises:
            InputError: the model has several servers, and a job is at one of them.
        """
        if len(model.servers) > 1:
            raise InputError(
                f"Batch jobs of '{model.spec}' run on one server.",
                where="--base-url",
                remedy="give one --base-url with --service batch",
            )
        self._model = model
        (self._server,) = model.servers
        self._calls = Retrier(calls, sleep=sleep)
        self._transfers = Retrier(transfers, sleep=sleep)

    @property
    def model(self) -> OpenAIModel:
        """The model that answers."""
        return self._model

    @property
    def endpoint(self) -> str:
        """Base URL of the service."""
        return self._server.destination.url

    @property
    def retries(self) -> int:
        """Retries so far."""
        return self._calls.retries + self._transfers.retries

    def size(self, key: str, request: GenerationRequest) -> int:
        """Bytes of a request's row."""
        return len(self._row(key, request))

    async def line(self, key: str, request: GenerationRequest) -> bytes:
        """The row of a request, with its line end."""
        return self._row(key, request)

    def _row(self, key: str, request: GenerationRequest) -> bytes:
        if request.messages[-1].role == "assistant":
            raise ModelRefused(
                f'Batch jobs of "{self._model.spec}" do not continue an assistant turn.',
                remedy="leave --service out",
            )
        body = self._server.chat.fitted(self._model.chat_body(request, self._server))
        row = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
        return json.dumps(row, allow_nan=False).encode("ascii") + b"\n"

    async def submit(self, display_name: str, file: Path) -> RemoteJob:
        """Upload the file and create a job; see `BatchService.submit`.

        A job whose create reply was lost is looked up before another attempt.
        """
        uploaded = await self._try(self._transfers, lambda: self._upload(display_name, file))
        attempts = 0

        async def attempt() -> RemoteJob:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and (found := await self._listed({display_name})):
                return found[0]
            return await self._make(display_name, uploaded)

        return await self._try(self._calls, attempt)

    async def find(self, display_names: Collection[str]) -> list[RemoteJob]:
        """The jobs with these display names, oldest first."""
        return await self._try(self._calls, lambda: self._listed(display_names))

    async def job(self, name: str) -> RemoteJob | None:
        """The job of that name; None if the service does not know it."""

        async def attempt() -> RemoteJob | None:
            described = await self._found(f"/batches/{name}")
            return None if described is None else read_openai_job(_read(described))

        return await self._try(self._calls, attempt)

    async def cancel(self, name: str) -> None:
        """Ask to cancel a job; a job that has ended, or is unknown, is ignored."""

        async def attempt() -> None:
            with _ignoring(400, 404, 409):
                await self._server.send(f"/batches/{name}/cancel", {})

        await self._try(self._calls, attempt)

    async def fetch(self, results: str, file: Path) -> bool:
        """Write a job's replies and errors to `file`; False if the service has neither."""

        async def attempt() -> bool:
            found = [await self._found(f"/files/{each}/content") for each in results.split()]
            file.write_bytes("\n".join(each for each in found if each).encode())
            return any(each is not None for each in found)

        return await self._try(self._transfers, attempt)

    def outcomes(self, lines: Iterable[bytes]) -> Iterator[RowOutcome]:
        """Read the replies of a job; lines without a readable key are skipped."""
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):  # truncated: its request counts as unanswered
                continue
            key = text_of(mapping(row).get("custom_id"))
            if key is None:
                continue
            read = row_outcome(key, self._model.spec, partial(self._outcome, row))
            if read is not None:
                yield read

    def _outcome(self, row: Mapping[str, Any]) -> ModelReply | ModelUnavailable | None:
        """The outcome of a row; None for one that was never run, so that it is sent again."""
        response, error = mapping(row.get("response")), mapping(row.get("error"))
        if not response:
            expired = error.get("code") in ("batch_expired", "batch_cancelled")
            return None if expired else self._unanswered(str(error.get("message")))
        status, body = response.get("status_code"), mapping(response.get("body"))
        if status != 200:
            fault = mapping(body.get("error"))
            said = str(fault.get("message") or f"status {status}")
            return self._failed(
                HttpFault(status if isinstance(status, int) else 500, said, {}, body)
            )
        text = self._server.subject.redacted(json.dumps(body, ensure_ascii=False))
        try:
            wire = read_body(text)
        except TransientFault as fault:
            return self._unanswered(fault.what)
        return self._model.batch_reply(self._server, text, wire)

    def _failed(self, fault: HttpFault) -> ModelReply | ModelUnavailable:
        """An error instead of a reply; a prompt beyond the window is recorded as a reply."""
        said = self._server.subject.clean(fault.message)
        if isinstance(exception_for(fault, self._server.subject), RequestTooLong):
            return over_length_reply(self._model.spec, said)
        return self._unanswered(said)

    def _unanswered(self, why: str) -> ModelUnavailable:
        return ModelUnavailable(
            f'"{self._model.spec}" answered this request of a batch with an error: '
            f"{self._server.subject.clean(why)}",
            remedy="run stepgold retry",
        )

    async def _upload(self, display_name: str, file: Path) -> str:
        uploaded = _read(await self._server.upload(f"{display_name}.jsonl", file))
        name = text_of(uploaded.get("id"))
        if name is None:
            raise TransientFault("the uploaded file came back without an id")
        return name

    async def _make(self, display_name: str, uploaded: str) -> RemoteJob:
        asked = {
            "input_file_id": uploaded,
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "metadata": {_NAME: display_name},
        }
        try:
            return read_openai_job(_read(await self._server.send("/batches", asked)))
        except TransientFault as fault:
            if fault.throttled:
                raise NotTaken(fault.what, fault.delay_s) from fault
            raise

    async def _listed(self, display_names: Collection[str]) -> list[RemoteJob]:
        found: list[RemoteJob] = []
        after, seen = "", 0
        while seen < MOST_LISTED:
            body = await self._found(f"/batches?limit={PAGE}{after}")
            page = _read(body or "{}")
            jobs = page.get("data")
            rows = jobs if isinstance(jobs, list) else []
            listed = [read_openai_job(mapping(each)) for each in rows]
            found += [job for job in listed if job.display_name in display_names]
            seen += len(listed)
            if not listed or not page.get("has_more"):
                break
            after = f"&after={listed[-1].name}"
        return sorted(found, key=lambda job: job.created)

    async def _found(self, path: str) -> str | None:
        """The body of the reply to a GET; None if the server does not have it."""
        with _ignoring(404):
            return await self._server.get(path)
        return None

    async def _try(self, retrier: Retrier, attempt: Callable[[], Awaitable[T]]) -> T:
        return await retrier.run(attempt, subject=self._model.spec)


@contextmanager
def _ignoring(*statuses: int) -> Iterator[None]:
    """Ignore refusals with these statuses."""
    try:
        yield
    except ModelRefused as refusal:
        cause = refusal.__cause__
        if not isinstance(cause, openai.APIStatusError) or cause.status_code not in statuses:
            raise


def _read(body: str) -> dict[str, Any]:
    return read_object(body, called="the description of a batch job")
