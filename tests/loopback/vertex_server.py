"""Vertex AI on this machine: tokens, generateContent, batch jobs, and Cloud Storage."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.loopback.gemini_batch_server import GeminiBatchServer
from tests.loopback.gemini_failures import Answer, error, ok

PROJECT, LOCATION = "a-project", "europe-west4"
_CALL = re.compile(
    r"/v1beta1/(?:projects/([\w-]+)/locations/([\w-]+)/)?publishers/google/models/"
    r"([\w.-]+):generateContent"
)
_JOBS = re.compile(
    r"/v1beta1/projects/([\w-]+)/locations/([\w-]+)/batchPredictionJobs(?:/(\w+)(:cancel)?)?"
)
_OBJECT = re.compile(r"/storage/v1/b/([\w-]+)/o(?:/(.+))?")
_PUT = re.compile(r"/upload/storage/v1/b/([\w-]+)/o")
LABELS = ("stepgold-key-1", "stepgold-key-2")


@cache
def _private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem.decode()


class VertexServer(GeminiBatchServer):
    """The Gemini server with Vertex AI's paths, whose tokens come from its own endpoint."""

    def __init__(self, **options: Any) -> None:
        """Bind the port; options as those of `GeminiBatchServer`."""
        super().__init__(**options)
        self.tokens: list[dict[str, Any]] = []
        """Claims of the assertions that were exchanged for tokens."""
        self.token_answer: Answer | None = None
        """What the token endpoint says instead of giving a token."""
        self.call_answer: Answer | None = None
        """What every generateContent gets instead of a reply."""
        self.places: list[tuple[str | None, str | None]] = []
        """Project and location of every call."""
        self.objects: dict[str, bytes] = {}
        """Objects of Cloud Storage, as `BUCKET/NAME`; a listing has one on each page."""
        self.endless = False
        """Whether a page of a listing names itself as the next one."""

    def start(self) -> VertexServer:
        """Serve in the background."""
        super().start()
        return self

    def __enter__(self) -> VertexServer:
        return self.start()

    def credentials(self, folder: Path, *, token_uri: str | None = None) -> Path:
        """A service-account file whose tokens come from this server."""
        file = folder / "account.json"
        account = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "1",
            "private_key": _private_key(),
            "client_email": "tests@a-project.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": token_uri or f"{self.url}/token",
        }
        file.write_text(json.dumps(account))
        return file

    def serve(self, method: str, target: str, headers: Any, raw: bytes) -> Answer | None:
        """Route one request; None for one that the server of single calls answers."""
        url = urllib.parse.urlsplit(target)
        if url.path == "/token":
            return self.token_answer or self._token(raw)
        if match := _CALL.fullmatch(url.path):
            return self._call(match, headers, raw)
        bearer = headers.get("Authorization", "")
        routed = _JOBS.fullmatch(url.path) or _OBJECT.fullmatch(url.path) or _PUT.match(url.path)
        if routed is None:
            return super().serve(method, target, headers, raw)
        if not bearer.startswith("Bearer ya29."):
            return error(401, "UNAUTHENTICATED", "The request has no valid token.")
        query = dict(urllib.parse.parse_qsl(url.query))
        with self.world.lock:
            if routed.re is _PUT:
                self.objects[f"{routed[1]}/{query['name']}"] = raw
                return ok({"name": query["name"]})
            if routed.re is _OBJECT:
                return self._object(routed, query)
            return self._job(method, routed, raw)

    def _token(self, raw: bytes) -> Answer:
        asked = dict(urllib.parse.parse_qsl(raw.decode()))
        claims = asked["assertion"].split(".")[1]
        self.tokens.append(json.loads(base64.urlsafe_b64decode(claims + "==")))
        token = f"ya29.token-{len(self.tokens)}"
        return ok({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})

    def _call(self, match: re.Match[str], headers: Any, raw: bytes) -> Answer:
        project, location, model = match.groups()
        token = headers.get("Authorization", "").startswith("Bearer ya29.")
        if not token and (project or not headers.get("x-goog-api-key")):
            return error(401, "UNAUTHENTICATED", "The request has no valid token.")
        self.places.append((project, location))
        if self.call_answer is not None:
            return self.call_answer
        return self.answer(f"/v1beta/models/{model}:generateContent", "any key", raw)

    def _object(self, match: re.Match[str], query: dict[str, str]) -> Answer:
        if match[2] is None:
            prefix = f"{match[1]}/{query['prefix']}"
            names = [name for name in self.objects if name.startswith(prefix)]
            start = int(query.get("pageToken") or 0)
            items = [{"name": name.partition("/")[2]} for name in names[start : start + 1]]
            more = self.endless or start + 1 < len(names)
            following = {"nextPageToken": str(start + (not self.endless))} if more else {}
            return ok({"items": items, **following})
        content = self.objects.get(f"{match[1]}/{urllib.parse.unquote(match[2])}")
        return (
            error(404, "NOT_FOUND", "no such object") if content is None else Answer(200, content)
        )

    def _job(self, method: str, match: re.Match[str], raw: bytes) -> Answer:
        if match[3] is None and method == "POST":
            return self._create_job(json.loads(raw))
        if match[3] is None:
            return ok({"batchPredictionJobs": [self._describe(name) for name in self.world.jobs]})
        name = f"batches/{match[3]}"
        if name not in self.world.jobs:
            return error(404, "NOT_FOUND", "no such job")
        job = self.world.jobs[name]
        if match[4]:
            self.world.cancel(job)
        else:
            self.world.look(job)
        return ok(self._describe(name))

    def _create_job(self, asked: dict[str, Any]) -> Answer:
        if self.create_script and (planned := self.create_script.pop(0)) != "ok":
            return error(429, "RESOURCE_EXHAUSTED", f"Too many jobs: {planned}.")
        (source,) = asked["inputConfig"]["gcsSource"]["uris"]
        rows = []
        for line in self.objects[source.removeprefix("gs://")].splitlines():
            request = json.loads(line)["request"]
            labels = request.pop("labels")
            rows.append({"key": "".join(labels[name] for name in LABELS), "request": request})
        self.world.files["rows"] = b"\n".join(json.dumps(row).encode() for row in rows)
        model = asked["model"].rpartition("/")[2]
        job = self.world.create(model, asked["displayName"], "rows")
        target = asked["outputConfig"]["gcsDestination"]["outputUriPrefix"]
        self.world.files[f"{job.name} target"] = target.encode()
        return ok(self._describe(job.name))

    def _describe(self, name: str) -> dict[str, Any]:
        job = self.world.jobs[name]
        described: dict[str, Any] = {
            "name": f"projects/{PROJECT}/locations/{LOCATION}/batchPredictionJobs/{name[8:]}",
            "displayName": job.display_name,
            "state": f"JOB_STATE_{job.state}",
            "createTime": "2026-11-22T00:00:00Z",
            "updateTime": f"2026-11-22T00:00:{job.looks % 60:02d}Z",
        }
        if job.error is not None:
            described["error"] = dict(job.error)
        if job.results is not None:
            target = f"{self.world.files[f'{name} target'].decode()}/prediction-{name[8:]}"
            requests = dict(job.rows)
            lines = []
            for line in self.world.files[job.results].splitlines():
                row = json.loads(line)
                halves = zip(LABELS, (row["key"][:32], row["key"][32:]), strict=True)
                request = {**requests[row["key"]], "labels": dict(halves)}
                status = f"Error: {json.dumps({'error': row['error']})}" if "error" in row else ""
                lines.append(
                    {"status": status, "request": request, "response": row.get("response", {})}
                )
            name_of = f"{target.removeprefix('gs://')}/predictions.jsonl"
            self.objects[name_of] = b"\n".join(json.dumps(each).encode() for each in lines)
            described["outputInfo"] = {"gcsOutputDirectory": target}
        return described
