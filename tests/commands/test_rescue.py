"""The output of Med-PRM's scoring script: imported, its skipped solutions scored, read as it does."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from storage import Store
from tests.commands.conftest import Cli
from tests.commands.tiny_prm import save_prm
from traces import AbstentionReason, TraceLabel

QUESTIONS, SOLUTIONS = 50, 16
SCRIPT_LIKE = ("--family", "medprm", "--mode", "medprm-compat", "--packing", "medprm-compat")
ROUNDED = 0.02
"""The script reads logits in bfloat16: in another batch they may round to a neighboring value."""
Question = dict[str, Any]


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("prm")
    return f"hf:{save_prm(folder, max_position_embeddings=8192)}"


def questions(count: int, solutions: int, seed: int = 0) -> list[Question]:
    """As sampling writes them, without scores; some solutions have no answer."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        rows = []
        for index in range(solutions):
            answer = rng.choice(["A", "A", "B", "C", None])
            dose = rng.randint(1, 99)
            words = "".join(rng.choices("abcdefghijkmnopqrstuvwxyz ", k=40))
            steps = [f"Step {i + 1}: give {dose + i} mg {words}" for i in range(rng.randint(1, 5))]
            rows.append(
                {
                    "solution": f"{number}.{index}",
                    "prm_processed_solution": " ".join(f"{step} ки" for step in steps),
                    "answer": answer,
                    "score": int(answer == "ABC"[number % 3]),
                }
            )
        found.append(
            {
                "question_id": f"q{number}",
                "data_source": "med_qa",
                "question": f"Which dose for patient {number}?",
                "correct_answer": "ABC"[number % 3],
                "related_docs": [f"Document on patient {number}: the cap is 50 mg."],
                "solutions": rows,
            }
        )
    return found


def scored(rows: list[Question], labels: dict[str, TraceLabel]) -> list[Question]:
    """As the script writes them after a run that skipped nothing."""
    found = json.loads(json.dumps(rows))
    for question in found:
        for index, solution in enumerate(question["solutions"]):
            label = labels[f"{question['question_id']}:{index}"]
            scores = [step.score for step in label.step_labels if step.score is not None]
            solution["PRM_score_list"] = scores
            solution["PRM_min_score"], solution["PRM_score"] = min(scores), scores[-1]
    return found  # type: ignore[no-any-return]


def answered(rows: list[Question], seed: int = 2) -> list[Question]:
    """The same with answers that do not depend on how near ties are rounded.

    The solutions above the highest wide gap of a question's minima are right, in every fifth question
    those below.
    """
    rng = random.Random(seed)
    for number, question in enumerate(rows):
        lowest = sorted(one["PRM_min_score"] for one in question["solutions"])
        gaps = [low for low, high in pairwise(lowest) if high - low > ROUNDED]
        assert gaps
        at = max(gaps)
        wrong: list[str | None] = [
            None,
            None,
            *sorted({"A", "B", "C"} - {question["correct_answer"]}),
        ]
        for one in question["solutions"]:
            one["score"] = int((one["PRM_min_score"] > at) == (number % 5 > 0))
            one["answer"] = question["correct_answer"] if one["score"] else rng.choice(wrong)
    return rows


def interrupted(rows: list[Question], share: float = 0.2) -> tuple[list[Question], set[str]]:
    """The same with this share of all solutions skipped, and the ids of these."""
    found = json.loads(json.dumps(rows))
    everyone = [(q, s) for q in range(len(rows)) for s in range(len(rows[q]["solutions"]))]
    skipped = random.Random(1).sample(everyone, round(share * len(everyone)))
    for question, index in skipped:
        solution = found[question]["solutions"][index]
        solution["PRM_min_score"] = solution["PRM_score"] = float("-inf")
        solution["PRM_score_list"] = []
    return found, {f"{found[question]['question_id']}:{index}" for question, index in skipped}


def script_accuracy(rows: list[Question], n: int) -> tuple[float, float]:
    """Best-of-N and majority as the published script counts them."""
    best = vote = 0
    for question in rows:
        first = question["solutions"][:n]
        valid = [one for one in first if one["PRM_min_score"] != float("-inf")]
        if valid:
            top = max(one["PRM_min_score"] for one in valid)
            chosen = next(one for one in valid if one["PRM_min_score"] == top)
            best += chosen["score"] == 1
        winner, _ = Counter(one["answer"] for one in first).most_common(1)[0]
        vote += any(one["score"] == 1 for one in first if one["answer"] == winner)
    return best / len(rows), vote / len(rows)


def stored(folder: Path, dataset: str) -> dict[str, TraceLabel]:
    with Store.open(f"sqlite:///{folder / 'w' / 'stepgold.db'}") as store:
        return store.labels.load(dataset, "prm")


def write(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows, indent=4, ensure_ascii=False))
    return path


def published(cli: Cli, dataset: str, when: str, n: int) -> tuple[float, float]:
    done = cli("best-of-n", "--dataset", dataset, "--labeler", "prm", "-n", f"{n}", "--as-published", "--resamples", "10", "--json")  # fmt: skip
    assert done.code == 0
    found = done.document["as_published"][when][str(n)]
    return found["best_of_n"], found["majority"]


@pytest.mark.slow
def test_a_run_with_a_fifth_skipped_is_rescued(cli: Cli, prm: str, tmp_path: Path) -> None:
    plain = questions(QUESTIONS, SOLUTIONS)
    cli("import", "medprm", write(tmp_path / "plain.json", plain), "--dataset", "undisturbed")
    done = cli("score", "--dataset", "undisturbed", "--prm", prm, *SCRIPT_LIKE, "--max-tokens", "5000")  # fmt: skip
    assert done.code == 0
    full = answered(scored(plain, stored(tmp_path, "undisturbed")))
    broken, skipped = interrupted(full)
    assert len(skipped) == 160

    file = write(tmp_path / "scored.json", broken)
    assert "-Infinity" in file.read_text()
    done = cli("import", "medprm", file, "--dataset", "d", "--prm", prm, "--json")
    assert (done.code, done.document["rejected"]) == (0, [])
    labels = stored(tmp_path, "d")
    assert {id for id, label in labels.items() if label.abstention is not None} == skipped
    assert any(script_accuracy(broken, n) != script_accuracy(full, n) for n in (4, SOLUTIONS))
    for n in (4, SOLUTIONS):
        assert published(cli, "d", "now", n) == pytest.approx(script_accuracy(broken, n))

    plan = cli(
        "plan", "--dataset", "d", "--prm", prm, "--prm-max-tokens", "5000", "--json"
    ).document
    assert "stages" in plan, plan
    over = next(one for one in plan["stages"] if one["stage"] == "score")["over_length"]
    assert (over["labeler"], over["traces"], over["tokens"].keys()) == ("prm", 160, skipped)
    at = next(one for one in over["limits"] if one["max_tokens"] == 5000)
    assert at["whole"] + at["shortened"] == 160

    done = cli("retry", "--dataset", "d", "--labeler", "prm", "--max-tokens", "5000", "--json")
    assert (done.code, done.document["done"]) == (0, 160)
    after = stored(tmp_path, "d")
    assert {id for id in after if after[id] != labels[id]} == skipped
    for id, label in stored(tmp_path, "undisturbed").items():
        assert [step.score for step in after[id].step_labels] == pytest.approx(
            [step.score for step in label.step_labels], abs=ROUNDED
        )
    for n in (4, SOLUTIONS):
        assert published(cli, "d", "before", n) == pytest.approx(script_accuracy(broken, n))
        assert published(cli, "d", "now", n) == pytest.approx(script_accuracy(full, n))
    told = cli("best-of-n", "--dataset", "d", "--labeler", "prm", "-n", "16", "--as-published").out
    assert "N=16, before the retry" in told
    assert "N=16, now" in told


@pytest.mark.slow
def test_the_checkpoint_has_to_be_named_and_to_repeat_the_scores(
    cli: Cli, prm: str, tmp_path: Path
) -> None:
    plain = questions(2, 3)
    full = json.loads(json.dumps(plain))
    for solution in (one for question in full for one in question["solutions"]):
        scores = [0.0] * solution["prm_processed_solution"].count(" ки")
        solution |= {"PRM_score_list": scores, "PRM_min_score": 0.0, "PRM_score": 0.0}
    broken, skipped = interrupted(full, 0.4)
    file = write(tmp_path / "scored.json", broken)
    cli("import", "medprm", file, "--dataset", "d")
    again = ("retry", "--dataset", "d", "--labeler", "prm", "--max-tokens", "5000")
    done = cli(*again)
    assert done.code == 2
    assert "does not say which checkpoint" in done.err
    assert "stepgold retry --dataset d --labeler prm --prm hf:PATH" in done.err
    done = cli(*again, "--prm", prm)
    assert done.code == 2
    assert "does not reproduce the imported scores" in done.err
    labels = stored(tmp_path, "d")
    assert {id for id, label in labels.items() if label.abstention is not None} == skipped


def test_what_the_script_wrote_is_stored_as_it_is(cli: Cli, tmp_path: Path) -> None:
    plain = questions(1, 4)
    rows = plain[0]["solutions"]
    n = [row["prm_processed_solution"].count(" ки") for row in rows]
    rows[0] |= {"PRM_score_list": [0.5] * n[0], "PRM_min_score": 0.5, "PRM_score": 0.5}
    rows[1] |= {"PRM_score_list": [0.5] * (n[1] + 1), "PRM_min_score": 0.25, "PRM_score": 0.5}
    rows[2] |= {"PRM_score_list": [0.5] * n[2], "PRM_min_score": 0.125, "PRM_score": 0.5}
    rows[3]["score"] = "None"
    done = cli("import", "medprm", write(tmp_path / "s.json", plain), "--dataset", "d", "--json")
    assert (done.code, len(done.document["notes"])) == (1, 1)
    assert "PRM_score_list" in done.document["notes"][0]["reason"]
    labels = stored(tmp_path, "d")
    assert [step.score for step in labels["q0:0"].step_labels] == [0.5] * n[0]
    assert labels["q0:0"].meta == {}
    reasons = [labels[f"q0:{i}"].abstention for i in (1, 3)]
    assert [one and one.reason for one in reasons] == [
        AbstentionReason.UNREADABLE,
        AbstentionReason.OVER_LENGTH,
    ]
    # The script chooses by its own minimum, which may come from a marker inside a document.
    assert labels["q0:1"].meta == {"PRM_min_score": 0.25}
    assert labels["q0:2"].meta == {"PRM_min_score": 0.125}


def test_a_prm_belongs_to_a_scored_file_only(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "import", "processbench", write(tmp_path / "x.json", []), "--dataset", "d", "--prm", "hf:x"
    )
    assert done.code == 2
    assert "Format processbench has no option --prm" in done.err
    file = write(tmp_path / "s.json", questions(1, 1))
    done = cli("import", "medprm", file, "--dataset", "d", "--prm", "gemini:x")
    assert done.code == 2
    assert "is not a checkpoint" in done.err


def test_minus_infinity_is_a_fault_elsewhere(cli: Cli, tmp_path: Path) -> None:
    rows = questions(2, 1)
    rows[0]["solutions"][0]["prm_soft_label"] = [float("-inf")]
    done = cli("import", "medprm", write(tmp_path / "s.json", rows), "--dataset", "d", "--json")
    assert done.code == 1
    assert "-Infinity, which is not a JSON number" in done.document["rejected"][0]["reason"]
