"""Gemini on Vertex AI with the real google-genai client, against a server on this machine."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google.auth.exceptions import TransportError

from inference.gemini import vertex
from tests.commands.conftest import Called, Cli
from tests.loopback.gemini_batch_jobs import BatchWorld, Plan
from tests.loopback.gemini_failures import Answer, error, ok
from tests.loopback.recording_server import RecordingServer
from tests.loopback.vertex_server import LOCATION, PROJECT, VertexServer

TRACES = 6
MODEL = "gemini-3.5-flash-lite"
Judge = Callable[..., Called]
BATCH = ("--service", "batch", "--poll-seconds", "0.1", "--bucket", "gs://a-bucket/stepgold")


@pytest.fixture
def server() -> Iterator[VertexServer]:
    with VertexServer() as running:
        yield running


@pytest.fixture
def judge(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: VertexServer) -> Judge:
    """The command on six traces, with a service account for the server."""
    rows = [
        json.dumps({"id": f"t{n}", "problem": f"{n}?", "steps": ["One.", "Two."]})
        for n in range(TRACES)
    ]
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(rows))
    assert cli("import", "traces", file, "--dataset", "d").code == 0
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(server.credentials(tmp_path)))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", LOCATION)
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", server.url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI"):
        monkeypatch.delenv(name, raising=False)

    def call(*more: str, model: str = f"vertex:{MODEL}") -> Called:
        return cli("judge", "--dataset", "d", "--judge", model, "--json", *more)

    return call


def metas(tmp_path: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(tmp_path / "w" / "stepgold.db") as connection:
        return [json.loads(meta) for (meta,) in connection.execute("SELECT meta FROM model_calls")]


def test_a_service_account_labels_every_trace(
    judge: Judge, server: VertexServer, tmp_path: Path
) -> None:
    done = judge()
    assert (done.code, done.document["done"]) == (0, TRACES)
    assert server.places == [(PROJECT, LOCATION)] * TRACES
    assert len(server.tokens) == 1, "one token serves all calls"
    assert server.tokens[0]["iss"] == "tests@a-project.iam.gserviceaccount.com"
    assert {meta["server"] for meta in metas(tmp_path)} == {f"vertex:{LOCATION}"}


@pytest.mark.parametrize("switch", ["GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"])
def test_the_environment_sends_gemini_models_there(
    judge: Judge, server: VertexServer, monkeypatch: pytest.MonkeyPatch, switch: str, cli: Cli
) -> None:
    monkeypatch.setenv(switch, "true")
    assert judge(model=f"gemini:{MODEL}").code == 0
    assert server.places
    (labeler,) = cli("status", "--json").document["labelers"]
    assert labeler["model"] == f"vertex:{MODEL}"


def test_an_express_key_needs_no_project(
    judge: Judge, server: VertexServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("GOOGLE_API_KEY", "an-express-key")
    assert judge().code == 0
    assert server.places == [(None, None)] * TRACES
    assert not server.tokens
    assert {meta["server"] for meta in metas(tmp_path)} == {"vertex:express"}


def test_the_project_comes_before_a_key(
    judge: Judge, server: VertexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "a-key-of-ai-studio")
    assert judge().code == 0
    assert server.tokens


def test_the_project_may_come_from_the_credentials(
    judge: Judge, server: VertexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    monkeypatch.delenv("GOOGLE_CLOUD_LOCATION")
    assert judge().code == 0
    assert set(server.places) == {(PROJECT, "global")}


def test_without_credentials_the_way_out_is_named(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    done = judge()
    assert done.code == 2
    assert "No Google Cloud credentials" in done.document["error"]["what"]
    assert "gcloud auth application-default login" in done.document["error"]["remedy"]


def test_a_refused_account_is_one_error(judge: Judge, server: VertexServer) -> None:
    body = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    server.token_answer = Answer(400, json.dumps(body).encode())
    done = judge()
    assert done.code == 2
    assert "Invalid JWT Signature" in done.document["error"]["what"]
    assert not server.places


def test_no_redirect_of_the_token_endpoint_is_followed(judge: Judge, server: VertexServer) -> None:
    server.token_answer = Answer(307, b"", {"Location": "http://203.0.113.9/token"})
    done = judge()
    assert done.code == 2
    assert "redirect" in done.document["error"]["what"]
    assert "203.0.113.9" in done.document["error"]["what"]
    assert "--base-url" not in done.document["error"]["remedy"]
    assert "gcloud auth application-default login" in done.document["error"]["remedy"]


def test_the_metadata_server_is_never_reached_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vertex, "_METADATA_HOSTS", frozenset({"metadata.invalid"}))
    with RecordingServer(200, {}) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with pytest.raises(TransportError):
            vertex.GuardedRequest("vertex:m")("http://metadata.invalid/token", timeout=10)
        assert proxy.received == []
        httpx2.get("http://other.invalid/", timeout=10)
        assert len(proxy.received) == 1, "the proxy is in force"


def test_a_token_is_not_requested_over_plain_http(
    judge: Judge, server: VertexServer, tmp_path: Path
) -> None:
    server.credentials(tmp_path, token_uri="http://203.0.113.9/token")
    done = judge()
    assert done.code == 2
    assert "not encrypted" in done.document["error"]["what"]


def test_a_token_is_not_sent_over_plain_http(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", "http://203.0.113.9")
    done = judge()
    assert done.code == 2
    assert "not be encrypted" in done.document["error"]["what"]


@pytest.mark.parametrize(
    ("answer", "what", "remedy"),
    [
        (
            error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for metric: m, limit: 0."),
            "is 0",
            "waiting does not help",
        ),
        (
            Answer(
                403,
                json.dumps(
                    {
                        "error": {
                            "code": 403,
                            "message": "Vertex AI API has not been used in project a-project.",
                            "status": "PERMISSION_DENIED",
                            "details": [
                                {
                                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                                    "reason": "SERVICE_DISABLED",
                                    "metadata": {"service": "aiplatform.googleapis.com"},
                                }
                            ],
                        }
                    }
                ).encode(),
            ),
            "has not been used",
            "gcloud services enable aiplatform.googleapis.com",
        ),
    ],
)
def test_what_waiting_cannot_mend_is_one_error_without_retries(
    judge: Judge, server: VertexServer, answer: Answer, what: str, remedy: str
) -> None:
    server.call_answer = answer
    done = judge("--concurrency", "1")
    assert done.code == 2
    assert what in done.document["error"]["what"]
    assert remedy in done.document["error"]["remedy"]
    assert len(server.places) == 1


@pytest.mark.parametrize(
    "service", ["aiplatform.googleapis.com; rm -rf ~", "$(id).googleapis.com", 7, None]
)
def test_a_server_writes_no_command(judge: Judge, server: VertexServer, service: object) -> None:
    info = {"reason": "SERVICE_DISABLED", "metadata": {"service": service}}
    server.call_answer = error(403, "PERMISSION_DENIED", "It is disabled.", info)
    refused = judge()
    remedy = refused.document["error"]["remedy"]
    assert remedy == "enable it once: gcloud services enable aiplatform.googleapis.com"


@pytest.mark.parametrize("status", [200, 403])
def test_a_token_that_a_server_repeats_is_not_kept(
    judge: Judge, server: VertexServer, tmp_path: Path, status: int
) -> None:
    said = "You sent ya29.token-1."
    candidate = {"content": {"parts": [{"text": said}]}, "finishReason": "STOP"}
    body = {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 1}}
    server.call_answer = ok(body) if status == 200 else error(403, "PERMISSION_DENIED", said)
    refused = judge()
    assert server.tokens
    assert "ya29.token" not in refused.out + refused.err
    with sqlite3.connect(tmp_path / "w" / "stepgold.db") as connection:
        replies = str(connection.execute("SELECT * FROM model_calls").fetchall())
    assert "ya29.token" not in replies
    assert ("[key]" in replies) is (status == 200)


def test_flex_is_refused(judge: Judge) -> None:
    done = judge("--service", "flex")
    assert done.code == 2
    assert "not available on Vertex AI" in done.document["error"]["what"]


def test_allow_phi_names_the_service(judge: Judge) -> None:
    done = judge("--allow-phi")
    assert done.code == 0
    assert f"Vertex AI (project {PROJECT}, {LOCATION})" in done.err


def test_a_batch_job_through_cloud_storage(
    judge: Judge, server: VertexServer, tmp_path: Path
) -> None:
    done = judge(*BATCH)
    assert (done.code, done.document["done"]) == (0, TRACES)
    assert set(server.world.sent.values()) == {1}
    assert not server.places, "no single call"
    assert all(name.startswith("a-bucket/stepgold/") for name in server.objects)
    assert {meta["server"] for meta in metas(tmp_path)} == {f"vertex:{LOCATION}"}
    again = judge(*BATCH)
    assert (again.document["unchanged"], len(server.world.jobs)) == (TRACES, 1)


def test_results_are_complete_or_refused(judge: Judge, server: VertexServer) -> None:
    """A listing that does not end is no end of the results."""
    server.endless = True
    refused = judge(*BATCH)
    assert refused.code != 0
    assert "without an end" in refused.document["error"]["what"]
    server.endless = False
    done = judge(*BATCH)
    assert (done.code, done.document["done"]) == (0, TRACES)
    assert set(server.world.sent.values()) == {1}, "nothing was bought twice"


def test_rows_with_errors_can_be_retried(
    cli: Cli, judge: Judge, server: VertexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.world = BatchWorld([Plan(errors=2)])
    done = judge(*BATCH)
    assert done.code == 1
    assert done.document["abstained"] == {"model_error": 2}
    assert cli("retry").code == 0


@pytest.mark.parametrize(
    ("bucket", "what"),
    [((), "read and write Cloud Storage"), (("--bucket", "a-bucket"), "is not a folder")],
)
def test_a_batch_job_needs_a_folder(judge: Judge, bucket: tuple[str, ...], what: str) -> None:
    done = judge("--service", "batch", *bucket)
    assert done.code == 2
    assert what in done.document["error"]["what"]
