"""`stepgold judge` with votes, single steps, quotes and an own prompt: what is kept and told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import Store
from tests.judge.electorate import Ballot, Electorate
from tests.judge.sheets import PASSAGE
from tests.loopback.openai_server import OpenAIServer
from traces.labels import FirstError, Verdict

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
OWN = "--- system ---\nJudge.\n--- user ---\n{documents}\n{question}\n{steps}\n--- no documents ---\nNone.\n"
ON = ("judge", "--dataset", "d", "--json")
VOTES = (*ON, "--judge", "openai:m", "--votes", "3")


def traces(path: Path, *names: str) -> Path:
    """One trace of three steps by name; the passage is its evidence."""
    with path.open("w") as file:
        for name in names:
            row = {
                "id": name,
                "problem": f"About {name}?",
                "steps": [name, "second", "third"],
                "evidence": [{"source": "guide", "title": "Dosing", "text": PASSAGE}],
            }
            file.write(json.dumps(row) + "\n")
    return path


def by_name(name: str, vote: int) -> Ballot:
    return {"agree": 1, "third": (0, 1, 1)[vote % 3], "split": (0, 1, None)[vote % 3]}[name[:5]]


def store(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}", create=False)


def imported(cli: Cli, tmp_path: Path, *names: str) -> None:
    assert cli("import", "traces", traces(tmp_path / "t.jsonl", *names), "--dataset", "d").code == 0


@pytest.mark.slow
def test_votes_are_kept_counted_and_not_bought_twice(cli: Cli, tmp_path: Path) -> None:
    imported(cli, tmp_path, "agree", "third", "split")
    with Electorate(by_name) as server:
        first = cli(*VOTES, "--base-url", server.url)
        assert first.code == 1, "a split is nothing that is done"
        assert (first.document["done"], first.document["abstained"]) == (2, {"uncertain": 1})
        assert first.document["votes"] == {"traces": 3, "cast": 8, "escalated": 0}
        again = cli(*VOTES, "--base-url", server.url)
        assert (again.code, again.document["unchanged"]) == (0, 3)
        assert len(server.asked) == 8
        assert cli(*VOTES[:-1], "5", "--base-url", server.url).code == 2, "another configuration"
        more = cli(*VOTES[:-1], "5", "--base-url", server.url, "--name", "five")
        assert more.document["votes"]["cast"] == 2 + 5 + 5
        assert len(server.asked) == 8 + 4, "the first three votes were bought already"
    with store(tmp_path) as opened:
        votes = opened.labels.votes.load("d", "judge")
        keys = {call.key for call in opened.replies.calls()}
        label = opened.labels.load("d", "judge")["third"]
        assert opened.labels.labeler("d", "judge").config["votes"] == 3
    assert [vote.first_error.index for vote in votes["third"]] == [0, 1, 1]
    assert votes["split"][2].first_error == FirstError(False, None)
    assert votes["agree"][0].words == (Verdict.CORRECT, Verdict.INCORRECT, Verdict.NEUTRAL)
    assert all(key in keys for each in votes.values() for vote in each for key in vote.request_keys)
    assert label.meta["votes"] == {
        "cast": 3, "counting": 3, "agreeing": 2, "share": pytest.approx(2 / 3),
    }  # fmt: skip
    failures = cli("status", "--json").document["failures"]
    assert {(f["id"], f["stage"], f["reason"], f["retryable"]) for f in failures} == {
        ("split", name, "uncertain", False) for name in ("judge", "five")
    }


@pytest.mark.slow
def test_splits_are_put_to_a_second_judge(cli: Cli, tmp_path: Path) -> None:
    imported(cli, tmp_path, "agree", "split")
    with Electorate(by_name) as server, Electorate(lambda _name, _vote: 2) as second:
        called = cli(
            *VOTES, "--base-url", server.url, "--escalate", "openai:big",
            "--escalate-base-url", second.url,
        )  # fmt: skip
        assert (called.code, called.document["done"]) == (0, 2)
        assert called.document["votes"] == {"traces": 2, "cast": 6, "escalated": 1}
        assert len(second.asked) == 1
    with store(tmp_path) as opened:
        assert opened.labels.load("d", "judge")["split"].first_error_index == 2
        assert [vote.escalated for vote in opened.labels.votes.load("d", "judge")["split"]] == [
            False, False, False, True,
        ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--escalate", "openai:big"), "at least two votes"),
        (("--votes", "3", "--escalate", "openai:m"), "Split votes cannot be escalated"),
        (("--votes", "3", "--escalate", "lab"), "Split votes cannot be escalated"),
        (("--votes", "3", "--temperature", "0"), "temperature 0"),
        (("--granularity", "word"), "is not a value of --granularity"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_sent(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    imported(cli, tmp_path, "agree")
    with Electorate(by_name) as server:
        called = cli(*ON, "--judge", "openai:m", "--base-url", server.url, *options)
        assert called.code == 2
        assert said in called.document["error"]["what"]
        assert server.asked == []


def test_the_lab_s_judge_has_no_votes(cli: Cli, tmp_path: Path) -> None:
    imported(cli, tmp_path, "agree")
    called = cli(*ON, "--judge", "lab", "--votes", "3", "--granularity", "step")
    assert called.code == 2
    assert "--votes, --granularity" in called.document["error"]["what"]


@pytest.mark.slow
def test_single_steps_have_a_call_each(cli: Cli, tmp_path: Path) -> None:
    imported(cli, tmp_path, "agree")
    with Electorate(by_name) as server:
        stepwise = (*ON, "--judge", "openai:m", "--base-url", server.url, "--granularity", "step")
        assert cli(*stepwise).document["done"] == 1
        assert len(server.asked) == 3
        server.script = [
            (200, {"choices": [{"message": {"content": "?"}, "finish_reason": "stop"}]}, {})
        ]
        torn = cli(*stepwise, "--max-tokens", "999", "--name", "torn")
    assert (torn.code, torn.document["done"]) == (1, 1), "a step whose call went wrong is not done"
    assert torn.document["steps_abstained"] == {"unreadable": 1}
    with store(tmp_path) as opened:
        [votes] = opened.labels.votes.load("d", "judge").values()
        assert len(votes[0].request_keys) == 3


# Quotes and prompts ------------------------------------------------------------------------------


def grounded(*verdicts: tuple[str, str | None]) -> str:
    """A reply whose steps cite the one document."""
    steps = [
        {
            "step": number,
            "document": 1 if quote else None,
            "quote": quote,
            "reasoning": "r",
            "verdict": verdict,
        }
        for number, (verdict, quote) in enumerate(verdicts, 1)
    ]
    return json.dumps({"steps": steps})


REPLY = grounded(
    ("correct", "dose is 6 mg per kg"), ("no_evidence", None), ("incorrect", "cap is 400 mg")
)
ASK = (*ON, "--judge", "openai:m", "--base-url")


@pytest.mark.slow
def test_the_report_says_which_quotes_stand_in_the_evidence(cli: Cli, tmp_path: Path) -> None:
    imported(cli, tmp_path, "agree")
    none = {"verified": 0, "unverified": 0, "absent": 0}
    with OpenAIServer(REPLY) as server:
        kept = cli(*ASK, server.url)
        assert kept.code == 0
        assert kept.document["steps_abstained"] == {"no_evidence": 1}
        assert kept.document["quotes"] == {
            "correct": none | {"verified": 1},
            "incorrect": none | {"unverified": 1},
            "neutral": none,
            "no_evidence": none | {"absent": 1},
        }
        shown = cli(*ASK[:3], *ASK[4:], server.url)
        assert "verified  unverified      absent" in shown.out
        assert "1 incorrect verdicts rest on a quote that is not in the evidence" in shown.out
    out = tmp_path / "out.jsonl"
    assert cli("export", "traces", out, "--dataset", "d", "--labeler", "judge").code == 0
    details = json.loads(out.read_text())["labels"]["judge"]["details"]
    assert [step.get("quote", {}).get("verified") for step in details] == [True, None, False]
    assert details[1]["abstention"]["reason"] == "no_evidence"


@pytest.mark.slow
def test_required_quotes_leave_no_unverified_error(cli: Cli, tmp_path: Path) -> None:
    imported(cli, tmp_path, "agree")
    with OpenAIServer(REPLY) as server:
        strict = cli(*ASK, server.url, "--require-quotes")
    assert strict.document["steps_abstained"] == {"no_evidence": 2}
    assert not any(strict.document["quotes"]["incorrect"].values())
    assert strict.document["quotes"]["no_evidence"]["unverified"] == 1


@pytest.mark.slow
def test_an_own_prompt_is_kept_and_a_changed_one_refused(cli: Cli, tmp_path: Path) -> None:
    imported(cli, tmp_path, "agree")
    prompt = tmp_path / "own.txt"
    prompt.write_text(OWN)
    with OpenAIServer(REPLY) as server:
        asked = (*ASK, server.url, "--prompt", prompt)
        assert cli(*asked).code == 0
        prompt.write_text(OWN.replace("Judge.", "Judge kindly."))
        changed = cli(*asked)
        assert changed.code == 2
        assert "prompt_sha256" in changed.document["error"]["what"]
        assert "another name" in changed.document["error"]["remedy"]
        prompt.write_text(OWN.replace("{question}", "{qestion}"))
        wrong = cli(*asked)
        assert wrong.code == 2
        assert "'{qestion}' (line 5)" in wrong.document["error"]["what"]
        assert wrong.document["error"]["where"] == f"{prompt}:4"
        assert len(server.calls) == 1
    with store(tmp_path) as opened:
        digest = opened.labels.labeler("d", "judge").config["prompt_sha256"]
        assert opened.replies.prompt(digest) == OWN


# Killed ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_between_votes_and_run_again(cli: Cli, tmp_path: Path) -> None:
    names = [f"{kind} {n}" for n in range(25) for kind in ("agree", "third", "split")]
    imported(cli, tmp_path, *names)
    command = [sys.executable, "-m", "cli", "--workspace", str(tmp_path / "w"), *VOTES]
    with Electorate(by_name) as server:
        argv = [*command, "--base-url", server.url, "--concurrency", "8"]
        needed = 25 * (2 + 3 + 3)
        for share in (0.2, 0.6):
            running = subprocess.Popen(
                argv, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            deadline = time.monotonic() + 120
            while len(server.asked) < share * needed:
                assert running.poll() is None, "it ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.005)
            running.send_signal(signal.SIGKILL)
            running.wait()
        last = cli(*VOTES, "--base-url", server.url)
        abstained = sum(last.document["abstained"].values())
        assert last.document["done"] + last.document["unchanged"] + abstained == 75
        assert len(set(server.asked)) == needed
        assert len(server.asked) - needed <= 2 * 8, "only what was on the wire is asked again"
    assert last.document["votes"]["cast"] == needed
    assert cli("status", "--json").document["calls"]["sent"] == needed
