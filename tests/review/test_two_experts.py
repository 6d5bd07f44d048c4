"""Two experts label by keyboard at once; a browser and the server are killed and come back."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from storage import Store
from tests.review.reviewed_workspace import make_reviewed
from traces import ExpertAnswer

CHROMIUM = which("chromium") or which("chromium-browser")
KEYS = {"c": ExpertAnswer.CORRECT, "i": ExpertAnswer.INCORRECT, "n": ExpertAnswer.NEUTRAL}
WAIT_MS = 60_000
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
]


class Server:
    """`stepgold review` as a process of its own, which can be killed."""

    def __init__(self, folder: Path, port: int) -> None:
        words = ["review", "--dataset", "ward", "--port", str(port), "--mode", "every-step"]
        command = [sys.executable, "-m", "cli", "--workspace", str(folder), *words]
        self.process = subprocess.Popen(
            [*command, "--double", "0.3"], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.line = self.process.stderr.readline()

    def kill(self) -> None:
        """As power loss would."""
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Expert:
    """A person at a keyboard in a browser of their own."""

    def __init__(self, playwright: Any, url: str, code: str) -> None:
        self.playwright, self.url, self.code = playwright, url, code
        self.draw = random.Random(code)
        self.pressed: list[tuple[str, int, str]] = []
        self.open()

    def open(self) -> None:
        """Start a browser, and say who one is."""
        self.browser = self.playwright.chromium.launch(executable_path=CHROMIUM)
        self.page = self.browser.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.goto(f"{self.url}/review")
        self.page.locator("#code").fill(self.code)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("form.answers")

    def shown(self) -> tuple[str, int, str]:
        """Trace, step and token of the question on the page."""
        found = self.page.evaluate(
            "() => { const f = document.querySelector('form.answers');"
            " return [f.trace.value, Number(f.step.value), f.token.value]; }"
        )
        return tuple(found)

    def press(self, *, wait: bool = True) -> None:
        """Answer the question on the page by a key."""
        trace, step, token = self.shown()
        key = self.draw.choice("ccin")
        self.pressed.append((trace, step, KEYS[key].value))
        self.page.keyboard.press(key)
        if wait:
            self.wait_for_next(token)

    def wait_for_next(self, token: str) -> None:
        """Wait until the answer is stored and another question is shown."""
        self.page.wait_for_function(
            "(old) => { const f = document.querySelector('form.answers');"
            " return f ? f.token.value !== old : document.querySelector('h1#asked') !== null; }",
            arg=token,
        )


@contextmanager
def experts(url: str, *codes: str) -> Iterator[list[Expert]]:
    """Experts in browsers of their own."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        found = [Expert(playwright, url, code) for code in codes]
        try:
            yield found
        finally:
            for each in found:
                each.browser.close()


def answers(folder: Path) -> list[tuple[str, str, int, str]]:
    """The log, oldest first."""
    with Store.open(f"sqlite:///{folder / 'stepgold.db'}") as store:
        return [(a.expert, a.trace_id, a.step_index, a.answer.value) for a in store.reviews.log("ward")]  # fmt: skip


def test_no_answer_is_lost_or_doubled(tmp_path: Path) -> None:
    folder = make_reviewed(tmp_path / "ws")
    server = Server(folder, 0)
    port = int(server.line.split("127.0.0.1:")[1].split("/")[0])
    url = f"http://127.0.0.1:{port}"
    try:
        with experts(url, "E1", "E2") as (one, two):
            for _ in range(10):
                one.press()
                two.press()
            assert not {one.shown()[:2]} & {two.shown()[:2]}
            # A browser dies between an answer and the next question.
            one.press(wait=False)
            until = time.monotonic() + WAIT_MS / 1000
            while len(answers(folder)) < 21 and time.monotonic() < until:
                one.page.wait_for_timeout(50)
            one.browser.close()
            one.open()
            for _ in range(4):
                one.press()
                two.press()
            # The server dies; both press a key while it is gone.
            server.kill()
            tokens = [each.shown()[2] for each in (one, two)]
            one.press(wait=False)
            two.press(wait=False)
            one.page.wait_for_selector("[data-saving]:not([hidden])")
            two.page.wait_for_selector("[data-saving]:not([hidden])")
            server = Server(folder, port)
            one.wait_for_next(tokens[0])
            two.wait_for_next(tokens[1])
            while len(one.pressed) < 30:
                one.press()
                if len(two.pressed) < 30:
                    two.press()
            while len(two.pressed) < 30:
                two.press()
            pressed = {each.code: each.pressed for each in (one, two)}
    finally:
        server.kill()
    stored = answers(folder)
    assert len(stored) == 60
    for code, keys in pressed.items():
        assert [
            (trace, step, word) for expert, trace, step, word in stored if expert == code
        ] == keys
    check_exported(folder, pressed)


def check_exported(folder: Path, pressed: dict[str, list[tuple[str, int, str]]]) -> None:
    """The labels that `export` writes are the keys that were pressed."""
    for code, keys in pressed.items():
        out = folder / f"{code}.jsonl"
        command = ["--workspace", str(folder), "export", "traces", str(out)]
        options = ["--dataset", "ward", "--labeler", f"expert:{code}"]
        subprocess.run([sys.executable, "-m", "cli", *command, *options], cwd=ROOT, check=True)
        verdicts = {1: "correct", -1: "incorrect", 0: "neutral"}
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        found = {
            (row["id"], step): verdicts[value]
            for row in rows
            for step, value in enumerate(row["labels"][f"expert:{code}"]["verdicts"])
            if value is not None
        }
        assert found == {(trace, step): word for trace, step, word in keys}
