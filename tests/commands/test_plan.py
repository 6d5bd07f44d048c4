"""`stepgold plan`: what a run will send and cost, before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from judge.prompt import estimate_tokens
from tests.loopback.gemini_server import GeminiServer
from tests.loopback.openai_server import OpenAIServer

Cli = Callable[..., Any]
SPEC = "gemini:gemini-3.5-flash-lite"
JUDGE = ("judge", "--dataset", "d", "--judge", SPEC)
PLAN = ("plan", "--dataset", "d", "--judge", SPEC, "--json")


@pytest.fixture
def imported(cli: Cli, tmp_path: Path) -> Cli:
    """Twenty traces of three steps in dataset d; a third of the answers is not known."""
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        for i in range(20):
            steps = [f"Step {t} of {i}: {i} + {t} = {i + t}." for t in range(3)]
            row: dict[str, Any] = {"id": f"t{i}", "problem": f"What is {i}?", "steps": steps}
            file.write(json.dumps(row | ({"answer": str(i)} if i % 3 else {})) + "\n")
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    return cli


def stage(called: Any, number: int = 0) -> dict[str, Any]:
    assert called.code == 0, called.out
    return dict(called.document["stages"][number])


def test_no_key_is_needed_and_nothing_is_written(imported: Cli, tmp_path: Path) -> None:
    before = (tmp_path / "w" / "stepgold.db").read_bytes()
    called = imported(*PLAN)
    planned = stage(called)
    assert (planned["traces"], planned["missing"], planned["stored"]) == (20, 20, 0)
    assert (planned["calls"], planned["calls_at_most"]) == (20, 20)
    tokens = planned["input_tokens"] * 0.30e-6 + planned["output_tokens"] * 2.50e-6
    assert planned["usd"] == pytest.approx(tokens)
    assert planned["usd_at_most"] == pytest.approx(
        planned["input_tokens"] * 0.30e-6 + 20 * 8192 * 2.50e-6
    )
    assert planned["hours"] == pytest.approx(20 * 5 / 16 / 3600)
    assert called.document["prices_as_of"] == "2026-10-07"
    assert called.document["total"]["usd"] == planned["usd"]
    assert (tmp_path / "w" / "stepgold.db").read_bytes() == before
    assert "prices as of 2026-10-07" in imported(*PLAN[:-1]).out


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--votes", "3"),
        ("--votes", "5", "--agree", "3", "--granularity", "step"),
        ("--granularity", "step"),
    ],
)
def test_the_run_sends_between_what_was_planned_and_the_most(
    imported: Cli, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    planned = stage(imported(*PLAN, *options))
    with GeminiServer() as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        imported(*JUDGE, *options)
        sent = len(server.calls)
    assert planned["calls"] <= sent <= planned["calls_at_most"]


def test_tokens_are_those_of_all_that_is_sent(
    imported: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = stage(imported(*PLAN))
    with GeminiServer() as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        imported(*JUDGE)
        counted = 0
        for body in server.bodies:
            parts = [*body["systemInstruction"]["parts"], *body["contents"][0]["parts"]]
            schema = json.dumps(body["generationConfig"]["responseJsonSchema"])
            counted += sum(estimate_tokens(part["text"]) for part in parts)
            counted += estimate_tokens(schema)
    assert planned["input_tokens"] == counted


@pytest.mark.slow
def test_what_is_there_is_free_and_tells_how_long_replies_are(
    imported: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = {"promptTokenCount": 4000, "candidatesTokenCount": 700}
    with GeminiServer(usage=usage) as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        assert imported(*JUDGE, "--limit", "12").code == 0
        rest = stage(imported(*PLAN))
        assert (rest["missing"], rest["calls"], rest["stored"]) == (8, 8, 0)
        assert rest["tokens_from"] == "estimate"
        anew = stage(imported(*PLAN, "--name", "another"))
        assert (anew["missing"], anew["calls"], anew["stored"]) == (20, 8, 12)
        assert anew["tokens_from"] == "measured"
        assert anew["output_tokens"] == 8 * 700
        assert 0.9 <= anew["input_tokens"] / (8 * 4000) <= 1.1
        assert imported(*JUDGE, "--name", "another").code == 0
        assert sum(server.billed.values()) == 12 + anew["calls"]
    assert stage(imported(*PLAN, "--name", "another"))["calls"] == 0


@pytest.mark.parametrize(("service", "share"), [("flex", 0.5), ("batch", 0.5)])
def test_cheap_services_take_longer(imported: Cli, service: str, share: float) -> None:
    standard, cheap = stage(imported(*PLAN)), stage(imported(*PLAN, "--service", service))
    assert cheap["usd"] == pytest.approx(share * standard["usd"])
    assert cheap["hours"] > 10 * standard["hours"]


def test_a_second_judge_is_a_stage_of_its_own(imported: Cli) -> None:
    planned = imported(*PLAN, "--votes", "3", "--escalate", "gemini:gemini-3.8-flash").document
    judge, second = planned["stages"]
    assert (judge["calls"], judge["calls_at_most"]) == (40, 60)
    assert (second["stage"], second["calls"], second["calls_at_most"]) == ("escalate", 0, 20)
    assert planned["total"]["calls_at_most"] == 80


@pytest.mark.slow
def test_a_policy_is_planned_for_traces_with_an_answer(
    imported: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--dataset", "d", "--policy", "openai:m", "-k", "2")
    planned = stage(imported("plan", *options, "--json"))
    assert (planned["stage"], planned["calls"]) == ("continue", 13 * 3 * 2)
    assert planned["usd"] is None, "a server of one's own has no price that we know"
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        imported("continue", *options)
        assert len(server.calls) == planned["calls"]
    local = stage(imported("plan", "--dataset", "d", "--policy", "lab", "--json"))
    assert (local["usd"], local["hours"], local["calls"]) == (0.0, None, 13 * 3 * 16)


@pytest.mark.parametrize(
    ("strategy", "fewest"),
    # Three steps, every continuation right: one a step; two prefixes of a search by halving, the
    # second one being the last; the same with a first look of four at the second prefix.
    [("all", 39 * 4), ("early-stop", 39), ("binary", 13 * 2), ("adaptive", 13 * (4 + 1))],
)
def test_a_strategy_is_planned_from_its_best_case_to_all(
    imported: Cli, strategy: str, fewest: int
) -> None:
    options = ("--dataset", "d", "--policy", "openai:m", "-k", "4", "--strategy", strategy)
    planned = stage(imported("plan", *options, "--json"))
    assert (planned["calls"], planned["calls_at_most"]) == (fewest, 39 * 4)


def test_a_price_that_is_not_known_is_none_and_not_nothing(imported: Cli) -> None:
    called = imported("plan", "--dataset", "d", "--judge", "gemini:gemini-9-helium", "--json")
    assert (stage(called)["usd"], called.document["total"]["usd"]) == (None, None)


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (("--dataset", "d"), "nothing to plan"),
        (("--dataset", "nope", "--judge", SPEC), "nope"),
        (("--dataset", "d", "--judge", SPEC, "--service", "overnight"), "overnight"),
        (("--dataset", "d", "--judge", "lab"), "lab"),
        (
            ("--dataset", "d", "--policy", "openai:m", "--strategy", "best"),
            "not a value of --strategy",
        ),
        (("--dataset", "d", "--judge", "gemini:gemini-2.0-flash"), "shut down"),
    ],
)
def test_what_cannot_be_planned_is_said(imported: Cli, argv: tuple[str, ...], word: str) -> None:
    called = imported("plan", *argv, "--json")
    assert called.code == 2
    assert word in called.document["error"]["what"]
