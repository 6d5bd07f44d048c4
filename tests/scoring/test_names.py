"""Names of families and modes are one list, and are checked before a model library is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scoring import names
from scoring.families.implicit import AGGREGATIONS
from traces.errors import InputError
from traces.plugins import load_plugin


def test_the_names_are_those_of_the_families() -> None:
    assert list(AGGREGATIONS) == list(names.WITH_REFERENCE)
    for name in names.BUILT_IN:
        assert callable(load_plugin(names.find_family(name)))


@pytest.mark.parametrize(
    ("family", "mode", "reference", "word"),
    [
        ("medprm", "medprm-compat", True, "--reference"),
        ("likelihood", "medprm-compat", False, "--mode"),
        ("likelihood", "strict", True, "eurusprm-stage1"),
        ("eurusprm-stage2", "strict", False, "Qwen2.5-Math-7B-Instruct"),
    ],
)
def test_what_does_not_go_together_names_the_way_out(
    family: str, mode: str, reference: bool, word: str
) -> None:
    with pytest.raises(InputError) as refusal:
        names.refuse_mismatch(family, mode, reference=reference)
    assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("family", "mode", "reference"),
    [
        ("medprm", "medprm-compat", False),
        ("implicit-prm", "strict", True),
        ("trl", "strict", False),
    ],
)
def test_what_goes_together_passes(family: str, mode: str, reference: bool) -> None:
    names.refuse_mismatch(family, mode, reference=reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    "slip",
    [
        {"family": "medprn"},
        {"family": "nofile.toml"},
        {"mode": "compat"},
        {"packing": "tight"},
        {"family": "trl", "mode": "medprm-compat"},
        {"family": "eurusprm-stage1"},
        {"family": "implicit-prm", "reference": "lab"},
    ],
    ids=lambda slip: "-".join(slip.values()),
)
def test_a_slip_loads_no_model_library(slip: dict[str, Any]) -> None:
    code = f"""
import sys
from stepgold.scoring_run import ScorerOptions
from traces.errors import InputError
from traces.plugins import load_plugin
try:
    ScorerOptions(prm="hf:no/such", **{slip!r})
except InputError:
    sys.exit(any(name in sys.modules for name in ("torch", "transformers")) * 3)
sys.exit(4)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documentation_names_every_family() -> None:
    text = (
        Path(__file__).resolve().parents[2] / "docs" / "reference" / "prm-families.md"
    ).read_text("utf-8")
    missing = [name for name in names.BUILT_IN if f"`{name}`" not in text]
    assert not missing
