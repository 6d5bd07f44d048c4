"""`stepgold status`: what was spent, what the store saved, what is still to come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepgold import Workspace
from stepgold.contents import watch_status
from tests.loopback.gemini_server import GeminiServer

Cli = Callable[..., Any]
JUDGE = ("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite")
USAGE = {"promptTokenCount": 1000, "cachedContentTokenCount": 200, "candidatesTokenCount": 100}
ONE = (800 * 0.30 + 200 * 0.03 + 100 * 2.50) / 1e6


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GeminiServer]:
    with GeminiServer(usage=USAGE) as running:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", running.url)
        yield running


@pytest.fixture
def imported(cli: Cli, tmp_path: Path) -> Cli:
    """Ten traces in dataset d."""
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        for i in range(10):
            row = {"id": f"t{i}", "problem": f"Problem {i}?", "steps": [f"Step {i}."]}
            file.write(json.dumps(row) + "\n")
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    return cli


@pytest.mark.slow
def test_spent_saved_and_to_come(imported: Cli, server: GeminiServer) -> None:
    assert imported(*JUDGE, "--limit", "4").code == 0
    assert imported(*JUDGE, "--limit", "4", "--name", "again").code == 0
    calls = imported("status", "--json").document["calls"]
    assert (calls["sent"], calls["cached"], calls["unpriced"]) == (4, 4, 0)
    assert calls["usd"] == pytest.approx(4 * ONE)
    assert calls["usd"] == pytest.approx(float(server.billed_usd), abs=1e-9)
    assert calls["saved_usd"] == pytest.approx(4 * ONE)
    assert (calls["input_tokens"], calls["cached_tokens"]) == (4000, 800)
    # two labelers have a word on four traces each for four calls: half a call a trace
    assert [(each["labeler"], each["missing"]) for each in calls["forecast"]] == [
        ("judge", 6),
        ("again", 6),
    ]
    assert calls["forecast_usd"] == pytest.approx(2 * 6 * ONE / 2)
    assert calls["prices_as_of"] == "2026-10-07"
    said = imported("status").out
    assert "USD saved" in said
    assert "to come: d/judge: 6 traces" in said


@pytest.mark.slow
def test_what_is_done_costs_no_more(imported: Cli, server: GeminiServer) -> None:
    assert imported(*JUDGE).code == 0
    calls = imported("status", "--json").document["calls"]
    assert (calls["forecast"], calls["forecast_usd"]) == ([], 0)


def test_a_version_without_a_price_is_counted_and_not_guessed(
    imported: Cli, server: GeminiServer
) -> None:
    server.version = "gemini-9-helium"
    judged = imported(*JUDGE, "--limit", "4")
    assert judged.code == 0
    assert judged.err.count('"gemini-9-helium" answers for') == 1
    calls = imported("status", "--json").document["calls"]
    assert (calls["usd"], calls["unpriced"]) == (0, 4)
    assert calls["unpriced_usd"] == pytest.approx(4 * ONE)
    assert calls["forecast"][0]["usd"] is None
    said = imported("status").out
    assert (
        f"no known price and are not included; at the price of the model asked for, {4 * ONE:.4f} USD"
        in said
    )


def test_watching_prints_what_changed(
    imported: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = tmp_path / "s.jsonl"
    scores.write_text('{"id": "t3", "scores": [0.5]}\n')
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            imported("import", "scores", scores, "--dataset", "d", "--labeler", "prm")
            capsys.readouterr()
        if len(waited) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch_status(Workspace(tmp_path / "w"), every=2, wait=wait)
    shown = capsys.readouterr().out.splitlines()
    assert waited == [30.0] * 3
    # What had not changed is not repeated, and the rows that the scores lack are listed.
    assert any("d/prm (prm): 1 of 10 traces" in line for line in shown)
    assert sum("prm: no_row" in line for line in shown) == 9
    assert not any("10 problems" in line for line in shown)


def test_json_is_one_document_and_nothing_else(imported: Cli) -> None:
    for argv, flag in (
        (("status", "--watch"), "--watch"),
        (("compare", "--dataset", "d", "a", "b", "--format", "md"), "--format"),
    ):
        refused = imported(*argv, "--json")
        assert refused.code == 2
        assert refused.document["error"]["remedy"] == f"leave out --json or {flag}"
