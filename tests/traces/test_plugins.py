"""Plug-ins of really installed distributions: folders with metadata on sys.path."""

from __future__ import annotations

from pathlib import Path

import pytest

from traces.errors import InputError
from traces.plugins import load_plugin, load_plugins

GROUP = "stepgold.test_group"


def _install(site: Path, distribution: str, entries: str, code: str = "") -> None:
    module = distribution.replace("-", "_")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entries}\n")
    (site / f"{module}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_lists_by_name_without_importing(site: Path) -> None:
    _install(site, "stepgold-one", "zeta = stepgold_one:Z\nalpha = stepgold_one:A", "raise OSError")
    assert list(load_plugins(GROUP)) == ["alpha", "zeta"]
    assert load_plugins("stepgold.nobody_registers_here") == {}


def test_loads_the_named_object(site: Path) -> None:
    _install(site, "stepgold-loads", "alpha = stepgold_loads:A", "A = 42\n")
    assert load_plugin(load_plugins(GROUP)["alpha"]) == 42


def test_refuses_a_name_registered_twice(site: Path) -> None:
    _install(site, "stepgold-left", "same = stepgold_left:A")
    _install(site, "stepgold-right", "same = stepgold_right:A")
    with pytest.raises(InputError) as caught:
        load_plugins(GROUP)
    assert "'same'" in caught.value.what
    assert caught.value.where == "distributions 'stepgold-left' and 'stepgold-right'"


@pytest.mark.parametrize("code", ["raise RuntimeError('no GPU')\n", "B = 1\n", "def f(:\n"])
def test_broken_plug_in_names_its_distribution(site: Path, code: str) -> None:
    name = f"stepgold-broken-{abs(hash(code))}"
    _install(site, name, f"alpha = {name.replace('-', '_')}:A", code)
    with pytest.raises(InputError) as caught:
        load_plugin(load_plugins(GROUP)["alpha"])
    assert f"distribution '{name}'" in caught.value.what
    assert caught.value.remedy is not None
