"""Plug-ins of really installed distributions: folders with metadata on sys.path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.installed import install
from traces.errors import InputError
from traces.plugins import load_plugin, load_plugins

GROUP = "stepgold.test_group"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_lists_by_name_without_importing(site: Path) -> None:
    entries = "zeta = {module}:Z\nalpha = {module}:A"
    install(site, "stepgold-one", GROUP, entries, code="raise OSError")
    assert list(load_plugins(GROUP)) == ["alpha", "zeta"]
    assert load_plugins("stepgold.empty_group") == {}


def test_loads_the_named_object(site: Path) -> None:
    install(site, "stepgold-loads", GROUP, "alpha = {module}:A", code="A = 42\n")
    assert load_plugin(load_plugins(GROUP)["alpha"]) == 42


def test_refuses_a_name_registered_twice(site: Path) -> None:
    install(site, "stepgold-left", GROUP, "same = {module}:A")
    install(site, "stepgold-right", GROUP, "same = {module}:A")
    with pytest.raises(InputError) as caught:
        load_plugins(GROUP)
    assert "'same'" in caught.value.what
    assert caught.value.where == "distributions 'stepgold-left' and 'stepgold-right'"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("raises", "raise RuntimeError('no GPU')\n"),
        ("lacks-the-object", "B = 1\n"),
        ("does-not-parse", "def f(:\n"),
    ],
)
def test_broken_plug_in_names_its_distribution(site: Path, name: str, code: str) -> None:
    install(site, f"stepgold-{name}", GROUP, "alpha = {module}:A", code=code)
    with pytest.raises(InputError) as caught:
        load_plugin(load_plugins(GROUP)["alpha"])
    assert f"distribution 'stepgold-{name}'" in caught.value.what
    assert caught.value.remedy is not None
