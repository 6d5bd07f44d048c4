"""`stepgold score --family` and `--mode`: what is stored, what is refused, best-of-N of an outcome model."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepgold.candidates import complete_scores
from storage import LabelArrays, Store
from tests.commands.tiny_prm import save_prm, write_pool
from traces.labels import AbstentionReason

Cli = Callable[..., Any]
FILE = """
name = "mine"
prompt = "{documents}Question: {question}\\n\\nExplanation: "
marker = " ки"
positive = " +"
negative = " -"
"""


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"hf:{save_prm(tmp_path_factory.mktemp('prm'))}"


@pytest.fixture
def scored(cli: Cli, tmp_path: Path, prm: str) -> Cli:
    """Dataset d with three candidates of a problem, the first too long; `score` on it."""
    path = write_pool(tmp_path / "pool.jsonl", problems=1, candidates=3, long_ones=1)
    rows = [
        json.loads(line) | {"final_answer_correct": True} for line in path.read_text().splitlines()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    return lambda *options: cli("score", "--dataset", "d", "--prm", prm, *options)


def config(tmp_path: Path, name: str = "prm") -> dict[str, Any]:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        return dict(store.labels.labeler("d", name).config)


def test_the_mode_is_stored_and_another_one_is_another_labeler(scored: Cli, tmp_path: Path) -> None:
    called = scored("--mode", "medprm-compat", "--dtype", "float32", "--json")
    assert (called.code, called.document["done"]) == (0, 3)
    assert (called.document["family"], called.document["aggregation"]) == ("medprm", "min")
    assert config(tmp_path)["mode"] == "medprm-compat"
    assert config(tmp_path)["packing"] == "medprm-compat"
    assert scored("--json").code == 2
    assert scored("--name", "strict", "--json").document["done"] == 3
    assert config(tmp_path, "strict")["mode"] == "strict"
    assert (
        scored("--mode", "medprm-compat", "--dtype", "float32", "--json").document["unchanged"] == 3
    )


@pytest.mark.parametrize("options", [("--mode", "nonesuch"), ("--family", "nonesuch")])
def test_unknown_words_name_the_known_ones(scored: Cli, cli: Cli, options: Any) -> None:
    called = scored(*options)
    assert called.code == 2
    assert "nonesuch" in called.err
    assert "medprm" in called.err
    assert cli("status", "--json").document["labelers"] == []


@pytest.mark.slow
def test_a_family_from_a_file_scores_and_is_retried_from_what_is_stored(
    scored: Cli, cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(FILE)
    called = scored("--family", str(file), "--max-tokens", "600", "--json")
    assert (called.code, called.document["abstained"]) == (1, {"over_length": 1})
    assert config(tmp_path)["layout"]["prompt"].startswith("{documents}")
    file.unlink()
    again = cli("retry", "--labeler", "prm", "--max-tokens", "2000", "--json")
    assert (again.code, again.document["done"]) == (0, 1)


def test_a_faulty_family_file_is_named(scored: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(FILE.replace("marker", "maker"))
    called = scored("--family", str(file))
    assert called.code == 2
    assert "maker" in called.err
    assert "mine.toml" in called.err


@pytest.mark.slow
def test_an_outcome_model_measures_the_last_step_and_ranks_candidates(
    scored: Cli, cli: Cli, tmp_path: Path
) -> None:
    assert scored("--family", "medprm-orm").code == 0
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        for label in store.labels.load("d", "prm").values():
            *earlier, last = label.step_labels
            assert last.score is not None
            assert [step.abstention and step.abstention.reason for step in earlier] == [
                AbstentionReason.NOT_MEASURED
            ] * 2
    found = cli("best-of-n", "--dataset", "d", "--labeler", "prm", "-n", "3", "--json")
    assert found.code == 0
    assert found.document["n"]["3"]["last"] == 1.0


def test_only_of_an_outcome_model_the_last_step_is_all() -> None:
    said = struct.pack("<d", 0.4)
    ends, gap, none = (1, "t", None, False, None, "mS", said), (2, "u", None, False, None, "Sm", said), (3, "v", None, True, 1, None, None)  # fmt: skip
    labels = LabelArrays.of([ends, gap, none])
    assert complete_scores(labels, outcome=True) == {1: (0.4,)}
    assert complete_scores(labels) == {}
    whole = LabelArrays.of([(4, "w", None, False, None, "SS", 2 * said)])
    assert complete_scores(whole) == {4: (0.4, 0.4)}
