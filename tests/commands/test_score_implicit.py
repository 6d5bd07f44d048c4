"""`stepgold score --reference`: an implicit PRM from the command line to best-of-N; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scoring.engine.engine import Scorer
from storage import Store
from tests.commands.tiny_prm import write_pool
from tests.tiny_models import save, tiny_llama, tiny_tokenizer
from traces.labels import TraceLabel
from traces.problem import TraceInContext

Cli = Callable[..., Any]
Pair = tuple[str, str]


def saved(folder: Path, seed: int, **changes: Any) -> str:
    tokenizer = tiny_tokenizer(**changes)
    return f"hf:{save(folder, tokenizer, tiny_llama(tokenizer, seed=seed, max_position_embeddings=2048))}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A PRM and its reference."""
    return (
        saved(tmp_path_factory.mktemp("model"), 1),
        saved(tmp_path_factory.mktemp("reference"), 2),
    )


@pytest.fixture
def scored(cli: Cli, tmp_path: Path, pair: Pair) -> Cli:
    """Dataset d: two problems with three candidates each, not side by side; `score` on it."""
    path = write_pool(tmp_path / "pool.jsonl", problems=2, candidates=3, long_ones=1)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {"final_answer_correct": number % 3 == 0, "final_answer": str(number)}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    return lambda *options: cli("score", "--dataset", "d", "--prm", pair[0], *options)


def stored(tmp_path: Path) -> tuple[dict[str, Any], dict[str, TraceLabel]]:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        return dict(store.labels.labeler("d", "prm").config), store.labels.load("d", "prm")


@pytest.mark.slow
def test_scores_sums_and_both_weights_are_stored(
    scored: Cli, cli: Cli, tmp_path: Path, pair: Pair
) -> None:
    on = ("--reference", pair[1], "--family", "eurusprm-stage2")
    called = scored(*on, "--json")
    assert (called.code, called.document["done"]) == (0, 6)
    told = called.document["family"], called.document["aggregation"]
    assert told == ("eurusprm-stage2", "last")
    config, labels = stored(tmp_path)
    assert config["reference"] == pair[1]
    assert len({config["weights"], config["reference_weights"], None}) == 3
    for label in labels.values():
        sums = label.meta["cumulative_rewards"]
        for step, each in zip(label.step_labels, sums, strict=True):
            assert step.score is not None
            assert (step.score > 0.5) == (each > 0)
            assert abs(step.score - 0.5) < 0.2
    assert scored(*on, "--json").document["unchanged"] == 6
    assert scored("--reference", pair[0], "--family", "eurusprm-stage2").code == 2, "another one"
    best = cli("best-of-n", "--dataset", "d", "--labeler", "prm", "-n", "3", "--json")
    assert (best.code, best.document["pools"]) == (0, 2)


@pytest.mark.slow
def test_over_long_ones_are_retried_problem_by_problem_with_the_same_reference(
    scored: Cli, cli: Cli, tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scored("--reference", pair[1], "--max-tokens", "30", "--json")
    assert first.document["family"] == "implicit-prm"
    assert first.document["abstained"] == {"over_length": 6}
    seen: list[str] = []
    run = Scorer.score_batches

    def watched(self: Scorer, contexts: Iterable[TraceInContext]) -> Iterator[list[TraceLabel]]:
        def passing() -> Iterator[TraceInContext]:
            for context in contexts:
                seen.append(context.trace.id)
                yield context

        return run(self, passing())

    monkeypatch.setattr(Scorer, "score_batches", watched)
    again = cli("retry", "--labeler", "prm", "--max-tokens", "2000", "--json")
    assert (again.code, again.document["done"]) == (0, 6)
    assert seen == ["p0:0", "p0:1", "p0:2", "p1:0", "p1:1", "p1:2"], "not in the order of import"
    assert all("cumulative_rewards" in label.meta for label in stored(tmp_path)[1].values())


@pytest.mark.slow
def test_the_plan_counts_both_models_and_knows_the_mode(
    scored: Cli, cli: Cli, pair: Pair, tmp_path: Path
) -> None:
    on = ("plan", "--dataset", "d", "--prm", pair[0])
    [one] = cli(*on, "--family", "likelihood", "--json").document["stages"]
    [both] = cli(*on, "--reference", pair[1], "--json").document["stages"]
    assert (one["family"], both["family"]) == ("likelihood", "implicit-prm")
    assert both["operations"] > 1.2 * one["operations"]
    marked = saved(tmp_path, 1, extra=[" ки"])
    compat = cli("plan", "--dataset", "d", "--prm", marked, "--mode", "medprm-compat", "--json")
    strict = cli("plan", "--dataset", "d", "--prm", marked, "--json")
    [[compat], [strict]] = compat.document["stages"], strict.document["stages"]
    # In medprm-compat there are two BOS, and the window is the whole of the model's.
    assert compat["longest"] != strict["longest"]


def test_what_cannot_be_compared_is_refused(
    scored: Cli, cli: Cli, pair: Pair, tmp_path: Path
) -> None:
    other = saved(tmp_path / "other", 2, extra=["<more>"])
    refusals = {
        ("--family", "eurusprm-stage1"): "--reference hf:PATH",
        ("--family", "likelihood", "--reference", pair[1]): "drop --reference",
        ("--reference", "lab"): "--reference hf:PATH",
        ("--reference", "hf:no/such/model"): "no/such/model",
        (
            "--family",
            "implicit-prm",
            "--reference",
            pair[1],
            "--base-url",
            "http://x",
        ): "--base-url",
    }
    for options, word in refusals.items():
        called = scored(*options)
        assert called.code == 2, options
        assert word in called.err.replace("\n", " "), called.err
    # The PRM knows a token that the reference does not; the other way round is no matter.
    called = cli("score", "--dataset", "d", "--prm", other, "--reference", pair[1])
    assert called.code == 2
    assert "<more>" in called.err
    assert cli("status", "--json").document["labelers"] == []


def test_a_server_is_no_place_for_it(scored: Cli, cli: Cli, pair: Pair) -> None:
    on = ("score", "--dataset", "d", "--prm", "openai:m")
    for options in (("--family", "eurusprm-stage1"), ("--reference", pair[1])):
        called = cli(*on, *options)
        assert called.code == 2
        assert "this machine" in called.err


@pytest.mark.slow
def test_a_table_names_both_models_beside_its_file(scored: Cli, cli: Cli, tmp_path: Path) -> None:
    for seed, name in enumerate(("model", "other")):
        saved(tmp_path / name, seed)
    config = tmp_path / "run.toml"
    config.write_text('[score]\ndataset = "d"\nprm = "hf:model"\nreference = "hf:other"\n')
    called = cli("run", config, "--json")
    assert called.code == 0, called.err
    assert stored(tmp_path)[0]["reference"] == f"hf:{tmp_path / 'other'}"
