"""The Slurm and Kubernetes examples, read as far as that is possible without a cluster."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
SBATCH = {
    "job-name": r"[\w-]+", "array": r"\d+-\d+", "gres": r"gpu:\d+", "nodes": r"\d+",
    "ntasks-per-node": r"\d+", "gpus-per-node": r"\d+", "cpus-per-task": r"\d+",
    "time": r"\d\d:\d\d:\d\d", "requeue": "",
}  # fmt: skip
"""Options of sbatch that the scripts use, with the form of their values (its manual page)."""
JOB = {"backoffLimit", "shutdownAfterJobFinishes", "entrypoint", "rayClusterSpec"}
RAY = {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
"""Fields of a RayJob that the example uses, as in KubeRay's types (ray-operator/apis/ray/v1)."""


def manifest(name: str) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((FOLDER / name).read_text())


def validate(resource: Any) -> None:
    """Check a resource against the OpenAPI schema of Kubernetes; unknown fields are refused."""
    tool = pytest.importorskip("kubernetes_validate")
    tool.validate(resource, "1.32", strict=True)


def commands(text: str) -> list[list[str]]:
    """The stepgold commands of a script, as their words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("stepgold ")]


def accepts(words: list[str]) -> None:
    """Refuse a command with an option that stepgold does not have."""
    from typer.testing import CliRunner

    from cli import app

    flags = [word for word in words[1:] if word.startswith("--")]
    shown = CliRunner().invoke(app, [_verb(words), "--help"], env={"COLUMNS": "200"}).output
    known = {*re.findall(r"--[a-z][a-z-]*", shown), "--db", "--workspace"}
    assert not set(flags) - known


def _verb(words: list[str]) -> str:
    return next(word for word in words if word in ("continue", "score"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_the_scripts_and_sbatch_has_their_options(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    asked = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE)
    assert len(asked) == text.count("\n#SBATCH")
    for name, value in asked:
        assert re.fullmatch(SBATCH[name], value), name
    # sbatch reads options up to the first command only.
    assert text.rindex("\n#SBATCH") < text.index("\nset -euo pipefail")


def test_kubernetes_takes_the_job() -> None:
    validate(manifest("kubernetes_job.yaml"))


def test_kuberay_has_the_fields_and_kubernetes_takes_the_pods() -> None:
    job = manifest("kuberay_job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert job["spec"].keys() <= JOB
    assert cluster.keys() <= RAY
    for group in groups:
        assert group.keys() <= GROUP
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        validate(pod)


def test_stepgold_has_the_options_of_all_examples() -> None:
    found = [words for script in SCRIPTS for words in commands(script.read_text())]
    found.append(shlex.split(manifest("kuberay_job.yaml")["spec"]["entrypoint"]))
    pod = manifest("kubernetes_job.yaml")["spec"]["template"]["spec"]["containers"][0]
    found.append([*pod["command"], *pod["args"]])
    assert len(found) == 4
    for words in found:
        accepts(words)
