"""The report in headless Chromium: quiet, offline, within the screen, by keyboard, in every dress."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Cli
from tests.commands.labelled_workspace import make_workspace
from tests.commands.report_page_reader import Figures, expected_figures

pytestmark = pytest.mark.slow

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)  # fmt: skip
WIDTHS = (375, 1440)
INTERACTIVE = "a[href], summary, [tabindex='0']"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER)
        yield running
        running.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with hostile texts in every place that data reaches."""
    from cli import execute

    place = tmp_path_factory.mktemp("browser")
    workspace = str(make_workspace(place))
    out = place / "r.html"
    argv = ["--workspace", workspace, "report", str(out), "--dataset", "d", "--resamples", "50"]
    assert execute(argv) == 0
    return out


def opened(browser: Any, file: Path, width: int, scheme: str = "light") -> tuple[Any, list[str]]:
    """The page at this width, and everything that it complained of or asked for."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, noise = context.new_page(), []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.append(request.url) if request.url != file.as_uri() else None)  # fmt: skip
    page.goto(file.as_uri())
    return page, noise


def test_every_figure_opens_alone(browser: Any, page_file: Path, tmp_path: Path) -> None:
    from cli import execute

    argv = ["report", str(tmp_path / "r.html"), "--dataset", "d", "--figures", str(tmp_path / "f")]
    assert execute(["--workspace", str(page_file.parent / "w"), *argv, "--resamples", "50"]) == 0
    drawings = sorted((tmp_path / "f").glob("*.svg"))
    assert len(drawings) > 3
    for file in drawings:
        page, noise = opened(browser, file, 400)
        assert noise == []
        assert page.evaluate("document.title") != "owned"
        outside = page.evaluate(
            """() => {
                const whole = document.documentElement.getBoundingClientRect()
                return [...document.querySelectorAll('text, path, line')].filter(one => {
                    const box = one.getBoundingClientRect()
                    return box.right > whole.right + 1 || box.bottom > whole.bottom + 1 || box.left < -1
                }).map(one => one.textContent)
            }"""
        )
        assert outside == []
        page.context.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_quiet_offline_and_within_the_screen(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    page, noise = opened(browser, page_file, width, scheme)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        "[...document.querySelectorAll('main *, header *, footer *')].filter(one => !one.closest('.scroll')"
        " && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"
    )
    assert outside == []
    assert noise == []
    # Hostile texts are shown, not run.
    assert page.title() != "owned"
    assert page.locator("img, script, iframe").count() == 0
    assert "onerror" in page.locator("main").inner_text()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 300) == (scheme == "dark")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_keyboard_reaches_everything_and_the_focus_is_seen(
    browser: Any, page_file: Path, width: int
) -> None:
    page, _ = opened(browser, page_file, width)
    wanted = page.evaluate(
        f"""[...document.querySelectorAll("{INTERACTIVE}")].map((one, at) => {{ one.dataset.at = at; return one; }})
        .filter(one => one.checkVisibility()).map(one => one.dataset.at)"""
    )
    reached = []
    for _ in range(len(wanted) + 5):
        page.keyboard.press("Tab")
        at, outline = page.evaluate(
            "[document.activeElement.dataset.at, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if at is not None and at not in reached:
            reached.append(at)
            assert outline == "solid"
    assert reached == wanted
    # The skip link is the first, and leads behind the navigation.
    page.keyboard.press("Home")
    first = page.locator("[data-at='0']")
    first.focus()
    assert first.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"


def test_every_drawing_has_words_and_every_table_headers(browser: Any, page_file: Path) -> None:
    page, _ = opened(browser, page_file, 1440)
    drawings = page.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].map(one => one.getAttribute('aria-labelledby')"
        ".split(' ').map(id => document.getElementById(id)?.textContent ?? '').join(' ').length)"
    )
    assert drawings
    assert min(drawings) > 40
    assert page.locator("svg:not([role=img]):not([aria-hidden=true])").count() == 0
    assert page.locator("table:not(:has(th[scope=col]))").count() == 0
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_it_prints_without_navigation_and_with_what_was_folded(
    browser: Any, page_file: Path
) -> None:
    page, _ = opened(browser, page_file, 794)
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    assert page.pdf(format="A4").startswith(b"%PDF")
    folded = page.locator("details:not([open]):not(.curve-table) table").first
    assert folded.evaluate("one => one.getBoundingClientRect().height") > 0
    # The charts are printed, the same points as tables are not.
    assert page.locator("details.curve-table").count() >= 2
    assert all(one.is_hidden() for one in page.locator("details.curve-table").all())


def test_the_demos_report_shows_the_figures_of_evaluate(
    browser: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are read from the rendered page, then compared with `evaluate --json` to the last digit."""
    from stepgold import demo

    monkeypatch.setattr(demo, "PROBLEMS", 6)
    monkeypatch.setattr(demo, "DISTRACTORS", 4)
    out = tmp_path / "demo"
    document = cli("demo", "--out", out, "--json").document
    for width in WIDTHS:
        page, noise = opened(browser, out / "report.html", width)
        assert noise == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shown = Figures(page.content()).found
        for name, found in document["labelers"].items():
            first = cli(
                "evaluate", "--dataset", "lab", "--labeler", name, "--json", workspace=out
            ).document
            assert first == found["processbench"]
            for key, figures in expected_figures(name, first, found["macro-f1"]).items():
                assert shown[key] == figures, key
    # Candidates are what the policy wrote, and the page says so.
    assert "prm on sampled" in page.content()
    assert "on corrupted" not in page.content()


def test_a_large_dataset_makes_no_large_page(cli: Cli, tmp_path: Path) -> None:
    """The size of ProcessBench: 3,400 traces with long texts."""
    rows, scores = [], []
    for number in range(3400):
        n = 4 + number % 9
        wrong = number % n if number % 3 else None
        steps = [f"Step {at} of {number}. " + "we compute and go on " * 40 for at in range(n)]
        gold = {"kind": "gold", "first_error": wrong}
        rows.append({"id": f"t{number}", "problem": f"Question {number}? " * 40, "subset": f"s{number % 4}", "steps": steps, "labels": {"gold": gold}})  # fmt: skip
        scores.append({"id": f"t{number}", "scores": [((number * 37 + at * 101) % 1000) / 1000 for at in range(n)]})  # fmt: skip
    for name, part in (("d", rows), ("s", scores)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    assert cli("import", "traces", tmp_path / "d", "--dataset", "d").code == 0
    assert cli("import", "scores", tmp_path / "s", "--dataset", "d", "--labeler", "prm").code == 0
    done = cli("report", tmp_path / "r.html", "--dataset", "d", "--json")
    assert done.code == 0
    assert done.document["bytes"] < 2_000_000
