"""Kill -9 at 20 random moments: no trace scored twice, none missing, scores as if nothing had been."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import Store
from tests.commands.tiny_prm import save_prm, write_pool

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
PROBLEMS, CANDIDATES = 80, 8


@pytest.mark.slow
def test_killed_twenty_times(cli: Cli, tmp_path: Path) -> None:
    pool = write_pool(
        tmp_path / "pool.jsonl", problems=PROBLEMS, candidates=CANDIDATES, documents=4
    )
    assert cli("import", "traces", pool, "--dataset", "d").code == 0
    calm = tmp_path / "calm"
    shutil.copytree(tmp_path / "w", calm)
    prm = save_prm(tmp_path / "prm", intermediate_size=4096)
    done = subprocess.run(
        [sys.executable, "-m", "tests.commands.score_lives", tmp_path / "w", calm, f"hf:{prm}",
         str(KILLS), "7"],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["codes"] == [0, 0]
    assert len(told["deaths"]) == KILLS
    assert all(death["killed"] for death in told["deaths"]), "killed, not finished"
    moments = [len(death["stored"]) for death in told["deaths"]]
    assert moments == sorted(moments)
    # How many traces one commit brings depends on the machine, so two deaths may fall into the same state.
    assert len(set(moments)) >= KILLS // 3, "deaths all over the run"
    assert moments[0] < PROBLEMS * CANDIDATES / 3 < PROBLEMS * CANDIDATES * 2 / 3 < moments[-1]
    for death in told["deaths"]:
        kept = {name: told["end"].get(name) for name in death["stored"]}
        assert kept == death["stored"], "what was stored is never scored again"
    found = []
    for place in (tmp_path / "w", calm):
        with Store.open(f"sqlite:///{place / 'stepgold.db'}") as store:
            found.append(store.labels.load("d", "prm"))
    disturbed, undisturbed = found
    assert len(undisturbed) == PROBLEMS * CANDIDATES
    assert set(disturbed) == set(undisturbed)
    for name, label in undisturbed.items():
        assert [s.score for s in disturbed[name].step_labels] == pytest.approx(
            [s.score for s in label.step_labels], abs=1e-5
        )
        assert disturbed[name].meta == label.meta
