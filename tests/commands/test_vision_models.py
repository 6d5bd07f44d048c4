"""Image-text models of this machine at the command line: continue, sample and judge see the images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.specs import ModelSpec
from stepgold.images import ImageOptions
from storage import Store
from tests.commands.test_images import imported
from tests.tiny_models import save, tiny_llama, tiny_tokenizer
from tests.tiny_vision import drawing, save_vision
from traces.errors import InputError

Cli = Callable[..., Any]
CONTINUE = ("continue", "--dataset", "d", "-k", "3", "--max-tokens", "6", "--json", "--policy")
WIDE = {"max_position_embeddings": 2048}


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"hf:{save_vision(tmp_path_factory.mktemp('qwen'), 'qwen2_vl', **WIDE)}"


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> str:
    tokenizer = tiny_tokenizer()
    folder = save(tmp_path_factory.mktemp("text"), tokenizer, tiny_llama(tokenizer, **WIDE))
    return f"hf:{folder}"


def scans(cli: Cli, tmp_path: Path, **images: list[str]) -> None:
    folder = imported(cli, tmp_path, **images)
    (folder / "a.png").write_bytes(drawing(1))
    (folder / "b.png").write_bytes(drawing(2))
    (folder / "x.png").write_bytes(drawing(3)[:80])


def written(tmp_path: Path, name: str = "mc") -> dict[str, list[str]]:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}", create=False) as store:
        ids = list(store.labels.load("d", name))
        return {
            one: [row.text for row in store.labels.continuations("d", name, one)] for one in ids
        }


def counted(called: Any) -> tuple[int, int]:
    """Traces that were continued (a random model may end without any answer), and unreadable ones."""
    abstained = called.document["abstained"]
    unreadable = abstained.pop("unreadable", 0)
    assert set(abstained) <= {"unparsed"}
    return called.document["done"] + sum(abstained.values()), unreadable


@pytest.mark.slow
def test_continuations_see_the_images(cli: Cli, tmp_path: Path, seeing: str, blind: str) -> None:
    scans(cli, tmp_path, scan=["a.png"], other=["b.png"], broken=["x.png"], bare=[])
    assert counted(cli(*CONTINUE, seeing, "--limit", "3")) == (3, 0)
    rest = cli(*CONTINUE, seeing)
    assert (rest.code, rest.document["unchanged"], counted(rest)) == (1, 3, (3, 2))
    failures = cli("status", "--json").document["failures"]
    unreadable = {one["id"]: one["detail"] for one in failures if one["reason"] == "unreadable"}
    assert set(unreadable) == {"broken:0", "broken:1"}
    assert all(detail.startswith("x.png: ") for detail in unreadable.values())
    whole = cli(*CONTINUE, seeing, "--name", "whole")
    assert counted(whole) == (6, 2)
    assert written(tmp_path, "whole") == written(tmp_path), "restarted or not, the same"
    ignoring = cli(*CONTINUE, seeing, "--name", "unseen", "--ignore-images")
    assert counted(ignoring) == (8, 0)
    assert "is not shown" in " ".join(ignoring.err.split())
    seen, unseen = written(tmp_path), written(tmp_path, "unseen")
    assert seen["bare:0"] == unseen["bare:0"]
    assert seen["scan:0"] != unseen["scan:0"]
    assert len(seen["scan:0"]) == 6
    refused = cli(*CONTINUE, blind, "--name", "text")
    assert refused.code == 2
    assert "is a text model" in refused.document["error"]["what"]


@pytest.mark.slow
def test_problems_with_the_same_text_and_other_images_are_told_apart(
    cli: Cli, tmp_path: Path, seeing: str
) -> None:
    rows = [
        {"id": f"{n}", "problem": "What is shown?", "answer": "4", "images": [f"{n}.png"], "steps": ["It is 4."]}
        for n in "ab"
    ]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("import", "traces", tmp_path / "t.jsonl", "--dataset", "d").code == 0
    for n in "ab":
        (tmp_path / "w" / f"{n}.png").write_bytes(drawing(ord(n)))
    assert counted(cli(*CONTINUE, seeing, "--temperature", "0")) == (2, 0)
    greedy = written(tmp_path)
    assert greedy["a"] != greedy["b"], "greedy: the trace's id plays no part"


@pytest.mark.slow
def test_candidates_and_judges_see_the_images(cli: Cli, tmp_path: Path, seeing: str) -> None:
    scans(cli, tmp_path, scan=["a.png"], broken=["x.png"])
    sample = ("sample", "--dataset", "d", "--policy", seeing, "-n", "2", "--min-steps", "1")
    drawn = cli(*sample, "--max-tokens", "6", "--rounds", "1", "--keep-all", "--json")
    assert (drawn.code, drawn.document["abstained"]) == (1, {"unreadable": 1})
    assert drawn.document["done"] == 2
    judged = cli("judge", "--dataset", "d", "--judge", seeing, "--max-tokens", "6", "--json")
    assert judged.code == 1
    assert sum(judged.document["abstained"].values()) == 6, "a random model writes no JSON"
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}", create=False) as store:
        why = {one: label.abstention for one, label in store.labels.load("d", "judge").items()}
    details = {name: abstention.detail for name, abstention in why.items() if abstention}
    assert details["broken:0"].startswith("x.png: ")
    assert not details["scan:0"].startswith("a.png: ")
    assert cli("status", "--json").document["calls"]["sent"] == 4, (
        "the broken image's were not asked"
    )


@pytest.mark.slow
def test_a_model_that_shares_nothing_is_said_to_be_slow(
    cli: Cli, tmp_path: Path, seeing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.local.engines.sharing_fault", lambda *_: "logits differ by 1")
    scans(cli, tmp_path, scan=["a.png"])
    slow = cli(*CONTINUE, seeing, "--limit", "1")
    assert len(written(tmp_path)["scan:0"]) == 6, slow.err
    assert "in full: logits differ by 1" in " ".join(slow.err.split())


def test_what_a_checkpoint_takes_is_told_before_anything_is_loaded(
    seeing: str, blind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    vision, text = ModelSpec.parse(seeing), ModelSpec.parse(blind)
    assert (vision.takes_images, text.takes_images) == (True, False)
    assert ImageOptions().settled(vision, exist=True).shown
    assert ImageOptions().settled(text, exist=False).shown
    assert not ImageOptions(ignore=True).settled(text, exist=True).shown
    with pytest.raises(InputError, match="is a text model"):
        ImageOptions().settled(vision, text, exist=True)
    code = (
        "import sys\nfrom inference.specs import ModelSpec\n"
        "assert ModelSpec.parse(sys.argv[1]).takes_images\n"
        "assert not {'torch', 'transformers', 'PIL'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, seeing], check=True, cwd=Path(__file__).parents[2])
