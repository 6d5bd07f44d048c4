"""Every shell and Python block of the README and the documentation runs, or says why it does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import COMMANDS, RUNNABLE, Session, blocks, commands
from tests.docs.scene import make_scene
from tests.loopback.gemini_server import GeminiServer
from tests.loopback.openai_server import OpenAIServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if any(block.language in RUNNABLE for block in blocks(path.read_text("utf-8")))
)
WITH_BLOCKS = [
    page for page in PAGES if any(block.runs for block in blocks((ROOT / page).read_text("utf-8")))
]
README_WORDS = 900


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def replaced() -> Iterator[dict[str, str]]:
    """The servers of the pages, on this machine."""
    with GeminiServer() as gemini, OpenAIServer("So it follows.\nThe answer is 90 mg.") as policy:
        yield {
            "GEMINI_API_KEY=...": "GEMINI_API_KEY=k\nexport GOOGLE_GEMINI_BASE_URL=" + gemini.url,
            "http://127.0.0.1:8000/v1": policy.url,
        }


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=str)
def test_the_blocks_of_a_page_run_in_order(
    page: Path,
    scene: Path,
    replaced: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "page"
    shutil.copytree(scene, folder)
    monkeypatch.setenv("OPENAI_BASE_URL", replaced["http://127.0.0.1:8000/v1"])
    session = Session(folder, replaced, monkeypatch.setenv, monkeypatch.chdir)
    for block in blocks((ROOT / page).read_text("utf-8")):
        if block.runs or block.title:
            session.run(block)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_block_runs_or_says_why_not(page: Path) -> None:
    for block in blocks((ROOT / page).read_text("utf-8")):
        if block.language in ("sh", "bash") and block.runs:
            others = {words[0] for words in commands(block.text)} - {*COMMANDS}
            assert not others, f"{page}:{block.line} calls {others}: add <!-- not run: REASON -->"


def test_every_block_names_its_language() -> None:
    unnamed = [
        f"{path.relative_to(ROOT)}:{block.line}"
        for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        for block in blocks(path.read_text("utf-8"))
        if not block.language
    ]
    assert not unnamed


def test_the_readme_is_short_and_leads_to_the_first_task() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= README_WORDS
    lines = text.splitlines()
    assert lines.index("## Score a PRM on ProcessBench") < 45


def test_comments_are_read() -> None:
    page = (
        "<!-- not run: needs a GPU -->\n```sh\nmake x\n```\n\n"
        "<!-- exit 1: a row is rejected -->\n```sh\nstepgold import \\\n  a b  # why\n```\n"
        '```toml title="run.toml"\n[a]\n```\n'
    )
    first, second, third = blocks(page)
    assert (first.not_run, first.runs, first.line) == ("needs a GPU", False, 2)
    assert (second.exit_code, second.runs) == (1, True)
    assert list(commands(second.text)) == [["stepgold", "import", "a", "b"]]
    assert (third.title, third.runs, third.text) == ("run.toml", False, "[a]\n")


def test_examples_in_json_are_json() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for block in blocks(path.read_text("utf-8")):
            if block.language == "json":
                for line in block.text.splitlines():
                    json.loads(line)
