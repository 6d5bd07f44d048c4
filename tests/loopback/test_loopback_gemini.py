"""The loopback Gemini itself: as a program, its ledger, its faults, and the judge's real prompt."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from judge import JudgeConfig, render_vote
from tests.loopback.gemini_answers import verdicts
from tests.loopback.gemini_server import GeminiServer
from traces.evidence import Evidence, Passage
from traces.problem import Problem, Trace, TraceInContext

PATH = "/v1beta/models/gemini-3.5-flash-lite:generateContent"


def post(url: str, text: str, key: str = "s3cret") -> tuple[int, dict[str, Any]]:
    """One request without any client library."""
    body = json.dumps({"contents": [{"role": "user", "parts": [{"text": text}]}]}).encode()
    asked = urllib.request.Request(url + PATH, body, {"x-goog-api-key": key}, method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=10) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.mark.slow
def test_as_a_program_it_prints_its_url_and_logs_without_the_key(tmp_path: Path) -> None:
    script, log = Path(__file__).with_name("gemini_server.py"), tmp_path / "calls.jsonl"
    command = [sys.executable, str(script), "--log", str(log), "--script", "500,ok"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert [post(url, "a")[0], post(url, "a")[0], post(url, "b")[0]] == [500, 200, 200]
        finally:
            process.terminate()
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(call["outcome"], call["billed"], call["attempt"]) for call in calls] == [
        ("500", False, 1),
        ("ok", True, 2),
        ("ok", True, 1),
    ]
    assert calls[0]["key"] == calls[1]["key"] != calls[2]["key"]
    assert "s3cret" not in log.read_text()


def test_faults_follow_from_the_seed() -> None:
    def outcomes(seed: int) -> list[str]:
        with GeminiServer(fault_rate=0.5, faults=["500", "503"], seed=seed) as server:
            for number in range(24):
                post(server.url, str(number))
            return [call["outcome"] for call in server.calls]

    first = outcomes(0)
    assert first == outcomes(0) != outcomes(1)
    assert {"500", "503", "ok"} == set(first)


def test_it_judges_the_judges_own_prompt() -> None:
    text = "Zentide dose is 6 mg per kg. Zentide cap is 300 mg."
    problem = Problem("p", "Which dose? Step 9: is no step.")
    context = TraceInContext(
        problem,
        Trace("t", "p", ("Zentide dose is 6 mg per kg.", "6 x 120 = 720 mg.", "So 300 mg.")),
        (Evidence(Passage("c", "d", 0, 0, len(text), text), 0.5, 0),),
    )
    asked = render_vote(context, JudgeConfig())[0].request
    schema = asked.response_json_schema
    assert schema is not None
    order = schema["properties"]["steps"]["items"]["required"]
    entries = verdicts(asked.messages[-1].text, order)
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    assert all(list(entry) == order for entry in entries)
    assert all(entry["document"] == 1 and entry["quote"] in text for entry in entries)
    assert all(entry["verdict"] in ("correct", "incorrect", "neutral") for entry in entries)


def test_plainly_numbered_steps_are_understood_too() -> None:
    assert [each["step"] for each in verdicts("Step 1: a\nStep 2: b")] == [1, 2]
    assert verdicts("Step 1: a")[0]["quote"] is None
