"""Every script in examples/ runs on the lab's files."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

from tests.docs.scene import make_scene

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_an_example_runs(
    script: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "example"
    shutil.copytree(scene, folder)
    monkeypatch.chdir(folder)
    runpy.run_path(str(script), run_name="__main__")


def test_examples_have_cells() -> None:
    assert len(EXAMPLES) >= 3
    for script in EXAMPLES:
        lines = script.read_text("utf-8").splitlines()
        assert lines[0] == "# %% [markdown]", script.name
        assert sum(line.startswith("# %%") for line in lines) >= 4, script.name
