"""The flat layout: our import names are ours alone, and the wheel carries all of them."""

from __future__ import annotations

import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
FORBIDDEN = {"core", "utils", "types", "data", "models", "schema", "llm", "evaluate", "datasets"}


def test_no_other_distribution_claims_our_import_names() -> None:
    claimed = packages_distributions()
    for name in (entry.removesuffix(".py") for entry in WHEEL):
        # pip overwrites a clashing top-level module without a warning: notice it here.
        assert set(claimed.get(name, ["stepgold"])) == {"stepgold"}, name


def test_the_wheel_holds_every_package() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert set(WHEEL) == packages - {"tests", "benchmarks", "tools"} | {"cli.py"}


def test_no_generic_top_level_name() -> None:
    assert not FORBIDDEN & {entry.removesuffix(".py") for entry in WHEEL}


def test_type_checker_sees_every_package() -> None:
    assert set(WHEEL) <= set(PROJECT["tool"]["mypy"]["files"])
