"""Gemini's batch API through google-genai: job descriptions, files of rows, and calls.

Shapes as served by v1beta. The SDK's types drop what explains a failure (the operation's `error`
and the `batchStats`), so descriptions are read from the raw body:

    {"name": "batches/b0", "done": true, "error": {"code": 3, "message": ".."},
     "metadata": {"displayName": "..", "state": "BATCH_STATE_SUCCEEDED", "createTime": "..",
                  "updateTime": "..", "output": {"responsesFile": "files/.."},
                  "batchStats": {"requestCount": "9", "pendingRequestCount": "2"}}}

A row sent is `{"key": .., "request": {..}}`; a row returned is `{"key": .., "response": {..}}` or
`{"key": .., "error": {"code": .., "message": ..}}`, in any order.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import httpx2
from google.genai import errors, types

from inference.batch.jobs import (
    CALL_POLICY,
    TRANSFER_POLICY,
    NotTaken,
    RemoteJob,
    RowOutcome,
    row_outcome,
)
from inference.gemini.client import read_body
from inference.gemini.images import JOB_S
from inference.gemini.model import GeminiModel
from inference.openai.wire import mapping, read_object, text_of
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
from traces import BatchEnding, ModelReply, ModelUnavailable

ENDINGS = {
    "SUCCEEDED": BatchEnding.SUCCEEDED,
    "PARTIALLY_SUCCEEDED": BatchEnding.SUCCEEDED,
    "FAILED": BatchEnding.FAILED,
    "CANCELLED": BatchEnding.CANCELLED,
    "EXPIRED": BatchEnding.EXPIRED,
}

HTTP_OF_RPC: Mapping[int, int] = {
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    16: 401,
}
"""HTTP status of a google.rpc.Code (cloud.google.com/apis/design/errors#handling_errors)."""

HOPELESS = (400, 401, 403, 404, 501)


def read_job(body: str) -> RemoteJob:
    """Read the description of a job; an unknown state counts as running.

    Raises:
        TransientFault: it is not a JSON object with a name.
    """
    described = read_object(body, called="the description of a batch job")
    if not isinstance(described.get("name"), str):
        raise TransientFault("the description of a batch job has no name")
    metadata = mapping(described.get("metadata"))
    state = str(metadata.get("state", "")).rpartition("STATE_")[2]
    ending = ENDINGS.get(state)
    error = mapping(described.get("error") or metadata.get("error"))
    output = mapping(metadata.get("output") or described.get("response"))
    if ending is None and described.get("done"):
        ending = BatchEnding.FAILED if error else BatchEnding.SUCCEEDED
    return RemoteJob(
        name=described["name"],
        display_name=text_of(metadata.get("displayName")),
        ending=ending,
        progress=json.dumps(
            [state, metadata.get("batchStats"), metadata.get("updateTime")], sort_keys=True
        ),
        results=text_of(output.get("responsesFile")),
        created=text_of(metadata.get("createTime")) or "",
        error=error_text(error) if error else None,
        hopeless=bool(error) and http_status(error) in HOPELESS,
    )


def error_text(error: Mapping[str, Any]) -> str:
    """A google.rpc.Status on one line."""
    return f"{error.get('code', '')} {error.get('message', '')}".strip() or "no reason given"


def http_status(error: Mapping[str, Any]) -> int:
    """The HTTP status of an error whose code may be one of google.rpc or of HTTP."""
    code = error.get("code")
    if not isinstance(code, int):
        return 500
    return HTTP_OF_RPC.get(code, code if code >= 100 else 500)


@dataclass(frozen=True, slots=True)
class ResultLine:
    """A line of a results file: a response, or an error instead."""

    key: str
    """Our key of the row."""
    response: Mapping[str, Any] | None
    """A generateContent reply."""
    error: Mapping[str, Any]
    """The service's error; empty if there is a response."""


def request_line(key: str, body: Mapping[str, Any]) -> bytes:
    """A row of a file to upload."""
    return json.dumps({"key": key, "request": body}, allow_nan=False).encode("ascii") + b"\n"


def read_results(lines: Iterable[bytes]) -> Iterator[ResultLine]:
    """Read a downloaded file; lines without JSON or a key are skipped."""
    for line in lines:
        try:
            entry = json.loads(line)
        except (
            ValueError,
            RecursionError,
        ):  # truncated or not UTF-8: its request counts as unanswered
            continue
        if not isinstance(entry, dict):
            continue
        key = entry.get("key") or mapping(entry.get("metadata")).get("key")
        response, error = entry.get("response"), entry.get("error") or entry.get("status")
        if not isinstance(key, str):
            continue
        if isinstance(response, dict):
            yield ResultLine(key, response, {})
        elif isinstance(error, dict):
            yield ResultLine(key, None, error)


T = TypeVar("T")

PAGE = 100
MOST_LISTED = 100_000
"""Bound of a listing, which would never end if a page named itself as the next one."""

_JOB_PATH = re.compile(r"/batches/[^/:]+$")


class GeminiBatches:
    """Batch jobs of one Gemini model; implements `BatchService`."""

    job_path: ClassVar[re.Pattern[str]] = _JOB_PATH

    def __init__(
        self,
        model: GeminiModel,
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
        """
        self._model = model
        self._client = model.client
        self._calls = Retrier(calls, sleep=sleep)
        self._transfers = Retrier(transfers, sleep=sleep)
        self._described = ""
        self._client.http.event_hooks["response"].append(self._keep_description)

    @property
    def model(self) -> GeminiModel:
        """The model that answers."""
        return self._model

    @property
    def endpoint(self) -> str:
        """Base URL of the service."""
        return self._client.server.url

    @property
    def retries(self) -> int:
        """Retries so far."""
        return self._calls.retries + self._transfers.retries

    def size(self, key: str, request: GenerationRequest) -> int:
        """Upper bound of the bytes of a request's row; nothing is uploaded."""
        uris = self._model.uploads.assumed(request)
        return len(request_line(key, self._model.rest_body(request, uris)))

    async def line(self, key: str, request: GenerationRequest) -> bytes:
        """The row of a request, with its line end, after uploading images too large for it."""
        uploads = self._model.uploads
        uris = await self._try(self._transfers, lambda: uploads.uris(request, lasting_s=JOB_S))
        return request_line(key, self._model.rest_body(request, uris))

    async def submit(self, display_name: str, file: Path) -> RemoteJob:
        """Upload the file and create a job; see `BatchService.submit`.

        After a timeout it is unknown whether the job was created. It is looked up before another
        attempt, so that it is not created twice.
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
            self._described = ""
            with self._client.translated(), suppress(_Absent), _noticing(404):
                await self._client.api.batches.get(name=name)
                return self.read_job(self._described)
            return None

        return await self._try(self._calls, attempt)

    async def cancel(self, name: str) -> None:
        """Ask to cancel a job; a job that has ended, or is unknown, is ignored."""

        async def attempt() -> None:
            with self._client.translated(), suppress(_Absent), _noticing(400, 404):
                await self._client.api.batches.cancel(name=name)

        await self._try(self._calls, attempt)

    async def fetch(self, results: str, file: Path) -> bool:
        """Write a job's replies to `file`; False if the service no longer has them."""

        async def attempt() -> bool:
            with self._client.translated(), suppress(_Absent), _noticing(404):
                await self._client.api.files.download(file=results, destination=file)
                return True
            return False

        return await self._try(self._transfers, attempt)

    def outcomes(self, lines: Iterable[bytes]) -> Iterator[RowOutcome]:
        """Read the replies of a job; lines without a readable key are skipped."""
        for line in self._results(lines):
            read = row_outcome(line.key, self._model.spec, partial(self._outcome, line))
            if read is not None:
                yield read

    def _results(self, lines: Iterable[bytes]) -> Iterator[ResultLine]:
        return read_results(lines)

    def read_job(self, body: str) -> RemoteJob:
        """A job as the service describes it."""
        return read_job(body)

    def _outcome(self, line: ResultLine) -> ModelReply | ModelUnavailable:
        if line.response is None:
            return self._error(line.error)
        body = self._client.subject.redacted(json.dumps(line.response, ensure_ascii=False))
        try:
            wire = read_body(body)
        except TransientFault as fault:
            return self._unanswered(fault.what)
        return self._model.reply_of(body, wire, "batch")

    def _error(self, error: Mapping[str, Any]) -> ModelReply | ModelUnavailable:
        """An error instead of a reply; a prompt beyond the window is recorded as a reply."""
        said = self._client.subject.redacted(error_text(error))
        fault = HttpFault(http_status(error), said, body=error)
        if isinstance(exception_for(fault, self._client.subject), RequestTooLong):
            return over_length_reply(self._model.spec, said)
        return self._unanswered(self._client.subject.clean(said))

    def _unanswered(self, why: str) -> ModelUnavailable:
        return ModelUnavailable(
            f'"{self._model.spec}" answered this request of a batch with an error: {why}',
            remedy="run stepgold retry",
        )

    async def _upload(self, display_name: str, file: Path) -> str:
        with self._client.translated():
            try:
                uploaded = await self._client.api.files.upload(
                    file=file,
                    config=types.UploadFileConfig(
                        display_name=display_name, mime_type="application/jsonl"
                    ),
                )
            except (KeyError, ValueError) as error:  # raised by the SDK for an unfinished upload
                raise TransientFault(f"the upload was not finished: {error}") from error
        if not uploaded.name:
            raise TransientFault("the uploaded file came back without a name")
        return uploaded.name

    async def _make(self, display_name: str, uploaded: str) -> RemoteJob:
        try:
            with self._client.translated():
                made = await self._client.api.batches.create(
                    model=self._model.name,
                    src=uploaded,
                    config=types.CreateBatchJobConfig(display_name=display_name),
                )
        except TransientFault as fault:
            if fault.throttled:
                raise NotTaken(fault.what, fault.delay_s) from fault
            raise
        return self._described_by(made)

    async def _listed(self, display_names: Collection[str]) -> list[RemoteJob]:
        found: list[RemoteJob] = []
        seen = 0
        with self._client.translated():
            # The service has no filter.
            jobs = await self._client.api.batches.list(
                config=types.ListBatchJobsConfig(page_size=PAGE)
            )
            async for job in jobs:
                seen += 1
                if job.display_name in display_names:
                    found.append(self._described_by(job))
                if seen >= MOST_LISTED:
                    break
        return sorted(found, key=lambda job: job.created)

    @staticmethod
    def _described_by(job: types.BatchJob) -> RemoteJob:
        """A job for which only name and age matter."""
        if not job.name:
            raise TransientFault("the batch job came back without a name")
        created = job.create_time.isoformat() if job.create_time else ""
        return RemoteJob(job.name, job.display_name, None, "", created=created)

    async def _try(self, retrier: Retrier, attempt: Callable[[], Awaitable[T]]) -> T:
        return await retrier.run(attempt, subject=self._model.spec)

    async def _keep_description(self, response: httpx2.Response) -> None:
        """Keep the raw description of a job, because the SDK's type drops a part."""
        if response.request.method == "GET" and self.job_path.search(response.request.url.path):
            await response.aread()
            self._described = self._client.subject.redacted(response.text)


class _Absent(Exception):
    """The service does not have what was requested."""


@contextmanager
def _noticing(*statuses: int) -> Iterator[None]:
    """Turn these error statuses of the SDK into `_Absent`."""
    try:
        yield
    except errors.APIError as error:
        if error.code in statuses:
            raise _Absent from error
        raise
