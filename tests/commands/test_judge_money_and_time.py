"""`stepgold judge`: a budget is nearly used up and never passed; a wait that is asked for is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.gemini_server import GeminiServer

Cli = Callable[..., Any]
JUDGE = ("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite", "--json")
CENT = {"promptTokenCount": 20_000, "candidatesTokenCount": 1_600}
"""A call of exactly one US cent."""


def import_traces(cli: Cli, tmp_path: Path, count: int) -> None:
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        for i in range(count):
            row = {"id": f"t{i}", "problem": f"Problem {i}?", "steps": [f"Step {i}."]}
            file.write(json.dumps(row) + "\n")
    assert cli("import", "traces", path, "--dataset", "d").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", ["1", "16"])
def test_ten_cents_of_a_dollar(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: str
) -> None:
    import_traces(cli, tmp_path, 100)
    with GeminiServer(usage=CENT) as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        argv = (*JUDGE, "--concurrency", concurrency)
        called = cli(*argv, "--budget", "0.10")
        assert 0.08 <= server.billed_usd <= 0.10
        document = called.document
        assert (called.code, document["done"]) == (1, len(server.calls))
        assert document["done"] + document["failed"] == 100
        assert "budget of 0.1 USD" in document["stopped"]
        assert cli("status", "--json").document["calls"]["usd"] == pytest.approx(
            float(server.billed_usd), abs=1e-9
        )
        bought = len(server.calls)
        again = cli(*argv, "--budget", "0.10")
        assert again.document["unchanged"] == bought
        assert 0.16 <= server.billed_usd <= 0.20
        assert max(server.billed.values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["429_retry_after", "429_retry_info"])
def test_a_wait_of_seven_seconds_is_kept_by_all_calls_within_one(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """By the server's own clock, with nothing sped up."""
    import_traces(cli, tmp_path, 12)
    with GeminiServer(script=["ok", fault], wait_s=7.0) as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        assert cli(*JUDGE, "--concurrency", "2").document["done"] == 12
    refused = next(call["at"] for call in server.calls if call["outcome"] == fault)
    later = [call["at"] - refused for call in server.calls if call["at"] > refused]
    assert len(server.calls) == 13
    # a call that was already on its way may still be answered at once
    waited = [seconds for seconds in later if seconds > 1.0]
    assert len(waited) >= 10
    assert 7.0 <= min(waited) <= 8.0
