"""The faces of traces, inference, judge and labeling: every name is there, none is heavy to ask for."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIGHT = """
import sys
from inference import Dispatcher, ModelSpec, PolicyConfig, ServerPolicy
from judge import JudgeConfig, RagJudge
from labeling import ConsensusConfig, MonteCarloConfig, label_traces
from traces import InputError, LabeledTrace
heavy = {"torch", "transformers", "openai", "google.genai", "sqlmodel"} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) or 0)
"""


def exported(package: str) -> Iterator[tuple[Path, str]]:
    """Each exported name with the file that a face takes it from."""
    stub = ROOT / package / "__init__.pyi"
    face = stub if stub.exists() else stub.with_suffix(".py")
    for node in ast.parse(face.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            module = node.module if node.level else node.module.removeprefix(f"{package}.")
            file = (ROOT / package / module.replace(".", "/")).with_suffix(".py")
            file = file if file.exists() else file.with_suffix("") / "__init__.py"
            yield from ((file, alias.name) for alias in node.names)


@pytest.mark.parametrize("package", ["inference", "judge", "labeling", "traces"])
def test_a_face_exports_names_that_exist(package: str) -> None:
    names = list(exported(package))
    assert len({name for _, name in names}) == len(names) > 4
    for file, name in names:
        assert file.exists(), f"{package} takes {name} from {file}"
        assert name in file.read_text(), f"{file} has no {name}"


@pytest.mark.slow
def test_light_names_load_no_heavy_library() -> None:
    run = subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
