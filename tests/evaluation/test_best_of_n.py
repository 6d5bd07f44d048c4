"""Best-of-N: the stated rules, brute force over all subsets, and the Math-Shepherd pool."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.best_of_n import (
    AGGREGATIONS,
    MEASURES,
    Pool,
    PoolCandidate,
    evaluate_best_of_n,
    expected,
    expected_best,
    first_n,
    log_product,
    majority,
    rewards,
    weighted_majority,
)
from traces.errors import InputError


def pool(*rows: tuple[str | None, bool, list[float] | None], id: str = "p") -> Pool:
    return Pool(
        id, tuple(PoolCandidate(a, right, None if s is None else tuple(s)) for a, right, s in rows)
    )


score = st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0])
candidate = st.builds(
    lambda answer, scores: (answer, answer == "A", scores),
    st.sampled_from(["A", "B", "C", None]),
    st.none() | st.lists(score, min_size=1, max_size=3),
)
pools = st.lists(candidate, min_size=1, max_size=6).map(lambda rows: pool(*rows))


def by_hand(one: Pool, subset: tuple[int, ...], name: str) -> float | None:
    """The chance of a right pick in one subset, ties shared."""
    chosen = [one.candidates[index] for index in subset]
    if name == "pass":
        return float(any(c.correct for c in chosen))
    if name == "mean_accuracy":
        return sum(c.correct for c in chosen) / len(chosen)
    if name in AGGREGATIONS:
        scored = [(AGGREGATIONS[name](c.step_scores), c.correct) for c in chosen if c.step_scores]
        if not scored:
            return None
        top = [right for value, right in scored if value == max(value for value, _ in scored)]
        return sum(top) / len(top)
    if name == "weighted_majority" and not any(c.step_scores for c in chosen):
        return None
    sums: dict[str, float] = defaultdict(float)
    for c in chosen:
        if c.answer is not None and (name == "majority" or c.step_scores):
            sums[c.answer] += 1 if name == "majority" else min(c.step_scores or (0,))
    if not sums:
        return 0.0
    winners = [answer for answer, total in sums.items() if total == max(sums.values())]
    return sum(answer == "A" for answer in winners) / len(winners)


@settings(max_examples=30, deadline=None)
@given(pools, st.integers(1, 6))
def test_the_expectation_is_the_mean_over_all_subsets(one: Pool, n: int) -> None:
    n = min(n, len(one.candidates))
    found = expected(one, n, subsets=300)
    for name in MEASURES:
        each = [
            by_hand(one, subset, name)
            for subset in itertools.combinations(range(len(one.candidates)), n)
        ]
        defined = [value for value in each if value is not None]
        value = found[name]
        if "majority" in name:
            # 300 drawn subsets: some of few possible ones may not be among them.
            assert (value is None) <= (len(defined) < len(each))
            if value is not None:
                mean = sum(defined) / len(defined)
                spread = (sum((d - mean) ** 2 for d in defined) / len(defined)) ** 0.5
                assert value == pytest.approx(mean, abs=5 * spread / 300**0.5 * 3 + 1e-9)
        elif defined:
            assert value == pytest.approx(sum(defined) / len(defined))
        else:
            assert value is None


@settings(max_examples=30, deadline=None)
@given(pools, st.integers(1, 6))
def test_the_first_n_and_the_first_winner_count(one: Pool, n: int) -> None:
    found = first_n(one, n)
    cut = one.candidates[:n]
    for name, aggregate in AGGREGATIONS.items():
        best: PoolCandidate | None = None
        for c in cut:
            if c.step_scores and (
                best is None or aggregate(c.step_scores) > aggregate(best.step_scores or ())
            ):
                best = c
        assert found[name] == (None if best is None else float(best.correct))
    said = [c.answer for c in cut if c.answer is not None]
    # Counter.most_common keeps the first seen first among equals, as the official scripts rely on.
    assert found["majority"] == (float(Counter(said).most_common(1)[0][0] == "A") if said else 0.0)
    assert found["pass"] == float(any(c.correct for c in cut))


def test_all_candidates_are_one_subset() -> None:
    one = pool(("A", True, [0.5]), ("B", False, [0.5]), (None, False, [0.1]))
    assert expected(one, 3)["min"] == 0.5
    assert expected(one, 3)["majority"] == 0.5
    assert first_n(one, 3)["min"] == 1.0


def test_a_large_pool_stays_exact() -> None:
    figures = [index / 1000 for index in range(1000)]
    correct = [index == 999 for index in range(1000)]
    # The best candidate is in a subset of 64 with chance 64 in 1,000.
    assert expected_best(figures, correct, 64) == pytest.approx(0.064, abs=1e-12)


def test_a_product_does_not_underflow() -> None:
    long = [0.5] * 3000
    assert math.prod(long) == 0.0
    assert log_product(long) > log_product([0.5] * 3001)
    assert log_product([0.5, 0.0]) < log_product([1e-300] * 50)
    one = pool(("B", False, [0.5] * 3001), ("A", True, long))
    assert first_n(one, 2)["product"] == 1.0
    assert rewards(pool(("A", True, [0.1, 0.7, 0.3]), ("A", True, [0.7, 0.3, 0.1])), "product")[0] == rewards(pool(("A", True, [0.3, 0.1, 0.7])), "product")[0]  # fmt: skip


def test_unscored_candidates_are_never_chosen_and_still_vote() -> None:
    one = pool(("A", True, None), ("A", True, None), ("B", False, [0.1]))
    found = first_n(one, 3)
    assert (found["min"], found["weighted_majority"], found["majority"]) == (0.0, 0.0, 1.0)
    none = first_n(one, 2)
    assert (none["min"], none["weighted_majority"], none["pass"]) == (None, None, 1.0)
    report = evaluate_best_of_n([one, pool(("A", True, [0.3]), id="q")], [1, 2, 3])
    assert (report.unscored, report.candidates) == (2, 4)
    assert (report.by_n[1].unscored_pools, report.by_n[1].accuracy["min"].value) == (1, 1.0)
    assert (report.by_n[2].short, report.by_n[2].pools) == (1, 1)
    assert report.by_n[2].accuracy["min"].value is None
    assert report.by_n[2].accuracy["majority"].value == 1.0
    assert "2 of 4 candidates have no scores" in report.table("prm")
    assert "N=2: 1 problems have fewer candidates" in report.table("prm")
    assert "N=1: 1 problems have no scored candidate" in report.table("prm")
    json.dumps(report.as_json(), allow_nan=False)


def test_who_gives_no_answer_has_no_vote() -> None:
    assert majority([None, None, "B"]) == "B"
    assert majority([]) is None
    assert weighted_majority(["A", "B"], [None, 0.0]) == "B"
    silent = pool((None, False, [0.9]), (None, False, [0.8]))
    found = first_n(silent, 2)
    assert (found["majority"], found["weighted_majority"], found["min"]) == (0.0, 0.0, 0.0)
    assert expected(silent, 1)["majority"] == 0.0


@pytest.mark.parametrize("over_subsets", [False, True])
def test_without_any_answer_there_is_no_majority(over_subsets: bool) -> None:
    """ProcessBench's traces have no final answers: that is no vote, not a lost one."""
    silent = pool((None, True, [0.9]), (None, False, [0.8]))
    report = evaluate_best_of_n([silent], [2], over_subsets=over_subsets)
    found = report.by_n[2].as_json()
    assert (found["majority"], found["weighted_majority"]) == (None, None)
    assert (found["ci95"]["majority"], found["min"], found["pass"]) == (None, 1.0, 1.0)
    assert "no candidate has an answer" in report.table("prm")
    other = pool(("A", True, [0.9]), ("B", False, [0.8]), id="other")
    both = evaluate_best_of_n([silent, other], [2], over_subsets=over_subsets).by_n[2]
    assert both.accuracy["weighted_majority"].value == 0.5, (
        "one answer anywhere, and silence is wrong"
    )


def test_answers_may_be_normalised() -> None:
    one = pool(("B", False, [0.9]), ("5.0", True, [0.2]), ("5", True, [0.1]))
    assert evaluate_best_of_n([one], [3]).by_n[3].accuracy["majority"].value == 0.0
    report = evaluate_best_of_n([one], [3], normalize=lambda answer: answer.removesuffix(".0"))
    assert report.by_n[3].accuracy["majority"].value == 1.0
    mixed = pool(("5", True, [0.2]), ("5.0", False, [0.2]))
    assert evaluate_best_of_n([mixed], [1]).disputed_answers == 0
    told = evaluate_best_of_n([mixed], [1], normalize=lambda answer: answer.removesuffix(".0"))
    assert told.disputed_answers == 1


def test_wrong_use_is_refused() -> None:
    with pytest.raises(InputError, match="N is 0"):
        evaluate_best_of_n([], [0])
    with pytest.raises(InputError, match="same problem id"):
        evaluate_best_of_n([pool(("A", True, [1.0]))] * 2, [1])


def test_nothing_is_null() -> None:
    report = evaluate_best_of_n([], [8])
    assert all(found.value is None for found in report.by_n[8].accuracy.values())
    json.dumps(report.as_json(), allow_nan=False)


def shepherd(folder: Path) -> list[Pool]:
    def rows(name: str) -> list[dict[str, object]]:
        with gzip.open(folder / "best_of_n" / name, "rt") as file:
            return [json.loads(line) for line in file]

    scored = {
        (row["problem_id"], row["candidate_index"]): row["step_scores"]
        for row in rows("math_shepherd_gsm8k.jsonl.gz")
    }
    groups: dict[str, list[PoolCandidate]] = defaultdict(list)
    for row in rows("candidates_gsm8k.jsonl.gz"):
        said = scored[row["problem_id"], row["candidate_index"]]
        groups[str(row["problem_id"])].append(
            PoolCandidate(row["answer"], bool(row["is_correct"]), tuple(said))  # type: ignore[arg-type]
        )
    return [Pool(id, tuple(found)) for id, found in groups.items()]


def test_the_math_shepherd_pool_has_its_published_figures(real_data: Path) -> None:
    held = shepherd(real_data)
    found = evaluate_best_of_n(held, [32], resamples=200).by_n[32].accuracy
    values = {name: estimated.value for name, estimated in found.items()}
    assert values["mean_accuracy"] == pytest.approx(0.8419, abs=5e-5)
    assert values["pass"] == pytest.approx(0.962, abs=1e-9)
    assert values["majority"] == pytest.approx(0.856, abs=1e-9)
    assert values["product"] == pytest.approx(0.850, abs=1e-9)
    assert values["min"] == pytest.approx(0.852, abs=1e-9)


@pytest.mark.slow
def test_the_expectation_over_the_pool_is_near_many_random_orders(real_data: Path) -> None:
    held = shepherd(real_data)
    exact = evaluate_best_of_n(held, [8], over_subsets=True, resamples=10).by_n[8].accuracy
    draw, sums = random.Random(0), dict.fromkeys(MEASURES, 0.0)
    rounds = 40
    for _ in range(rounds):
        shuffled = [Pool(one.problem_id, tuple(draw.sample(one.candidates, 8))) for one in held]
        for name, found in evaluate_best_of_n(shuffled, [8], resamples=5).by_n[8].accuracy.items():
            assert found.value is not None
            sums[name] += found.value
    for name in MEASURES:
        assert sums[name] / rounds == pytest.approx(exact[name].value, abs=0.006), name


def test_majorities_over_few_subsets_are_exact() -> None:
    """Against every subset, voted on one by one: 35 subsets are fewer than are drawn otherwise."""
    answers = ["a", "b", "b", "a", "c", "b", None]
    seven = pool(*((answer, answer == "a", [0.5]) for answer in answers))
    shares = []
    for chosen in itertools.combinations(answers, 3):
        votes = Counter(answer for answer in chosen if answer is not None)
        best = [answer for answer, count in votes.items() if count == max(votes.values())]
        shares.append(("a" in best) / len(best))
    for seed in (0, 1):
        assert expected(seven, 3, seed)["majority"] == pytest.approx(sum(shares) / 35)
