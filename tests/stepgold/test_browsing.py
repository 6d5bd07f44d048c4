"""`Browser`: every filter and order against a plain loop, and the database while it changes."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cli import execute
from stepgold import InputError, Workspace
from stepgold.browsing import Browser
from stepgold.label_arrays import OUTCOMES, SORTS, TraceQuery
from stepgold.workspace import WorkspaceFolder
from traces import AbstentionReason

N = 60


def row(number: int, draw: random.Random) -> dict[str, object]:
    """A trace of a few steps with gold, a judge, a PRM and what they may lack."""
    steps = draw.randrange(1, 6)
    verdicts = [draw.choice([1, 1, 1, -1, 0, None]) for _ in range(steps)]
    labels: dict[str, object] = {"judge": {"kind": "judge", "verdicts": verdicts}}
    if draw.random() < 0.9:
        error = draw.choice([None, *range(steps)])
        labels["gold"] = {"kind": "gold", "first_error": error}
    if draw.random() < 0.8:
        scores = [round(draw.random(), 1) for _ in range(steps)]
        labels["prm"] = {"kind": "prm", "scores": scores}
    return {
        "id": f"t{number}",
        "problem": f"problem {number // 3}",
        "subset": draw.choice(["a", "b"]),
        "steps": [f"step {index} of {number}" for index in range(steps)],
        "labels": labels,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place, draw = tmp_path_factory.mktemp("browsing"), random.Random(7)
    file = place / "rows.jsonl"
    file.write_text("".join(json.dumps(row(number, draw)) + "\n" for number in range(N)))
    on = ["--workspace", str(place / "w"), "import", "traces", str(file), "--dataset", "d"]
    assert execute(on) == 0
    return place / "w"


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    with Browser(WorkspaceFolder(folder)) as opened:
        assert opened.wait_until_read(60)
        yield opened


QUERIES = [
    TraceQuery(dataset="d", labeler="prm", sort=sort, subset=subset)
    for sort, subset in itertools.product(SORTS, (None, "a"))
] + [
    TraceQuery(dataset="d", labeler="judge", outcome="late", sort="last"),
    TraceQuery(dataset="d", disputed=True, sort="long"),
    TraceQuery(dataset="d", text="step 1 of", labeler="prm", sort="low"),
]


@pytest.mark.parametrize("query", QUERIES, ids=str)
@pytest.mark.parametrize("size", [1, 7, 100])
def test_pages_hold_every_trace_once_in_both_directions(
    browser: Browser, query: TraceQuery, size: int
) -> None:
    whole = [each.row.id for each in browser.page(query, size=1000).traces]
    assert len(whole) == len(set(whole))
    ahead: list[str] = []
    page = browser.page(query, size=size)
    while True:
        ahead += [each.row.id for each in page.traces]
        if page.after is None:
            break
        page = browser.page(replace(query, after=page.after), size=size)
    assert ahead == whole
    back = [each.row.id for each in page.traces]
    while page.before is not None:
        page = browser.page(replace(query, before=page.before), size=size)
        back = [each.row.id for each in page.traces] + back
    assert back == whole


@pytest.mark.parametrize("labeler", ["judge", "prm"])
def test_outcomes_are_those_of_a_plain_comparison(browser: Browser, labeler: str) -> None:
    def outcome(found: dict[str, int | str | None]) -> str | None:
        gold, mine = found.get("gold", "open"), found.get(labeler, "open")
        if gold == "open":
            return None
        if mine == "open":
            return "missing"
        if gold is None or mine is None:
            both = gold is None and mine is None
            return "no_error" if both else "missed" if mine is None else "false_alarm"
        return "exact" if mine == gold else "early" if mine < gold else "late"  # type: ignore[operator]

    everything = browser.page(TraceQuery(dataset="d", labeler=labeler), size=1000).traces
    expected: dict[str, list[str]] = {name: [] for name in OUTCOMES}
    for each in everything:
        words: dict[str, int | str | None] = {
            x.labeler: "open" if x.state < 2 else x.first_error for x in each.opinions
        }
        found = outcome(words)
        mine = next(x for x in each.opinions if x.labeler == labeler)
        assert mine.outcome == found
        if found is not None:
            expected[found].append(each.row.id)
    assert sum(map(bool, expected.values())) >= 6
    for name in OUTCOMES:
        page = browser.page(TraceQuery(dataset="d", labeler=labeler, outcome=name), size=1000)
        assert [each.row.id for each in page.traces] == expected[name]
        assert page.total == len(expected[name])


def test_figures_are_those_of_evaluate(browser: Browser, folder: Path) -> None:
    report = Workspace(folder, progress=False).evaluate(dataset="d", labeler="judge", resamples=1)
    figures = next(x for x in browser.datasets()[0].labelers if x.labeler.name == "judge")
    subsets = report.document["subsets"].values()
    right = sum(x["error_accuracy"] * x["n_error"] for x in subsets)
    assert figures.error_accuracy == pytest.approx(right / sum(x["n_error"] for x in subsets))


def test_abstentions_are_counted_and_found(browser: Browser) -> None:
    counts = browser.reasons("d", "judge")
    for reason, number in counts.items():
        query = TraceQuery(dataset="d", labeler="judge", reason=reason)
        assert browser.page(query).total == number
    assert counts[AbstentionReason.NOT_MEASURED] > 0


@pytest.mark.parametrize("place", ["", "x", "0.0", "0.0:999", "nan:1", ":", "0:9" * 50])
def test_a_place_that_is_not_there_is_refused(browser: Browser, place: str) -> None:
    if place == "":
        assert browser.page(TraceQuery(dataset="d", after=place or None)).traces
        return
    query = TraceQuery(dataset="d", after=place, sort="low", labeler="prm")
    if place == "nan:1":
        assert browser.page(query).traces == ()
    else:
        with pytest.raises(InputError):
            browser.page(query)


def test_it_follows_the_database(folder: Path, tmp_path: Path) -> None:
    with Browser(WorkspaceFolder(folder)) as browser:
        assert browser.wait_until_read(60)
        workspace, before = Workspace(folder, progress=False), browser.stamp

        def opinions() -> dict[str, int]:
            browser.refresh()
            first = browser.page(TraceQuery(dataset="d"), size=1).traces[0]
            return {each.labeler: each.state for each in first.opinions}

        known = opinions()
        assert browser.stamp == before  # nothing changed, so that nothing was read
        file = tmp_path / "late.jsonl"
        file.write_text(json.dumps({"id": "t0", "first_error": None}) + "\n")
        workspace.import_scores(file, dataset="d", labeler="late")
        assert opinions() == known | {"late": 2}
        assert browser.stamp > before
        # Replaced labels have new keys; the old ones must not stay.
        file.write_text(json.dumps({"id": "t0", "first_error": 0}) + "\n")
        workspace.import_scores(file, dataset="d", labeler="late", replace=True)
        assert opinions() == known | {"late": 3}
        workspace.remove_labeler("late", dataset="d")
        assert opinions() == known
        more = tmp_path / "more.jsonl"
        more.write_text(json.dumps({"id": "new", "problem": "p", "steps": ["one"]}) + "\n")
        workspace.import_("traces", more, dataset="d")
        workspace.import_("traces", more, dataset="e")
        assert opinions() == known
        assert [each.name for each in browser.datasets()] == ["d", "e"]
        assert browser.page(TraceQuery(dataset="d", text="new")).traces[0].row.id == "new"
        workspace.remove_dataset("e")
        browser.refresh()
        with pytest.raises(InputError):
            browser.page(TraceQuery(dataset="e"))
