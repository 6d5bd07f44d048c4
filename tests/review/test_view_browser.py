"""`stepgold view` in headless Chromium: quiet, within the screen, by keyboard, live, for everyone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from review import Running, ViewOptions
from stepgold.workspace import WorkspaceFolder
from tests.commands.labelled_workspace import make_workspace
from tests.review.axe import axe_script, barriers
from tests.review.conftest import DEADLINE_S
from tests.review.hostile_workspace import EVIL, SCRIPT, make_hostile_workspace

pytestmark = pytest.mark.slow

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)  # fmt: skip
PAGES = {
    "home": "/",
    "traces": "/traces?dataset=d",
    "search": "/traces?dataset=d&text=absent",
    "trace": "/trace?dataset=d&id=t4&work=judge&place=0.0%3A5&labeler=judge",
    "costs": "/costs",
    "settings": "/settings",
    "missing": "/nope",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER)
        yield running
        running.close()


def opened(
    browser: Any, url: str, *, width: int = 1440, scheme: str = "light", lang: str = "en"
) -> tuple[Any, list[str]]:
    """A page and everything that it complains of or asks of other servers."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(1000 * DEADLINE_S)
    context.add_cookies([{"name": "stepgold-lang", "value": lang, "url": url}])
    page, noise = context.new_page(), []
    origin = "/".join(url.split("/")[:3])
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(origin) else noise.append(request.url),
    )
    page.goto(url)
    return page, noise


@pytest.mark.parametrize(
    ("width", "scheme", "lang"),
    [(375, "light", "en"), (375, "dark", "ko"), (1440, "dark", "en"), (1440, "light", "ko")],
)
def test_pages_are_quiet_and_fit_for_everyone(
    browser: Any, site: Running, width: int, scheme: str, lang: str
) -> None:
    script = axe_script()
    for name, path in PAGES.items():
        page, noise = opened(browser, site.url + path, width=width, scheme=scheme, lang=lang)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        if name != "missing":  # Chromium itself notes a 404
            assert noise == [], name
        assert barriers(page, script) == [], name
        page.context.close()


def test_hostile_texts_are_shown_and_not_run(browser: Any, tmp_path: Path) -> None:
    dataset = f"set {SCRIPT}"
    workspace, script = make_hostile_workspace(tmp_path), axe_script()
    with Running(WorkspaceFolder(workspace), ViewOptions(port=0)) as running:
        for path, query in (
            ("/", {}),
            ("/traces", {"dataset": dataset}),
            ("/trace", {"dataset": dataset, "id": f"id {EVIL}", "work": f"judge {SCRIPT}"}),
            ("/trace", {"dataset": dataset, "id": "long", "whole": "1"}),
        ):
            page, noise = opened(browser, f"{running.url}{path}?{urlencode(query)}", width=375)
            assert noise == []
            assert page.title() != "owned"
            assert page.locator("main img, main script, iframe").count() == 0
            assert page.evaluate("document.documentElement.scrollWidth") <= 375
            if "long" not in query.values():  # axe takes minutes for megabytes
                assert barriers(page, script) == []
            page.context.close()


def test_everything_is_reached_by_keyboard(browser: Any, site: Running) -> None:
    page, noise = opened(browser, f"{site.url}/traces?dataset=d&labeler=prm")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.textContent") == "t1"
    page.keyboard.press("Enter")
    page.wait_for_url("**/trace?**")
    assert page.locator("h1").inner_text() == "t1"
    page.keyboard.press("n")
    page.wait_for_url("**id=t2&**")
    page.keyboard.press("p")
    page.wait_for_url("**id=t1&**")
    page.keyboard.press("u")
    page.wait_for_url("**/traces?**")
    assert "labeler=prm" in page.url
    page.keyboard.press("/")
    page.keyboard.type("two <7>")
    page.keyboard.press("Enter")
    page.wait_for_url("**text=two**")
    assert page.locator("tr[data-href]").count() == 1
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert noise == []


def test_a_filter_is_shared_by_its_address(browser: Any, site: Running) -> None:
    page, _ = opened(browser, f"{site.url}/traces?dataset=d")
    page.get_by_role("combobox", name="Labeler").select_option("judge")
    page.wait_for_url("**labeler=judge**")
    page.get_by_role("combobox", name="First error").select_option("exact")
    page.wait_for_url("**outcome=exact**")
    assert "text=" not in page.url
    shown = page.locator("tr[data-href] th").all_inner_texts()
    other, _ = opened(browser, page.url)
    assert other.locator("tr[data-href] th").all_inner_texts() == shown == ["t2", "t4", "t6", "t8", "t10"]  # fmt: skip


def test_settings_are_saved_without_a_mouse(browser: Any, site: Running) -> None:
    page, _ = opened(browser, f"{site.url}/settings")
    page.get_by_label("한국어").focus()
    page.keyboard.press("Space")
    page.get_by_label("Dark").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.url}/")
    assert page.evaluate("document.documentElement.lang") == "ko"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"


def test_labels_of_another_process_appear_without_a_reload(browser: Any, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    file = tmp_path / "late.jsonl"
    rows = [{"id": f"t{number}", "verdicts": [1, -1, 1]} for number in range(12)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Running(WorkspaceFolder(workspace), ViewOptions(port=0)) as running:
        page, noise = opened(browser, f"{running.url}/traces?dataset=d")
        page.evaluate("window.same = true")
        page.keyboard.press("j")
        on = [sys.executable, "-m", "cli", "--workspace", str(workspace), "import", "scores"]
        words = [*on, str(file), "--dataset", "d", "--labeler", "late"]
        subprocess.run(words, check=True, capture_output=True)
        page.get_by_role("columnheader", name="late").wait_for()
        assert page.locator("tr[data-href]").first.inner_text().count("error at 2") == 2
        # The page is the same, and what had the focus still has it.
        assert page.evaluate("window.same")
        assert page.evaluate("document.activeElement.textContent") == "t0"
        assert noise == []
    page.get_by_text("The server does not answer").wait_for()


def test_a_long_search_goes_on_by_itself(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every request stops at once, as it does over many long texts.
    monkeypatch.setattr("stepgold.browsing.SEARCH_S", 0.0)
    monkeypatch.setattr("stepgold.browsing.SLICE", 2)
    workspace = make_workspace(tmp_path)
    rows = [
        {"id": f"m{number}", "problem": "q", "steps": ["needle" if number % 90 == 0 else "hay"]}
        for number in range(400)
    ]
    file = tmp_path / "more.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    from cli import execute

    assert execute(["--workspace", str(workspace), "import", "traces", str(file), "--dataset", "m"]) == 0  # fmt: skip
    with Running(WorkspaceFolder(workspace), ViewOptions(port=0)) as running:
        page, noise = opened(browser, f"{running.url}/traces?dataset=m&text=needle")
        page.locator("[data-more]").wait_for(state="detached")
        assert page.locator("tr[data-href] th").all_inner_texts() == ["m0", "m90", "m180", "m270", "m360"]  # fmt: skip
        assert noise == []
