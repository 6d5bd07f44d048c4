"""PRM scores from Python: typed counts, options refused early, and nothing scored twice."""

from __future__ import annotations

from pathlib import Path

import pytest

import stepgold
from stepgold import ScoreOptions
from tests.commands.tiny_prm import save_prm, write_pool
from traces import InputError


@pytest.mark.slow  # loads torch and a tiny model
def test_scores_are_stored_once_and_read_back(tmp_path: Path) -> None:
    from cli import execute

    pool = write_pool(tmp_path / "pool.jsonl", problems=2, candidates=2)
    prm = f"hf:{save_prm(tmp_path / 'prm')}"
    workspace = stepgold.Workspace(tmp_path / "w", progress=False)
    on = ["--workspace", str(workspace.folder)]
    assert execute([*on, "import", "traces", str(pool), "--dataset", "d"]) == 0
    first = workspace.score(dataset="d", prm=prm, limit=3)
    assert (first.done, first.unchanged, first.shortened, first.parity) == (3, 0, 0, None)
    assert (first.labeler, first.family, first.exit_code) == ("prm", "medprm", 0)
    assert first.as_json().keys() >= {"command", "done", "shortened", "family", "aggregation"}
    assert "read as medprm" in str(first)
    second = workspace.score(dataset="d", prm=prm)
    assert (second.done, second.unchanged) == (1, 3)
    scores = [row["score"] for row in workspace.labels(dataset="d", labeler="prm").rows()]
    assert len(scores) == 12
    assert all(0 <= score <= 1 for score in scores)
    with pytest.raises(InputError, match="another configuration"):
        workspace.score(dataset="d", prm=prm, reserve=300)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"family": "medprn"}, 'Unknown PRM family "medprn"'),
        ({"mode": "compat"}, "'compat' is not a value of --mode"),
        ({"packing": "tight"}, "'tight' is not a value of --packing"),
        ({"overflow": "cut"}, "'cut' is not a value of --overflow"),
        ({"max_tokens": 0}, "--max-tokens is 0"),
        ({"name": " "}, "is not a labeler's name"),
        ({"reference": "hf:y", "family": "trl"}, "does not use a reference model"),
        ({"prm": "openai:m"}, "needs its checkpoint"),
        ({"prm": "openai:m", "checkpoint": "lab"}, '"lab" is not a checkpoint'),
        ({"prm": "openai:m", "checkpoint": "hf:x", "mode": "medprm-compat"}, "not available on"),
        ({"prm": "openai:m", "reference": "hf:x"}, "no server can score them"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_model_is_loaded(
    given: dict[str, object], told: str
) -> None:
    with pytest.raises(InputError) as refusal:
        ScoreOptions(**{"dataset": "d", "prm": "hf:x", **given})  # type: ignore[arg-type]
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    "given",
    [
        {"base_url": "http://h"}, {"concurrency": 2}, {"allow_phi": True}, {"checkpoint": "hf:x"},
        {"route": "pooling"}, {"parity_sample": 3}, {"parity_limit": 0.5},
    ],
    ids=lambda given: next(iter(given)),
)  # fmt: skip
def test_options_of_a_server_are_refused_without_one(given: dict[str, object]) -> None:
    options = ScoreOptions(**{"dataset": "d", "prm": "hf:x", **given})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no effect without --prm openai:MODEL"):
        options.refuse_idle()
