"""`stepgold score`: over-long traces named, tried again with another window, nothing scored twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepgold.labeling_run import ProblemByProblem
from storage import Store
from tests.commands.tiny_prm import save_prm, write_pool
from traces.labels import TraceLabel

Cli = Callable[..., Any]
WINDOW = "600"
"""Room for short candidates with all documents, for long ones not even without."""


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"hf:{save_prm(tmp_path_factory.mktemp('prm'))}"


@pytest.fixture
def pool(cli: Cli, tmp_path: Path) -> Cli:
    """Dataset d: two problems with five candidates each, one of them over-long."""
    path = write_pool(tmp_path / "pool.jsonl", problems=2, candidates=5, long_ones=1)
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    return cli


def labels(tmp_path: Path, name: str = "prm", dataset: str = "d") -> dict[str, TraceLabel]:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        return store.labels.load(dataset, name)


def scores(label: TraceLabel) -> list[float | None]:
    return [step.score for step in label.step_labels]


@pytest.mark.slow
def test_a_fifth_of_over_long_traces(pool: Cli, prm: str, tmp_path: Path) -> None:
    """Shortened and abstained ones are named with the reason; the others are as if alone."""
    first = pool("score", "--dataset", "d", "--prm", prm, "--max-tokens", "1300", "--json")
    assert (first.code, first.document["done"], first.document["shortened"]) == (0, 10, 2)
    assert "elapsed" in first.err
    status = pool("status", "--json").document
    assert [row["id"] for row in status["shortened"]] == ["p0:0", "p1:0"]
    assert status["shortened"][0]["labeler"] == "prm"
    assert "of 3 documents fit" in status["shortened"][0]["detail"]
    assert status["failures"] == []
    assert "shortened: d/p0:0" in pool("status").out

    only = ("--max-tokens", WINDOW, "--name", "narrow", "--json")
    narrow = pool("score", "--dataset", "d", "--prm", prm, *only)
    assert (narrow.code, narrow.document["abstained"]) == (1, {"over_length": 2})
    named = pool("status", "--json").document["failures"]
    assert [(row["id"], row["reason"], row["retryable"]) for row in named] == [
        ("p0:0", "over_length", True),
        ("p1:0", "over_length", True),
    ]
    wide, small = labels(tmp_path), labels(tmp_path, "narrow")
    for name in wide:
        if not name.endswith(":0"):
            assert scores(small[name]) == pytest.approx(scores(wide[name]), abs=1e-5)


@pytest.mark.slow
def test_retry_with_another_window_scores_those_alone(pool: Cli, prm: str, tmp_path: Path) -> None:
    pool("score", "--dataset", "d", "--prm", prm, "--max-tokens", "1300")
    before = labels(tmp_path)
    again = pool("retry", "--labeler", "prm", "--max-tokens", "2000", "--json")
    assert (again.code, again.document["done"]) == (0, 2)
    after = labels(tmp_path)
    assert pool("status", "--json").document["shortened"] == []
    pool("score", "--dataset", "d", "--prm", prm, "--max-tokens", "2000", "--name", "whole")
    whole = labels(tmp_path, "whole")
    for name, label in after.items():
        if name.endswith(":0"):
            assert scores(label) == pytest.approx(scores(whole[name]), abs=1e-5)
            assert scores(label) != pytest.approx(scores(before[name]), abs=1e-5)
            assert label.meta["max_tokens"] == 2000
        else:
            assert label == before[name]
    assert pool("retry", "--max-tokens", "2000", "--json").document["done"] == 0


@pytest.mark.slow
def test_retry_of_a_checkpoint_that_is_another_one_now(pool: Cli, tmp_path: Path) -> None:
    folder = save_prm(tmp_path / "mine")
    pool("score", "--dataset", "d", "--prm", f"hf:{folder}", "--max-tokens", "1300")
    save_prm(folder, seed=9)
    called = pool("retry", "--max-tokens", "2000")
    assert called.code == 2
    assert "weights" in called.err


@pytest.mark.slow
def test_plan_says_beforehand_what_will_not_fit(pool: Cli, prm: str) -> None:
    on = ("plan", "--dataset", "d", "--prm", prm, "--prm-max-tokens", "1300")
    [stage] = pool(*on, "--json").document["stages"]
    assert (stage["stage"], stage["family"], stage["missing"]) == ("score", "medprm", 10)
    at = {row["max_tokens"]: row for row in stage["limits"]}
    assert at[1300] == {"max_tokens": 1300, "whole": 8, "shortened": 2, "abstained": 0}
    assert at[1024] == {"max_tokens": 1024, "whole": 8, "shortened": 0, "abstained": 2}
    assert at[2048]["whole"] == 10
    assert stage["seconds"] > 0
    words = pool(*on).out
    assert "--max-tokens 1300 (this run): 8 fit with all documents, 2 with fewer" in words
    assert "prices" not in words, "nothing is bought"
    assert pool("status", "--json").document["labelers"] == [], "nothing is stored"
    run = pool("score", "--dataset", "d", "--prm", prm, "--max-tokens", "1300", "--json")
    assert run.document["shortened"] == 2
    assert pool(*on, "--json").document["stages"][0]["missing"] == 0


@pytest.mark.parametrize("overflow", ["error", "abstain"])
def test_other_rules_for_over_long_traces(pool: Cli, prm: str, overflow: str) -> None:
    only = ("--max-tokens", "1300", "--overflow", overflow, "--json")
    called = pool("score", "--dataset", "d", "--prm", prm, *only)
    if overflow == "error":
        assert called.code == 2
        assert "p0:0" in called.document["error"]["where"]
        names = [row["name"] for row in pool("status", "--json").document["labelers"]]
        assert names == []
    else:
        assert (called.code, called.document["abstained"]) == (1, {"over_length": 2})
        assert called.document["done"] == 8


@pytest.mark.slow
def test_another_rule_is_another_labeler(pool: Cli, prm: str) -> None:
    on = ("score", "--dataset", "d", "--prm", prm, "--max-tokens", "1300")
    assert pool(*on).code == 0
    assert pool(*on, "--reserve", "300").code == 2
    assert pool(*on, "--reserve", "300", "--replace").code == 0


def test_candidates_come_problem_by_problem_wherever_they_stand(
    pool: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepgold.labeling_run._TOGETHER", 3)
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        reading = ProblemByProblem(
            store, "d", lambda contexts: {context.trace.id: 1.0 for context in contexts}
        )
        ids = [context.trace.id for context in store.traces.contexts("d")]
        found = [(c.trace.id, len(c.evidence)) for c in reading.contexts(ids[1:])]
        assert [name for name, _ in found] == (
            [f"p1:{i}" for i in range(5)] + [f"p0:{i}" for i in range(1, 5)]
        )
        assert {documents for _, documents in found} == {3}
        assert set(reading.work(ids)) == set(ids)
