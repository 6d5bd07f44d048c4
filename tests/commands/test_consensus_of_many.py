"""`consensus --labelers`: majority and bayes over any labelers, with anchors and warnings."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import Store

Cli = Callable[..., Any]
ON = ("--dataset", "d")
N = 120
STEPS = 5


def truth(n: int) -> int | None:
    return None if n % 3 == 0 else n % STEPS


def said(rng: random.Random, n: int, right: float) -> int | None:
    if rng.random() < right:
        return truth(n)
    wrong: int | None = rng.choice([None, *range(STEPS)])
    return wrong


def rows(name: str, right: float) -> list[dict[str, Any]]:
    rng = random.Random(name)
    return [{"id": f"t{n}", "first_error": said(rng, n, right)} for n in range(N)]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def many(cli: Cli, tmp_path: Path) -> Cli:
    """120 traces with gold on every sixth, and the labelers a, b, c and prm."""
    traces = [
        {
            "id": f"t{n}",
            "problem": f"q{n}",
            "steps": [f"s{k}" for k in range(STEPS)],
            "subset": "x" if n % 2 else "y",
        }
        | ({"labels": {"gold": {"kind": "gold", "first_error": truth(n)}}} if n % 6 == 0 else {})
        for n in range(N)
    ]
    file = write(tmp_path / "t.jsonl", traces)
    assert cli("import", "traces", file, *ON).code == 0
    # The order of the file is then not that in which the traces were stored.
    write(file, traces[::-1])
    assert cli("import", "traces", file, *ON, "--replace").code == 0
    for name, right in (("a", 0.9), ("b", 0.8), ("c", 0.7)):
        file = write(tmp_path / f"{name}.jsonl", rows(name, right))
        assert cli("import", "scores", file, *ON, "--labeler", name).code == 0
    rng = random.Random("prm")
    scores = [
        [
            rng.uniform(0.4, 1) if (first := truth(n)) is None or k < first else rng.uniform(0, 0.6)
            for k in range(STEPS)
        ]
        for n in range(N)
    ]
    lines = [{"id": f"t{n}", "scores": each} for n, each in enumerate(scores)]
    assert (
        cli("import", "scores", write(tmp_path / "p.jsonl", lines), *ON, "--labeler", "prm").code
        == 0
    )
    return cli


def stored(tmp_path: Path, name: str) -> dict[str, Any]:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}", create=False) as store:
        return dict(store.labels.load("d", name))


def test_bayes_labels_every_trace_and_keeps_its_estimate(many: Cli, tmp_path: Path) -> None:
    ran = many("consensus", *ON, "--labelers", "a,b,c,prm", "--rule", "bayes",
               "--min-posterior", "0", "--json")  # fmt: skip
    assert (ran.code, ran.document["done"]) == (0, N)
    fit = ran.document["fit"]
    assert fit["identified"]
    assert set(fit["confusions"]) == {"x", "y"}
    assert set(fit["confusions"]["x"]["a"]) == {
        "false_alarm", "missed", "early", "late", "early_next", "late_next",
    }  # fmt: skip
    labels = stored(tmp_path, "consensus")
    right = sum(labels[f"t{n}"].first_error_index == truth(n) for n in range(N))
    alone = sum(line["first_error"] == truth(n) for n, line in enumerate(rows("a", 0.9)))
    assert right >= alone
    label = labels["t1"]
    assert sum(label.meta["posterior"]) == pytest.approx(1, abs=1e-5)
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}", create=False) as store:
        config = store.labels.labeler("d", "consensus").config
    assert [each["labeler"] for each in config["labelers"]] == ["a", "b", "c", "prm"]
    again = many("consensus", *ON, "--labelers", "a,b,c,prm", "--rule", "bayes",
                 "--min-posterior", "0", "--json")  # fmt: skip
    assert (again.code, again.document["unchanged"]) == (0, N)
    assert again.document["analysis"] == ran.document["analysis"]


def test_what_is_uncertain_abstains_and_is_no_failure(many: Cli) -> None:
    ran = many("consensus", *ON, "--labelers", "b,c,prm", "--rule", "bayes",
               "--min-posterior", "0.99", "--json")  # fmt: skip
    assert ran.code == 0
    assert ran.document["abstained"]["uncertain"] > 0
    assert ran.document["done"] + ran.document["abstained"]["uncertain"] == N


def test_two_labelers_without_an_anchor_are_warned_about(many: Cli, tmp_path: Path) -> None:
    bayes = ("consensus", *ON, "--labelers", "a,c", "--rule", "bayes", "--min-posterior", "0")
    alone = many(*bayes)
    assert (alone.code, "--anchor" in alone.err) == (0, True)
    anchored = many(*bayes, "--anchor", "gold", "--name", "anchored")
    assert (anchored.code, "--anchor" in anchored.err) == (0, False)
    labels = stored(tmp_path, "anchored")
    for n in range(0, N, 6):
        assert labels[f"t{n}"].first_error_index == truth(n)


def test_majority(many: Cli, tmp_path: Path) -> None:
    ran = many("consensus", *ON, "--labelers", "a,b,c", "--rule", "majority", "--json")
    assert ran.code == 0
    assert ran.document["done"] + ran.document["abstained"]["disagreement"] == N
    by_name = {name: [line["first_error"] for line in rows(name, p)]
               for name, p in (("a", 0.9), ("b", 0.8), ("c", 0.7))}  # fmt: skip
    for trace, label in stored(tmp_path, "consensus").items():
        votes = [by_name[name][int(trace[1:])] for name in "abc"]
        if label.abstention is None:
            assert votes.count(label.first_error_index) >= 2
        else:
            assert len(set(votes)) == 3


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (("--labelers", "a"), "--labelers A,B,C"),
        (("--labelers", "a,a"), "different labelers"),
        (("--labelers", "a,b", "--judge", "a", "--mc", "b"), "--labelers A,B,C"),
        (("--judge", "a"), "--mc NAME"),
        ((), "--labelers A,B,C"),
        (("--labelers", "a,b", "--rule", "hybrid"), "--judge and --mc"),
        (("--labelers", "a,b", "--name", "b"), "another --name"),
        (("--labelers", "a,zz"), "known:"),
        (("--labelers", "a,b", "--anchor", "gold"), "--rule bayes"),
        (("--labelers", "a,b", "--min-posterior", "0.5"), "--rule bayes"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    many: Cli, options: tuple[str, ...], remedy: str
) -> None:
    ran = many("consensus", *ON, *options)
    assert (ran.code, remedy in ran.err) == (2, True), ran.err


@pytest.mark.slow
def test_an_expert_decides_the_traces_that_bayes_leaves_uncertain(
    many: Cli, tmp_path: Path
) -> None:
    how = ("--labelers", "a,b,c", "--rule", "bayes", "--min-posterior", "0.95", "--json")
    before = many("consensus", *ON, *how, "--name", "alone").document
    answers = [{"id": f"t{n}", "verdicts": [1] * STEPS} for n in range(N)]
    file = write(tmp_path / "e.jsonl", answers)
    many("import", "scores", file, *ON, "--labeler", "dr-a", "--kind", "expert")
    after = many("consensus", *ON, *how, "--expert", "dr-a", "--name", "final").document
    assert before["abstained"]["uncertain"] > 5
    assert (after["done"], after["abstained"]) == (N, {})
    alone, final = stored(tmp_path, "alone"), stored(tmp_path, "final")
    steps = after["steps"]
    assert steps["total"] == steps["confident"] + steps["uncertain"] == N * STEPS
    assert steps["expert_verified"] == steps["uncertain"]
    for id, label in alone.items():
        decided = final[id]
        if label.abstention is None:
            assert decided.first_error_index == label.first_error_index
            open_steps = [t for t, step in enumerate(label.step_labels) if step.verdict is None]
            assert decided.meta.get("expert_verified_steps", []) == open_steps
        else:
            assert decided.meta["expert_verified_steps"] == list(range(STEPS))
            assert decided.meta["posterior"] == label.meta["posterior"]
    called = many("consensus", *ON, "--labelers", "a,b", "--expert", "dr-a", "--name", "no")
    assert (called.code, "--rule hybrid or --rule bayes" in called.err) == (2, True)
