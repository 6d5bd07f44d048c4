"""Progress: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest

from stepgold import console
from stepgold.console import StagePace, progress


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_hears_of_every_tenth_and_of_every_half_minute() -> None:
    clock = Clock()
    pace = StagePace("encode passages", 2_491, 2_491, clock=clock)
    lines = []
    while pace.count < 2_491:
        clock.now += 0.25
        pace.count += 1
        pace.done += 1
        if (line := pace.line()) is not None:
            lines.append(line)
    # A tenth takes 62 s, so that lines come at 30 s, at 60 s, and at the tenth.
    assert lines[0] == ("encode passages: 120/2,491 (5%), 4.0/s, 0:00:30 elapsed, 0:09:53 left")
    assert any(line.startswith("encode passages: 250/2,491 (10%)") for line in lines)
    spans = [re.findall(r"(\d):(\d\d):(\d\d) elapsed", line)[0] for line in lines]
    seconds = [int(h) * 3600 + int(m) * 60 + int(s) for h, m, s in spans]
    between = [b - a for a, b in zip([0, *seconds], seconds, strict=False)]
    assert max(between) <= 31
    assert pace.summary() == "encode passages: 2,491/2,491 (100%), 4.0/s, 0:10:23 elapsed"


def test_a_stage_of_a_moment_writes_no_line_for_each_tenth() -> None:
    clock = Clock()
    pace = StagePace("judge", 10, 10, clock=clock)
    for _ in range(10):
        clock.now += 0.05
        pace.count += 1
        pace.done += 1
        assert pace.line() is None


def test_time_left_follows_the_work_and_a_slow_rate_is_per_minute() -> None:
    clock = Clock()
    pace = StagePace("score", 3, 10.0, clock=clock)
    clock.now += 120
    pace.count, pace.done = 1, 8.0
    assert pace.line() == "score: 1/3 (80%), 0.5/min, 0:02:00 elapsed, 0:00:30 left"


def test_an_unknown_total_states_no_share_and_no_time_left() -> None:
    clock = Clock()
    pace = StagePace("import", None, None, clock=clock)
    clock.now += 30
    pace.count, pace.done = 60, 60.0
    assert pace.line() == "import: 60, 2.0/s, 0:00:30 elapsed"


def test_a_log_is_written_while_one_item_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "EVERY_S", 0.01)
    told = threading.Event()
    line = StagePace.line

    def hear(pace: StagePace) -> str | None:
        said = line(pace)
        if said is not None:
            told.set()
        return said

    monkeypatch.setattr(StagePace, "line", hear)

    def slow() -> Iterator[int]:
        assert told.wait(60)
        yield 1

    assert list(progress(slow(), total=1, label="add to the index")) == [1]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("add to the index: 0/1 (0%), 0.0/s, 0:00:00 elapsed")
    assert lines[-1].startswith("add to the index: 1/1 (100%)")


def test_an_interrupted_stage_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    for item in progress([1, 2, 3], total=3, label="judge"):
        if item == 2:
            break
    assert capsys.readouterr().err.startswith("judge: 1/3 (33%)")


def test_a_terminal_shows_a_bar_with_named_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    assert list(progress([1, 2], total=2, label="judge")) == [1, 2]
    colored = capsys.readouterr().err
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", colored).strip().splitlines()[-1]
    assert last.rstrip().endswith("2/2 0:00:00 elapsed")
    assert len(last) <= 80
    assert "-:--:--" not in colored
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", colored)

    monkeypatch.setenv("NO_COLOR", "1")
    assert list(progress([1, 2], total=2, label="judge")) == [1, 2]
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", capsys.readouterr().err)
