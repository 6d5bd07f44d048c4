"""A PRM behind the shapes of vLLM and SGLang: a real model, one full padded forward a request, and bad manners.

The rows are computed from the checkpoint's tensors directly, without any of our scoring code. Shapes: vLLM's
`/pooling` (task token_classify; ALL, or STEP with a step tag) and `/v1/completions` with `prompt_logprobs`,
SGLang's `/generate` with `token_ids_logprob`, and `/v1/models` of both.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

PADDING = 7
"""Tokens behind every sequence, as in a padded batch."""


@dataclass
class Manners:
    """How the server behaves."""

    served: str = "prm"
    """Name under which the model is listed."""
    root: str = "/models/prm"
    """What the list says of where it comes from."""
    max_model_len: int | None = None
    """What the list says of its window."""
    missing: tuple[str, ...] = ()
    """Routes that are not there."""
    columns: tuple[int, ...] = ()
    """Columns of a row that are given, in this order; all if none is named."""
    step_tag: int | None = None
    """STEP pooling: rows of this token only."""
    activated: bool = False
    """Whether probabilities are given whatever is asked for."""
    shuffled: bool = False
    """Whether the rows come in another order."""
    dropped: int = 0
    """So many rows are missing."""
    second_bos: bool = False
    """Whether a token is put before what was sent."""
    script: list[str] = field(default_factory=list)
    """What the first requests get: 429, 500, 400, reset, html, other, nan, hold, ok."""
    always: str = ""
    """What every request gets, if anything else than an answer."""
    pause_s: float = 0.0
    """Seconds before each answer."""
    named: tuple[int, ...] = ()
    """Tokens that are named beside the most probable ones: random weights have no preferences."""
    answering: str | None = None
    """Name that answers give for the model; None the one that was asked for."""


class TinyPrm:
    """The numbers of a checkpoint, token by token."""

    def __init__(self, folder: Path, head: str) -> None:
        """Load the weights.

        Args:
            folder: the checkpoint.
            head: signs, classes or value.
        """
        loader: Any = AutoModelForCausalLM if head == "signs" else AutoModel
        self._model = loader.from_pretrained(folder).eval()
        self._weights = load_file(folder / "model.safetensors")
        self._head = head
        self._lock = threading.Lock()

    @torch.inference_mode()
    def rows(self, ids: list[int]) -> Tensor:
        """For each token: logits of the vocabulary, of two classes, or one value."""
        with self._lock:
            output = self._model(input_ids=torch.tensor([ids + [0] * PADDING]))
        if self._head == "signs":
            logits: Tensor = output.logits[0, : len(ids)]
            return logits.float()
        return self._heads(output.last_hidden_state[0, : len(ids)].float())

    def _heads(self, hidden: Tensor) -> Tensor:
        if self._head == "value":
            return self._layer(hidden, "v_head.summary")
        if "score.0.weight" in self._weights:
            return self._layer(torch.relu(self._layer(hidden, "score.0")), "score.2")
        return self._layer(hidden, "score")

    def _layer(self, hidden: Tensor, name: str) -> Tensor:
        bias = self._weights.get(f"{name}.bias", torch.zeros(1))
        return hidden @ self._weights[f"{name}.weight"].float().T + bias.float()


class PrmServer:
    """Serves one checkpoint on a free port until it is closed."""

    def __init__(self, model: TinyPrm, manners: Manners | None = None, *, port: int = 0) -> None:
        """Bind the port."""
        self.model, self.manners = model, manners or Manners()
        self.calls: list[tuple[str, dict[str, Any], str]] = []
        """(path, body, authorization header) of every POST."""
        self.held, self.release = threading.Event(), threading.Event()
        """Set when a request is held back; to be set when held ones may go unanswered."""
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Base URL as a user gives it."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> PrmServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and document for a POST."""
        manners = self.manners
        if path in manners.missing:
            return 404, {"detail": "Not Found"}
        if path == "/pooling":
            return 200, self._pooled(body)
        if path == "/v1/completions":
            return 200, self._completed(body)
        if path == "/generate":
            return 200, self._generated(body)
        return 404, {"detail": "Not Found"}

    def _read(self, ids: list[int]) -> list[int]:
        return [ids[0], *ids] if self.manners.second_bos else list(ids)

    def _disturbed(self, rows: list[Any]) -> list[Any]:
        """The rows in the order and number that the manners want."""
        if self.manners.shuffled:
            rows = rows[::-1]
        return rows[: len(rows) - self.manners.dropped]

    def _pooled(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = self._read(body["input"])
        rows = self.model.rows(ids)
        if self.manners.columns:
            rows = rows[:, list(self.manners.columns)]
        if self.manners.activated or body.get("use_activation", True):
            rows = torch.sigmoid(rows) if rows.shape[1] == 1 else torch.softmax(rows, dim=-1)
        kept = [
            row
            for token, row in zip(ids, rows.tolist(), strict=True)
            if self.manners.step_tag in (None, token)
        ]
        entry = {"index": 0, "object": "pooling", "data": self._disturbed(kept)}
        return {
            "object": "list", "model": self._named(body), "data": [entry],
            "usage": {"prompt_tokens": len(ids), "total_tokens": len(ids)},
        }  # fmt: skip

    def _completed(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = self._read(body["prompt"])
        logprobs = torch.log_softmax(self.model.rows(ids), dim=-1)
        count = body["prompt_logprobs"]
        told: list[dict[str, Any] | None] = [None]
        for place, token in enumerate(ids[1:]):
            named = {*logprobs[place].topk(count).indices.tolist(), token, *self.manners.named}
            told.append({str(i): {"logprob": float(logprobs[place, i])} for i in named})
        choice = {
            "index": 0, "text": "x", "prompt_logprobs": self._disturbed(told),
            "prompt_token_ids": ids if body.get("return_token_ids") else None,
        }  # fmt: skip
        return {
            "object": "text_completion", "model": self._named(body), "choices": [choice],
            "usage": {"prompt_tokens": len(ids), "completion_tokens": 1},
        }  # fmt: skip

    def _generated(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, start = self._read(body["input_ids"]), body["logprob_start_len"]
        logprobs = torch.log_softmax(self.model.rows(ids), dim=-1)
        wanted = body["token_ids_logprob"]
        rows: list[Any] = [None]
        rows += [
            [[float(logprobs[place, i]), i, None] for i in wanted]
            for place in range(start, len(ids) - 1)
        ]
        meta = {"prompt_tokens": len(ids), "input_token_ids_logprobs": self._disturbed(rows)}
        return {"text": "x", "meta_info": meta}

    def _named(self, body: Mapping[str, Any]) -> str:
        return self.manners.answering or str(body["model"])


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True
    owner: PrmServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Only a client that hung up is nothing to speak of."""
        if not isinstance(sys.exception(), OSError | json.JSONDecodeError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Http

    def do_GET(self) -> None:
        """The list of models."""
        manners = self.server.owner.manners
        if self.path != "/v1/models" or self.path in manners.missing:
            self._send(404, {"detail": "Not Found"})
            return
        entry = {
            "id": manners.served, "object": "model", "root": manners.root,
            "max_model_len": manners.max_model_len,
        }  # fmt: skip
        self._send(200, {"object": "list", "data": [entry]})

    def do_POST(self) -> None:
        """One sequence."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner = self.server.owner
        owner.calls.append((self.path, body, self.headers.get("Authorization", "")))
        manners = owner.manners
        what = manners.always or (manners.script.pop(0) if manners.script else "ok")
        if what == "hold":
            owner.held.set()
            owner.release.wait(60)
        if what in ("reset", "hold"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif what in ("429", "500"):
            self._send(int(what), {"error": {"message": "busy"}}, {"Retry-After": "0"})
        elif what == "400":
            self._send(400, {"error": {"message": "This model's maximum context length is 9"}})
        elif what == "html":
            self._send_raw(200, b"<html><body>Please log in</body></html>", {"Retry-After": "0"})
        elif what == "other":
            self._send(200, {"object": "list", "model": body.get("model"), "results": []})
        else:
            status, document = owner.answer(self.path, body)
            if manners.pause_s:
                time.sleep(manners.pause_s)
            text = json.dumps(document)
            if what == "nan":
                document["data"][0]["data"] = [
                    [float("nan")] * len(row) for row in document["data"][0]["data"]
                ]
                text = json.dumps(document)
            self._send_raw(status, text.encode(), {})

    def _send(
        self, status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        self._send_raw(status, json.dumps(document).encode(), headers or {})

    def _send_raw(self, status: int, raw: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Quiet."""
