"""OpenAI's files and batch jobs on this machine, in front of the rows' own replies."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from email.parser import BytesParser
from typing import Any

from tests.loopback.openai_server import OpenAIServer

Answer = tuple[int, Any, dict[str, str]]


class OpenAIBatchServer(OpenAIServer):
    """Jobs end when they are looked at; the first `failing` rows of a job get an error."""

    def __init__(self, text: str = "one.\ntwo.", *, failing: int = 0, ending: str = "completed"):
        """Bind a free port."""
        super().__init__(text)
        self.failing, self.ending = failing, ending
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.sent: Counter[str] = Counter()
        """How often each key was in a job."""
        self.looks = 1
        """How often a job is looked at before it ends."""
        self.create_script: list[int] = []
        """Statuses of the first attempts to make a job; 299 makes it and answers 503."""
        self.lock = threading.Lock()

    def serve(self, method: str, path: str, raw: bytes, headers: Any) -> Answer | None:
        """Route one request of files or jobs; None for another."""
        if path.endswith("/completions"):
            return None
        with self.lock:
            return self._route(method, path.removeprefix("/v1"), raw, headers)

    def _route(self, method: str, path: str, raw: bytes, headers: Any) -> Answer:
        if method == "POST" and path == "/files":
            name = f"file-{len(self.files)}"
            self.files[name] = _uploaded(raw, headers["Content-Type"])
            return 200, {"id": name, "object": "file", "purpose": "batch"}, {}
        if method == "POST" and path == "/batches":
            return self._create(json.loads(raw))
        if match := re.fullmatch(r"/batches/(\w+)(/cancel)?", path):
            job = self.jobs.get(match[1])
            if job is None:
                return 404, {"error": {"message": "no such batch"}}, {}
            if match[2]:
                job["status"] = "cancelled"
            elif job["status"] == "in_progress":
                self._step(job)
            return 200, {name: each for name, each in job.items() if name != "looks"}, {}
        if path.startswith("/batches?"):
            after = re.search(r"after=(\w+)", path)
            names = list(self.jobs)
            start = names.index(after[1]) + 1 if after else 0
            page = names[start : start + 2]
            more = start + 2 < len(names)
            return 200, {"data": [self.jobs[name] for name in page], "has_more": more}, {}
        if match := re.fullmatch(r"/files/([\w-]+)/content", path):
            if match[1] not in self.files:
                return 404, {"error": {"message": "no such file"}}, {}
            return 200, self.files[match[1]], {}
        return 404, {"error": {"message": f"no such path {path}"}}, {}

    def _create(self, asked: dict[str, Any]) -> Answer:
        status = self.create_script.pop(0) if self.create_script else 200
        if status in (200, 299):
            name = f"batch{len(self.jobs)}"
            rows = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
            self.sent.update(row["custom_id"] for row in rows)
            self.jobs[name] = {
                "id": name,
                "status": "in_progress",
                "created_at": 1_800_000_000 + len(self.jobs),
                "metadata": asked["metadata"],
                "endpoint": asked["endpoint"],
                "input_file_id": asked["input_file_id"],
                "looks": 0,
            }
            if status == 200:
                return 200, self.jobs[name], {}
            status = 503
        return status, {"error": {"message": "try later", "code": "busy"}}, {}

    def _step(self, job: dict[str, Any]) -> None:
        job["looks"] += 1
        if job["looks"] < self.looks:
            return
        job["status"] = self.ending
        if self.ending == "failed":
            fault = {"code": "model_not_found", "message": "The model does not exist."}
            job["errors"] = {"data": [fault]}
            return
        rows = [json.loads(line) for line in self.files[job["input_file_id"]].splitlines()]
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for number, row in enumerate(rows):
            error = {"error": {"message": "The server had an error.", "code": "server_error"}}
            status, body = 500, error
            if number >= self.failing:
                status, body, _ = self.answer("/v1/chat/completions", row["body"])
            kept = bad if status != 200 else good
            response = {"status_code": status, "body": body}
            kept.append({"custom_id": row["custom_id"], "response": response, "error": None})
        for name, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                job[name] = f"{name.partition('_')[0]}-{job['id']}"
                self.files[job[name]] = "\n".join(map(json.dumps, reversed(lines))).encode()


def _uploaded(raw: bytes, content_type: str) -> bytes:
    message = BytesParser().parsebytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + raw
    )
    parts = {part.get_param("name", header="content-disposition"): part for part in message.walk()}
    content = parts["file"].get_payload(decode=True)
    assert isinstance(content, bytes)
    return content
