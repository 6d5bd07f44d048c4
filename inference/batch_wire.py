"""The JSON that Gemini's batch API speaks: job descriptions, and the lines of its files.

Shapes as served by v1beta. The SDK's types drop what explains a failure (the operation's `error`
and the `batchStats`), so descriptions are read from the raw body:

    {"name": "batches/b0", "done": true, "error": {"code": 3, "message": ".."},
     "metadata": {"displayName": "..", "state": "BATCH_STATE_SUCCEEDED", "createTime": "..",
                  "updateTime": "..", "batchStats": {"requestCount": "9", "pendingRequestCount": "2"},
                  "output": {"responsesFile": "files/.."}}}

A line that goes up is `{"key": .., "request": {..}}`, one that comes down `{"key": ..,
"response": {..}}` or `{"key": .., "error": {"code": .., "message": ..}}`, in any order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inference.batch_service import RemoteJob
from inference.faults import TransientFault
from inference.wire_json import mapping, read_object, text_of
from traces.batches import BatchEnding

_ENDINGS = {
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
"""HTTP status of a google.rpc.Code (https://cloud.google.com/apis/design/errors#handling_errors)."""

_HOPELESS = (400, 401, 403, 404, 501)


def read_job(body: str) -> RemoteJob:
    """Read the description of a job.

    A state that Google adds next month counts as "on its way"; whoever waits for it has a bound.

    Raises:
        TransientFault: it is no JSON object with a name.
    """
    described = read_object(body, called="the description of a batch job")
    if not isinstance(described.get("name"), str):
        raise TransientFault("the description of a batch job has no name")
    metadata = mapping(described.get("metadata"))
    state = str(metadata.get("state", "")).rpartition("STATE_")[2]
    ending = _ENDINGS.get(state)
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
        hopeless=bool(error) and http_status(error) in _HOPELESS,
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
    """A line of a results file: a response, or an error in its place."""

    key: str
    """The key that we gave the row."""
    response: Mapping[str, Any] | None
    """A generateContent reply."""
    error: Mapping[str, Any]
    """What the service says in place of one; empty if there is a response."""


def request_line(key: str, body: Mapping[str, Any]) -> bytes:
    """A row of a file that goes up."""
    return json.dumps({"key": key, "request": body}, allow_nan=False).encode("ascii") + b"\n"


def read_results(lines: Iterable[bytes]) -> Iterator[ResultLine]:
    """Read a file that came down; a line without JSON or key says nothing about any request."""
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # cut, or no UTF-8: its request counts as unanswered
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
