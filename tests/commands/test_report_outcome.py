"""Best-of-N on the report with an outcome model, whose one score of a trace stands on its last step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import Store
from tests.commands.conftest import Cli
from tests.commands.labelled_workspace import N_TRACES, make_workspace
from traces.labels import Abstention, AbstentionReason, Labeler, LabelerKind, StepLabel, TraceLabel

SILENT = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, ""))


@pytest.mark.slow
def test_candidates_of_an_outcome_model_are_ranked_as_by_best_of_n(
    cli: Cli, tmp_path: Path
) -> None:
    folder = make_workspace(tmp_path)
    with Store.open(f"sqlite:///{folder / 'stepgold.db'}") as store:
        for name, family in (("orm", "medprm-orm"), ("gaps", "medprm")):
            store.labels.declare("d", Labeler(name, LabelerKind.PRM, {"family": family}))
            labels = [
                TraceLabel(f"t{n}", (SILENT, SILENT, StepLabel(score=0.1 + 0.05 * n)))
                for n in range(N_TRACES)
            ]
            store.labels.put("d", name, labels)
    page = tmp_path / "r.json"
    options = ("--resamples", "20", "--seed", "3")
    assert cli("report", page, "--dataset", "d", *options, workspace=folder).code == 0
    sections = json.loads(page.read_text())["best_of_n"]
    assert [each["subset"] for each in sections if each["labeler"] == "orm"] == ["dev", "test"]
    assert not [each for each in sections if each["labeler"] == "gaps"], "its steps have no scores"
    for section in sections:
        if section["labeler"] == "orm":
            on = ("best-of-n", "--dataset", "d", "--labeler", "orm", "--subset", section["subset"])
            alone = cli(*on, "-n", "1,2", "--expected", *options, "--json", workspace=folder)
            assert section["n"] == alone.document["n"]
            # The later, right trace of each problem has the higher score.
            assert section["n"]["2"]["last"] == 1.0
