"""Batch jobs of Gemini on Vertex AI: rows and results are objects of Cloud Storage.

A row has no id of its own, so our key travels in the request's `labels`, in two halves because a
label holds at most 63 characters. A row sent is `{"request": {.., "labels": {..}}}`; a row returned
repeats it:

    {"status": "", "request": {..}, "response": {..}}
    {"status": "Bad Request: ..", "request": {..}, "response": {}}

Source: cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-cloud-storage
and the REST reference of batchPredictionJobs.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
from google.genai import types

from inference.batch.jobs import CALL_POLICY, TRANSFER_POLICY, NotTaken, RemoteJob
from inference.destinations import Destination
from inference.gemini.batch import ENDINGS, GeminiBatches, ResultLine, error_text, http_status
from inference.gemini.batch import HOPELESS as HOPELESS_STATUS
from inference.gemini.vertex import VertexModel
from inference.openai.wire import mapping, read_object, text_of
from inference.protocol import GenerationRequest
from inference.retries import HttpFault, RetryPolicy, Sleep, TransientFault, exception_for
from inference.specs import STORAGE_URL_VARIABLE
from traces import InputError, ModelRefused

STORAGE_URL = "https://storage.googleapis.com"
_LABELS = ("stepgold-key-1", "stepgold-key-2")
_HALF = 32
"""Characters of a key in one label."""
_CHUNK = 1 << 20
MOST_PAGES = 10_000
"""Bound of a listing that might never end."""


def keyed(key: str) -> dict[str, str]:
    """The labels that carry a row's key of 64 hexadecimal digits."""
    return dict(zip(_LABELS, (key[:_HALF], key[_HALF:]), strict=True))


def key_in(request: Mapping[str, Any]) -> str | None:
    """Our key in the labels of a returned request; None if there is none."""
    labels = mapping(request.get("labels"))
    halves = [text_of(labels.get(name)) for name in _LABELS]
    return None if None in halves else "".join(map(str, halves))


def read_vertex_job(body: str) -> RemoteJob:
    """Read the description of a job; an unknown state counts as running.

    Raises:
        TransientFault: it is not a JSON object with a name.
    """
    described = read_object(body, called="the description of a batch job")
    if not isinstance(described.get("name"), str):
        raise TransientFault("the description of a batch job has no name")
    state = str(described.get("state", "")).removeprefix("JOB_STATE_")
    error = mapping(described.get("error"))
    progress = [state, described.get("completionStats"), described.get("updateTime")]
    return RemoteJob(
        name=described["name"],
        display_name=text_of(described.get("displayName")),
        ending=ENDINGS.get(state),
        progress=json.dumps(progress, sort_keys=True),
        results=text_of(mapping(described.get("outputInfo")).get("gcsOutputDirectory")),
        created=text_of(described.get("createTime")) or "",
        error=error_text(error) if error else None,
        hopeless=bool(error) and http_status(error) in HOPELESS_STATUS,
    )


class Bucket:
    """A folder of Cloud Storage, through its JSON API."""

    def __init__(self, model: VertexModel, uri: str) -> None:
        """Nothing is sent yet.

        Args:
            model: whose credentials are used.
            uri: `gs://BUCKET` or `gs://BUCKET/FOLDER`.

        Raises:
            InputError: another form, an express key, or a server that cannot be used.
        """
        match = re.fullmatch(r"gs://([a-z0-9._-]+)(?:/(.*?))?/*", uri)
        if match is None:
            raise InputError(
                f"{uri!r} is not a folder of Cloud Storage.",
                where="--bucket",
                remedy="give gs://BUCKET or gs://BUCKET/FOLDER",
            )
        if model.place.credentials is None:
            raise InputError(
                "An express key cannot run batch jobs.",
                remedy="set GOOGLE_CLOUD_PROJECT and use Application Default Credentials",
            )
        self._subject, self._client = model.client.subject, model.client
        self._credentials = model.place.credentials
        self.server = Destination.chosen(
            None, variable=STORAGE_URL_VARIABLE, environ=model.environ, default=STORAGE_URL
        )
        self.server.refuse_plain_http("token", key_variable=STORAGE_URL_VARIABLE, allowed=False)
        self.name, self.folder = match[1], f"{match[2]}/" if match[2] else ""
        self._http = httpx2.AsyncClient(
            timeout=TRANSFER_POLICY.attempt_s,
            follow_redirects=False,
            event_hooks=self.server.hooks(self._subject.spec),
            trust_env=not self.server.is_loopback,
        )

    def uri(self, name: str) -> str:
        """The URI of an object in the folder."""
        return f"gs://{self.name}/{self.folder}{name}"

    async def put(self, name: str, file: Path) -> str:
        """Upload a file; return its URI.

        Raises:
            TransientFault, ModelRefused: the service did not take it.
        """
        where = f"/upload/storage/v1/b/{self.name}/o"
        query = {"uploadType": "media", "name": f"{self.folder}{name}"}
        headers = {"Content-Type": "application/jsonl", "Content-Length": str(file.stat().st_size)}
        await self._call("POST", where, query, content=_chunks(file), headers=headers)
        return self.uri(name)

    async def fetch(self, folder: str, file: Path) -> bool:
        """Write the results in a folder to a file; False if there are none.

        Raises:
            TransientFault, ModelRefused: as `put`; or the listing of the folder does not end.
        """
        bucket, _, prefix = folder.removeprefix("gs://").partition("/")
        names: list[str] = []
        token, seen = "", set[str]()
        while True:
            query = {"prefix": f"{prefix}/", "pageToken": token}
            listed = read_object((await self._call("GET", f"/storage/v1/b/{bucket}/o", query)).text)
            items = listed.get("items")
            rows = items if isinstance(items, list) else []
            names += [str(mapping(each).get("name")) for each in rows]
            token = str(listed.get("nextPageToken") or "")
            if not token:
                break
            # Half of the results would look like all of them.
            if token in seen or len(seen) == MOST_PAGES:
                raise ModelRefused(
                    f"Cloud Storage lists '{folder}' without an end.",
                    where=STORAGE_URL_VARIABLE,
                    remedy="run the command again: it fetches the results of the same job",
                )
            seen.add(token)
        results = [name for name in sorted(names) if name.endswith(".jsonl")]
        with file.open("wb") as out:
            for name in results:
                where = f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
                out.write((await self._call("GET", where, {"alt": "media"})).content + b"\n")
        return bool(results)

    async def _call(
        self, method: str, path: str, query: Mapping[str, str], **more: Any
    ) -> httpx2.Response:
        with self._client.translated():
            if not self._credentials.valid:
                await asyncio.to_thread(self._credentials.refresh, None)
            headers = {
                "Authorization": f"Bearer {self._credentials.token}",
                **more.pop("headers", {}),
            }
            reply = await self._http.request(
                method, f"{self.server.url}{path}", params=dict(query), headers=headers, **more
            )
        if reply.status_code != 200:
            raise exception_for(_fault(reply), self._subject)
        return reply

    async def aclose(self) -> None:
        """Release connections."""
        await self._http.aclose()


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            yield chunk


def _fault(reply: httpx2.Response) -> HttpFault:
    try:
        body = reply.json()
    except ValueError:
        body = None
    said = mapping(mapping(body).get("error")).get("message") or reply.text
    headers = {name.lower(): value for name, value in reply.headers.items()}
    return HttpFault(reply.status_code, f"Cloud Storage: {said}", headers, body)


_JOB_PATH = re.compile(r"/batchPredictionJobs/[^/:]+$")


class VertexBatches(GeminiBatches):
    """Batch jobs of one Gemini model on Vertex AI; implements `BatchService`."""

    job_path = _JOB_PATH

    def __init__(
        self,
        model: VertexModel,
        bucket: str | None,
        *,
        calls: RetryPolicy = CALL_POLICY,
        transfers: RetryPolicy = TRANSFER_POLICY,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Nothing is sent yet; arguments as those of `GeminiBatches`.

        Args:
            model: the model that answers.
            bucket: `gs://BUCKET[/FOLDER]` for rows and results.
            calls: bounds of the retries of short calls.
            transfers: bounds of the retries of uploads and downloads.
            sleep: waits between attempts.

        Raises:
            InputError: no bucket, or one that cannot be used.
        """
        super().__init__(model, calls=calls, transfers=transfers, sleep=sleep)
        if bucket is None:
            raise InputError(
                f"Batch jobs of '{model.spec}' read and write Cloud Storage.",
                where="--service",
                remedy="name a folder that the project may write: --bucket gs://BUCKET/FOLDER",
            )
        self._bucket = Bucket(model, bucket)
        model.closing.append(self._bucket.aclose)

    def _row(self, key: str, body: Mapping[str, Any]) -> bytes:
        row = {"request": {**body, "labels": keyed(key)}}
        return json.dumps(row, allow_nan=False).encode("ascii") + b"\n"

    def size(self, key: str, request: GenerationRequest) -> int:
        """Bytes of a request's row."""
        return len(self._row(key, self._model.rest_body(request, {})))

    async def line(self, key: str, request: GenerationRequest) -> bytes:
        """The row of a request, with its line end; images are inline."""
        return self._row(key, self._model.rest_body(request, {}))

    async def _upload(self, display_name: str, file: Path) -> str:
        return await self._bucket.put(f"{display_name}/requests.jsonl", file)

    async def _make(self, display_name: str, uploaded: str) -> RemoteJob:
        dest = self._bucket.uri(f"{display_name}/replies")
        config = types.CreateBatchJobConfig(display_name=display_name, dest=dest)
        try:
            with self._client.translated():
                made = await self._client.api.batches.create(
                    model=self._model.name, src=uploaded, config=config
                )
        except TransientFault as fault:
            if fault.throttled:
                raise NotTaken(fault.what, fault.delay_s) from fault
            raise
        return self._described_by(made)

    def read_job(self, body: str) -> RemoteJob:
        """A job as the service describes it."""
        return read_vertex_job(body)

    async def fetch(self, results: str, file: Path) -> bool:
        """Write a job's replies to `file`; False if there are none."""
        return await self._try(self._transfers, lambda: self._bucket.fetch(results, file))

    def _results(self, lines: Iterable[bytes]) -> Iterator[ResultLine]:
        for line in lines:
            try:
                entry = mapping(json.loads(line))
            except (ValueError, RecursionError):  # truncated: its request counts as unanswered
                continue
            key = key_in(mapping(entry.get("request")))
            if key is None:
                continue
            response = mapping(entry.get("response"))
            if response.get("candidates") or response.get("promptFeedback"):
                yield ResultLine(key, response, {})
            else:
                said = entry.get("status")
                yield ResultLine(key, None, _error_of(said if isinstance(said, str) else ""))


def _error_of(status: str) -> dict[str, Any]:
    """The error in a row's status: JSON after some words, or words alone."""
    _, brace, rest = status.partition("{")
    try:
        error = mapping(json.loads(brace + rest))
    except ValueError:
        error = {}
    return dict(mapping(error.get("error")) or {"code": 13, "message": status or "no reason given"})
