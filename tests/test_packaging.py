"""The flat layout: our import names are ours alone, and the wheel carries all of them."""

from __future__ import annotations

import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
DECLARED = [
    Requirement(line)
    for lines in (
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
    )
    for line in lines
    if not line.startswith("stepgold[")
]
CONSTRAINTS = [
    line
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
FORBIDDEN = {"core", "utils", "types", "data", "models", "schema", "llm", "evaluate", "datasets"}


def test_no_other_distribution_claims_our_import_names() -> None:
    claimed = packages_distributions()
    for name in (entry.removesuffix(".py") for entry in WHEEL):
        # pip overwrites a clashing top-level module without a warning: notice it here.
        assert set(claimed.get(name, ["stepgold"])) == {"stepgold"}, name


def test_the_wheel_holds_every_package() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert set(WHEEL) == packages - {"tests", "benchmarks", "tools"} | {"cli.py"}


def test_every_package_ships_its_types() -> None:
    for name in (entry for entry in WHEEL if not entry.endswith(".py")):
        assert (ROOT / name / "py.typed").is_file(), name


def test_the_version_is_that_of_the_distribution() -> None:
    import stepgold

    assert stepgold.__version__ == version("stepgold")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## {PROJECT['project']['version']} - " in changelog
    assert f"version: {PROJECT['project']['version']}\n" in (ROOT / "CITATION.cff").read_text(
        "utf-8"
    )


def test_no_generic_top_level_name() -> None:
    assert not FORBIDDEN & {entry.removesuffix(".py") for entry in WHEEL}


def test_type_checker_sees_every_package() -> None:
    assert set(WHEEL) <= set(PROJECT["tool"]["mypy"]["files"])


@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_a_dependency_ends_before_the_version_that_may_break_it(declared: Requirement) -> None:
    bounds = {part.operator: Version(part.version).release for part in declared.specifier}
    assert set(bounds) == {">=", "<"}
    upper = bounds["<"]
    # The major version is the bound; while it is 0, the first number that is not.
    assert len(upper) == 1 + next(i for i, number in enumerate(upper) if number)


@pytest.mark.parametrize("line", CONSTRAINTS)
def test_a_constraint_is_a_version_that_any_platform_finds(line: str) -> None:
    name, _, version = line.partition("==")
    assert name == name.strip()
    assert str(Version(version)) == version
    assert Version(version).local is None


@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_a_dependency_is_tested_within_its_bounds(declared: Requirement) -> None:
    tested = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in CONSTRAINTS}
    assert declared.specifier.contains(tested[canonicalize_name(declared.name)])
