"""Filters and selection through `consensus` and `export`: what is stored, written and counted."""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import Store
from traces import AbstentionReason

Cli = Callable[..., Any]
ON = ("--dataset", "d")
N = 40


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def truth(n: int) -> int | None:
    return None if n % 4 else n % 3


def row(n: int) -> dict[str, Any]:
    """A trace with a judge, and an MC labeler that disagrees on every tenth."""
    steps = ["add 1 and 2", f"then multiply by {n}", f"the total is {n * 3}"]
    steps = ["the same text", "as in others", "word for word"] if n % 8 == 1 else steps
    first = truth(n)
    wins = [0 if first is not None and k >= first else 4 for k in range(3)]
    measured = [0, 0, 0] if n % 10 == 3 else wins
    return {
        "id": f"t{n}",
        "problem": f"q{n % 5}",
        "answer": "1",
        "steps": steps,
        "final_answer": "1" if n % 2 else "2",
        "final_answer_correct": bool(n % 2),
        "subset": "x" if n < 20 else "y",
        "labels": {
            "judge": {
                "kind": "judge",
                "verdicts": [-1 if first == k else 1 for k in range(3)],
                "details": [{"reasoning": f"because {k}"} for k in range(3)],
            },
            "mc": {
                "kind": "mc",
                "verdicts": [1 if one else -1 for one in measured],
                "scores": [one / 4 for one in measured],
                "details": [{"successes": one, "continuations": 4} for one in measured],
            },
        },
    }


FILTERS = ("--near-duplicates", "0.9", "--balance", "1", "--max-correct-per-problem", "3")


@pytest.fixture
def ready(cli: Cli, tmp_path: Path) -> Cli:
    rows = [row(n) for n in range(N)]
    random.Random(4).shuffle(rows)
    assert cli("import", "traces", write(tmp_path / "t.jsonl", rows), *ON).code == 0
    return cli


def consensus(cli: Cli, *more: str) -> Any:
    return cli("consensus", *ON, "--judge", "judge", "--mc", "mc", *more, "--json").document


def stored(tmp_path: Path, name: str = "consensus") -> dict[str, Any]:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}", create=False) as store:
        return store.labels.load("d", name)


def exported(cli: Cli, out: Path, labeler: str, *more: str) -> tuple[Any, set[str]]:
    called = cli("export", "traces", out, *ON, "--labeler", labeler, *more, "--json")
    assert called.code == 0, called.err
    return called.document, {json.loads(line)["id"] for line in out.read_text().splitlines()}


def test_consensus_stores_what_each_filter_removed(ready: Cli, tmp_path: Path) -> None:
    document = consensus(ready, *FILTERS)
    counts = document["filters"]
    labels = stored(tmp_path)
    removed = defaultdict(list)
    for label in labels.values():
        if label.abstention and label.abstention.reason is AbstentionReason.FILTERED:
            assert label.abstention.detail
            removed[label.meta["filter"]].append(label.trace_id)
    assert {name: len(ids) for name, ids in removed.items()} == counts["removed"]
    assert set(counts["removed"]) == {"near-duplicates", "balance", "max-correct-per-problem"}
    assert counts["kept"] == document["done"]
    assert counts["labeled"] == N - document["abstained"]["disagreement"]
    assert counts["labeled"] == counts["kept"] + sum(counts["removed"].values())
    again = consensus(ready, *FILTERS)
    assert (again["unchanged"], again["filters"]) == (N, counts)
    assert (
        "near-duplicates" in ready("consensus", *ON, "--judge", "judge", "--mc", "mc", *FILTERS).out
    )


def test_a_pilot_decides_as_the_whole_run_does(ready: Cli, tmp_path: Path) -> None:
    consensus(ready, *FILTERS, "--name", "whole")
    consensus(ready, *FILTERS, "--limit", "10")
    whole, pilot = stored(tmp_path, "whole"), stored(tmp_path)
    assert len(pilot) == 10
    assert pilot == {id: whole[id] for id in pilot}


def test_filters_work_on_posteriors_too(ready: Cli, tmp_path: Path) -> None:
    bayes = ("consensus", *ON, "--labelers", "judge,mc", "--rule", "bayes", "--anchor", "judge")
    document = ready(*bayes, "--balance", "1", "--json").document
    kept = [label for label in stored(tmp_path).values() if label.abstention is None]
    wrong = sum(label.first_error_index is not None for label in kept)
    assert (document["done"], wrong) == (len(kept), len(kept) // 2)
    assert document["filters"]["removed"] == {"balance": document["filters"]["labeled"] - len(kept)}


def test_a_run_in_memory_refuses_filters_that_compare() -> None:
    import stepgold
    from labeling import ConsensusConfig
    from traces import InputError, Problem, Trace

    rule = ConsensusConfig(balance=1.0)
    problem, trace = Problem("p", "What is 1 + 1?", answer="2"), Trace("t", "p", ("2",))
    found = stepgold.label([trace], [problem], judge="lab", policy="lab", consensus=rule)
    with pytest.raises(InputError, match="compares traces with each other"):
        next(iter(found))


def test_another_seed_is_another_labeler(ready: Cli) -> None:
    consensus(ready, *FILTERS)
    called = ready("consensus", *ON, "--judge", "judge", "--mc", "mc", *FILTERS, "--seed", "1")
    assert called.code == 2
    assert "--replace" in called.err


def test_a_seed_without_a_sample_is_refused(ready: Cli, tmp_path: Path) -> None:
    called = ready("consensus", *ON, "--judge", "judge", "--mc", "mc", "--seed", "1")
    assert (called.code, "--seed has no effect" in called.err) == (2, True)
    out = tmp_path / "o.jsonl"
    assert exported(ready, out, "judge", "--select", "random:3", "--seed", "1")[0]["done"] == 3


def test_the_same_filters_on_export(ready: Cli, tmp_path: Path) -> None:
    consensus(ready, "--name", "plain")
    consensus(ready, *FILTERS)
    document, ids = exported(ready, tmp_path / "o.jsonl", "plain", *FILTERS)
    assert ids == {id for id, label in stored(tmp_path).items() if label.abstention is None}
    filtered = [one["filter"] for one in document["filtered"]]
    counts = document["filters"]
    assert {name: filtered.count(name) for name in filtered} == counts["removed"]
    assert counts["labeled"] == len(filtered) + document["done"]
    assert document["abstained"]["filtered"] == len(filtered)


def test_selection_adds_up_in_words(ready: Cli, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    called = ready("export", "traces", out, *ON, "--labeler", "mc", "--select", "bis:0.15")
    assert called.code == 0
    assert "select       34     6" in called.out
    ids = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    # Mixed counts that are reliable where they are right: an error after right steps.
    assert ids == [id for id in ids if truth(int(id[1:])) in (1, 2)]


def test_bis_ranks_a_consensus_by_the_counts_of_its_mc(ready: Cli, tmp_path: Path) -> None:
    consensus(ready)
    _, of_consensus = exported(ready, tmp_path / "a", "consensus", "--select", "bis:0.2")
    assert of_consensus
    called = ready(
        "export", "traces", tmp_path / "b", *ON, "--labeler", "judge", "--select", "bis:3"
    )
    assert (called.code, "bis needs Monte Carlo labels" in called.err) == (2, True)


def test_soft_labels_are_written_and_read_back(ready: Cli, tmp_path: Path) -> None:
    consensus(ready)
    out = tmp_path / "o.jsonl"
    document, ids = exported(ready, out, "consensus", "--soft", "beta")
    assert document["done"] == len(ids) > 0
    for line in map(json.loads, out.read_text().splitlines()):
        label = line["labels"]["consensus"]
        first = truth(int(line["id"][1:]))
        whole = [5 / 6 if first is None or k < first else 1 / 6 for k in range(3)]
        said = 3 if first is None else first + 1
        assert label["scores"] == pytest.approx([*whole[:said], *[None] * (3 - said)])
        assert "verdicts" not in label
    trained = tmp_path / "q.jsonl"
    called = ready(
        "export", "openrlhf", trained, *ON, "--labeler", "consensus", "--soft", "beta", "--json"
    )
    assert called.document["done"] == len(ids)


def test_a_selection_has_its_number_of_soft_labels(cli: Cli, tmp_path: Path) -> None:
    """A trace without counts is left out before the selection, and takes no place in it."""
    rows = [row(n) for n in range(N)]
    for number, each in enumerate(rows):
        if number % 4:
            del each["labels"]["mc"]["details"]
    assert cli("import", "traces", write(tmp_path / "t.jsonl", rows), *ON).code == 0
    out = tmp_path / "soft.jsonl"
    document, ids = exported(cli, out, "mc", "--soft", "beta", "--select", "random:5")
    assert len(ids) == 5
    removed = document["filters"]["removed"]
    assert list(removed) == ["soft", "select"]
    assert 5 + sum(removed.values()) == document["filters"]["labeled"]


def test_a_selection_that_cannot_be_read(ready: Cli, tmp_path: Path) -> None:
    called = ready("export", "traces", tmp_path / "o", *ON, "--labeler", "mc", "--select", "best:3")
    assert called.code == 2
    assert "not a selection" in called.err


# Med-PRM's filter on real candidates -------------------------------------------------------------


def as_med_prm(folder: Path, problems: int) -> list[dict[str, Any]]:
    """Math-Shepherd's scores of GSM8K candidates as Med-PRM's training file: 0 below 0.5."""
    with gzip.open(folder / "best_of_n" / "math_shepherd_gsm8k.jsonl.gz", "rt") as lines:
        questions: dict[str, dict[str, Any]] = {}
        for one in map(json.loads, lines):
            name = one["problem_id"]
            if name not in questions and len(questions) == problems:
                break
            question = questions.setdefault(
                name, {"question_id": name, "question": f"What is {name}?", "solutions": []}
            )
            labels = [int(score >= 0.5) for score in one["step_scores"]]
            text = "".join(f"Step {k}: {k} of {len(labels)} ки " for k, _ in enumerate(labels, 1))
            question["solutions"].append(
                {
                    "prm_processed_solution": text.strip(),
                    "orm_label": int(one["is_correct"]),
                    "prm_hard_label": labels,
                }
            )
    return list(questions.values())


def published(questions: list[dict[str, Any]]) -> set[str]:
    """The filter of python/2_training.py and the step count of its sampling script, transcribed."""
    chosen = set()
    for question in questions:
        wrong, right = [], []
        for index, solution in enumerate(question["solutions"]):
            if not 2 < solution["prm_processed_solution"].count("ки") < 10:
                continue
            id = f"{question['question_id']}:{index}"
            if solution.get("orm_label", 0) == 1:
                right.append(id)
            elif 0 in solution["prm_hard_label"]:
                wrong.append(id)
        chosen |= {*wrong, *right[: max(len(wrong), 2)]}
    return chosen


@pytest.mark.slow
def test_med_prm_filter_on_real_candidates(cli: Cli, tmp_path: Path, real_data: Path) -> None:
    questions = as_med_prm(real_data, 100)
    file = tmp_path / "m.json"
    file.write_text(json.dumps(questions))
    assert cli("import", "medprm", file, *ON).code == 0
    document, ids = exported(cli, tmp_path / "o.jsonl", "prm_hard_label", "--filters", "med-prm")
    assert ids == published(questions)
    assert 0 < len(ids) < document["filters"]["labeled"]
    assert document["filters"]["labeled"] == sum(len(one["solutions"]) for one in questions)
