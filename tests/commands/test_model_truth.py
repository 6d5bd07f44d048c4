"""Which version answered, how the evidence was found: a labeler that changes under a run says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepgold.labeling_run import evidence_source
from stepgold.versions import ModelTruth
from storage import Store
from tests.loopback.gemini_server import GeminiServer
from traces.errors import ModelChanged
from traces.labels import AbstentionReason, Labeler, LabelerKind, abstained
from traces.records import ModelReply, StoredCall

Cli = Callable[..., Any]
JUDGE = (
    *("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite"),
    *("--concurrency", "1", "--json"),
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GeminiServer]:
    with GeminiServer(version="v1") as running:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", running.url)
        yield running


@pytest.fixture
def imported(cli: Cli, tmp_path: Path) -> Cli:
    """Six traces in dataset d."""
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        for i in range(6):
            row = {"id": f"t{i}", "problem": f"Problem {i}?", "steps": [f"Step {i}."]}
            file.write(json.dumps(row) + "\n")
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    return cli


def resolved(cli: Cli) -> str:
    (row,) = cli("status", "--json").document["labelers"]
    return str(row["resolved_model"])


@pytest.mark.slow
def test_another_version_between_two_runs_stops_the_second(
    imported: Cli, server: GeminiServer
) -> None:
    assert imported(*JUDGE, "--limit", "3").document["done"] == 3
    server.version = "v2"
    stopped = imported(*JUDGE)
    assert stopped.code == 2, "nothing of this call was kept"
    error = stopped.document["error"]
    assert 'is now answered by "v2"; before, it was "v1"' in error["what"]
    assert "--allow-mixed" in error["remedy"]
    assert resolved(imported) == "v1"
    bought = len(server.calls)
    assert bought <= 5, "it stops with the first reply; one more may have taken its place"
    mixed = imported(*JUDGE, "--allow-mixed")
    assert (mixed.code, mixed.document["done"], mixed.document["unchanged"]) == (0, 3, 3)
    assert len(server.calls) == 6, "the reply that stopped the run is not bought again"
    assert resolved(imported) == "v1, v2"


def test_another_version_in_the_middle_of_a_run_stops_it(
    imported: Cli, server: GeminiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = server.answer

    def routed(path: str, key: str, raw: bytes) -> Any:
        server.version = "v1" if len(server.calls) < 2 else "v2"
        return answer(path, key, raw)

    monkeypatch.setattr(server, "answer", routed)
    stopped = imported(*JUDGE)
    assert (stopped.code, stopped.document["done"], stopped.document["failed"]) == (1, 2, 4)
    assert 'is now answered by "v2"' in stopped.document["stopped"]
    assert resolved(imported) == "v1"
    assert len(server.calls) <= 4, "it stops there; one more may have taken the place"


def test_two_models_of_one_labeler_have_their_own_versions() -> None:
    truth = ModelTruth()
    reply = ModelReply("x", "stop", "gemini:a", "a-1")
    truth.see(reply)
    truth.see(ModelReply("x", "stop", "openai:b", "b-1"))
    truth.see(reply)
    truth.see(ModelReply("x", "stop", "gemini:a", None))
    truth.see_label("gemini:a", "a-1, b-1")
    with pytest.raises(ModelChanged, match="b-2"):
        truth.see(ModelReply("x", "stop", "openai:b", "b-2"))


def test_what_answered_before_is_known_by_model_from_the_ledger(
    imported: Cli, tmp_path: Path
) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        labeler = Labeler("judge", LabelerKind.JUDGE, {}, model="gemini:a")
        store.labels.declare("d", labeler)
        label = abstained("t0", AbstentionReason.UNREADABLE)
        store.labels.put("d", "judge", [label], resolved_model="a-1, b-1")
        for key, model, version in (("1", "gemini:a", "a-1"), ("2", "openai:b", "b-1")):
            store.replies.put(StoredCall(key, "{}", ModelReply("x", "stop", model, version)))
        truth = ModelTruth()
        truth.expect(store, "d", "judge")
        truth.see(ModelReply("x", "stop", "openai:c", "c-9"))
        truth.see(ModelReply("x", "stop", "gemini:a", "a-1"))
        with pytest.raises(ModelChanged, match="a-2"):
            truth.see(ModelReply("x", "stop", "gemini:a", "a-2"))
        with pytest.raises(ModelChanged, match="a-1"):
            truth.see(ModelReply("x", "stop", "openai:b", "a-1"))


def test_a_local_model_is_watched_by_its_labels() -> None:
    truth = ModelTruth()
    truth.see_label("hf:m", "sha-1")
    truth.see_label(None, "anything")
    truth.see_label("hf:m", None)
    with pytest.raises(ModelChanged, match="sha-2"):
        truth.see_label("hf:m", "sha-2")


@pytest.mark.slow
def test_evidence_found_anew_is_another_labeler(
    imported: Cli, server: GeminiServer, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}"
    assert imported(*JUDGE).code == 0
    with Store.open(url) as store:
        store.evidence.declare("d", {"k": 5})
    ungrounded = imported(*JUDGE)
    assert ungrounded.code == 2
    assert "--replace" in ungrounded.document["error"]["remedy"]
    assert "retrieval" in ungrounded.document["error"]["what"]
    assert imported(*JUDGE, "--replace").code == 0
    assert imported(*JUDGE).document["unchanged"] == 6
    with Store.open(url) as store:
        store.evidence.declare("d", {"k": 9}, replace=True)
    assert imported(*JUDGE).code == 2


def test_a_labeler_from_before_it_was_noted_resumes(imported: Cli, tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        old = Labeler("judge", LabelerKind.JUDGE, {"prompt_sha256": "x"}, model="gemini:a")
        store.labels.declare("d", old)
        store.evidence.declare("d", {"k": 5})
        assert evidence_source(store, "d", old) == old
        other = Labeler("judge", LabelerKind.JUDGE, {"prompt_sha256": "y"}, model="gemini:a")
        assert evidence_source(store, "d", other).config["retrieval"]
