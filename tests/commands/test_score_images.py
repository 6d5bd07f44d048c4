"""`stepgold score --family visualprm` from end to end: images beside the workspace, VisualProcessBench."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.images import ProblemImages
from scoring import load_scorer
from storage import Store
from tests.scoring.visual_checkpoints import save_visualprm
from tests.tiny_vision import drawing

Cli = Callable[..., Any]
STEPS = ["The drawing shows 6.", "6 x 30 = 180 mg.", "So it is 180."]
ROWS = {"flat": [1, 1, 1], "wide": [1, 0, -1], "lost": [1, -1], "bare": [-1, 1]}
"""Images and what people said of the steps; `lost` is not there at first, `bare` has none."""


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_visualprm(tmp_path_factory.mktemp("visualprm"), system="Judge.")


@pytest.fixture
def folder(cli: Cli, tmp_path: Path) -> Path:
    """Dataset d of VisualProcessBench rows; two candidates for `wide`. Its images' folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "flat.png").write_bytes(drawing(1, (30, 30)))
    (folder / "wide.png").write_bytes(drawing(2, (60, 30)))
    rows = [
        {
            "image": [] if name == "bare" else [f"{name}.png"],
            "question": "Which dose?", "answer": "180", "policy_model": "m", "data_source": "MMMU",
            "response": {"steps": [*STEPS[: len(said) - 1], f"{n} mg."], "process_correctness": said},
        }
        for name, said in ROWS.items()
        for n in range(2 if name == "wide" else 1)
    ]  # fmt: skip
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("import", "visualprocessbench", path, "--dataset", "d").code == 0
    return folder


def stored(tmp_path: Path, name: str = "prm") -> Any:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        return (
            list(store.traces.contexts("d")),
            store.labels.load("d", name),
            store.labels.labeler("d", name).config,
        )


@pytest.mark.slow
def test_images_are_seen_scored_evaluated_planned_and_retried(
    cli: Cli, tmp_path: Path, folder: Path, prm: Path
) -> None:
    asked = ("--dataset", "d", "--prm", f"hf:{prm}", "--family", "visualprm", "--images", folder)
    planned = cli("plan", *asked, "--json").document["stages"][0]
    assert (planned["traces"], planned["unreadable"], planned["family"]) == (5, 1, "visualprm")
    assert "1 have an image that cannot be read" in cli("plan", *asked).out

    scored = cli("score", *asked, "--json")
    assert (scored.code, scored.document["done"]) == (1, 4)
    assert scored.document["abstained"] == {"unreadable": 1}
    assert scored.document["aggregation"] == "mean"
    assert "not shown" not in scored.err
    [failure] = cli("status", "--json").document["failures"]
    assert (failure["reason"], failure["retryable"]) == ("unreadable", True)

    contexts, labels, config = stored(tmp_path)
    assert config["family"] == "visualprm"
    direct = load_scorer(str(prm), family="visualprm", images=ProblemImages(folder))
    for label in direct.score(contexts):
        if label.abstention is None:
            wanted = [step.score for step in label.step_labels]
            got = [step.score for step in labels[label.trace_id].step_labels]
            assert got == pytest.approx(wanted, abs=1e-5)
    lost = [label for label in labels.values() if label.abstention is not None]
    assert [label.abstention.detail.split(":")[0] for label in lost] == ["lost.png"]

    evaluated = cli(
        "evaluate", "--dataset", "d", "--labeler", "prm", "--protocol", "macro-f1",
        "--threshold", "0.85", "--json",
    )  # fmt: skip
    overall = evaluated.document["overall"]
    assert (overall["n_correct"], overall["n_incorrect"], overall["n_neutral"]) == (7, 4, 2)
    assert overall["missing"] == 2
    assert 0 <= overall["macro_f1"] <= 1

    (folder / "lost.png").write_bytes(drawing(3, (30, 60)))
    again = cli("retry", "--images", folder, "--json")
    assert (again.code, again.document["done"]) == (0, 1)
    _, labels, _ = stored(tmp_path)
    assert all(label.abstention is None for label in labels.values())
    assert cli("score", *asked, "--json").document["unchanged"] == 5


@pytest.mark.slow
def test_ignored_images_are_another_labeler_and_stay_ignored(
    cli: Cli, tmp_path: Path, folder: Path, prm: Path
) -> None:
    asked = ("score", "--dataset", "d", "--prm", f"hf:{prm}", "--family", "visualprm")
    blind = cli(*asked, "--ignore-images", "--json")
    assert (blind.code, blind.document["done"]) == (0, 5)
    assert "visualprm is not shown" in " ".join(blind.err.split())
    assert stored(tmp_path)[2]["images"] is False
    assert cli(*asked, "--images", folder, "--json").code == 2  # the name is taken
    tight = ("--ignore-images", "--name", "tight", "--max-tokens", "60")
    assert cli(*asked, *tight, "--json").document["abstained"] == {"over_length": 5}
    again = cli("retry", "--labeler", "tight", "--max-tokens", "2000", "--json")
    assert (again.code, again.document["done"]) == (0, 5)


@pytest.mark.slow
def test_without_their_folder_images_are_named(cli: Cli, folder: Path, prm: Path) -> None:
    asked = ("score", "--dataset", "d", "--prm", f"hf:{prm}", "--family", "visualprm", "--json")
    called = cli(*asked)
    assert called.document["abstained"] == {"unreadable": 4}
    assert cli(*asked, "--images", folder / "nowhere").code == 2
