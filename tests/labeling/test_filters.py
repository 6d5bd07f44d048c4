"""What the filters and selections keep, whatever order the traces come in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling import (
    FilterCounts,
    Filtered,
    QualityFilters,
    Selection,
    TraceFilters,
    balanced_information,
    beta_label,
)
from traces import (
    InputError,
    Problem,
    StepLabel,
    Trace,
    TraceInContext,
    TraceLabel,
    Verdict,
)

Pair = tuple[TraceInContext, TraceLabel]


def trace(
    id: str = "t",
    steps: Sequence[str] = ("one apple", "two pears", "The answer is 3."),
    *,
    problem: str = "p",
    error: int | None = None,
    right: bool | None = None,
    subset: str = "default",
    scores: Sequence[int] | None = None,
) -> Pair:
    """A trace with a stated first error, or with Monte Carlo counts of 8 continuations."""
    context = TraceInContext(
        Problem(problem, f"What is {problem}?"),
        Trace(id, problem, tuple(steps), subset, final_answer_correct=right),
    )
    if scores is None:
        return context, TraceLabel(id, first_error_given=True, first_error_index=error)
    counted = (
        StepLabel(
            Verdict.CORRECT if wins else Verdict.INCORRECT,
            wins / 8,
            successes=wins,
            continuations=8,
        )
        for wins in scores
    )
    return context, TraceLabel(id, tuple(counted))


def pool(count: int = 60, seed: int = 0) -> list[Pair]:
    """Traces of a dozen problems, a third with an error, with counts."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        wins = [rng.choice([0, 1, 4, 8, 8, 8]) for _ in range(rng.randint(2, 6))]
        steps = (
            [f"word{n} again" for n in range(len(wins))]
            if number % 5 == 0
            else [f"step about {rng.randint(0, 999)} and {rng.randint(0, 999)}" for _ in wins]
        )
        made.append(
            trace(
                f"t{number}",
                steps,
                problem=f"p{number % 12}",
                right=rng.random() < 0.5,
                subset=rng.choice(["a", "b"]),
                scores=wins,
            )
        )
    return made


def kept(
    pairs: Sequence[Pair], selection: Selection | None = None, **filters: Any
) -> dict[str, Filtered | None]:
    """By trace, why it is not kept."""
    found = TraceFilters(QualityFilters(**filters), selection)
    for context, label in pairs:
        found.see(context, label, (label,), measured=label)
    return {pair[0].trace.id: found.reason(*pair, (pair[1],)) for pair in pairs}


def names(reasons: dict[str, Filtered | None]) -> set[str]:
    return {id for id, why in reasons.items() if why is None}


LONG = " ".join(f"word{n}" for n in range(60))


@pytest.mark.parametrize(
    ("filters", "steps", "detail"),
    [
        ({"min_characters": 9}, ["12345678"], "8 characters, fewer than 9"),
        ({"min_characters": 8}, ["12345678"], None),
        ({"max_characters": 17}, ["12345678"], "18 characters, more than 17"),
        ({"max_characters": 18}, ["12345678"], None),
        ({"drop_degenerate": True}, ["a", " ", "The answer is 2."], "step 2 is empty"),
        ({"drop_degenerate": True}, ["Step 1: go", "Step 2: Go"], "step 2 repeats step 1"),
        (
            {"drop_degenerate": True},
            ["What  is p?", "It is 2."],
            "step 1 is a copy of the question",
        ),
        ({"drop_degenerate": True}, ["so we add", "and stop"], "it names no final answer"),
        ({"drop_degenerate": True}, ["so we add", "The answer is 2."], None),
    ],
)
def test_filters_on_one_trace(
    filters: dict[str, Any], steps: list[str], detail: str | None
) -> None:
    why = kept([trace(steps=steps)], **filters)["t"]
    assert (why and why.detail) == detail


COMPARING: list[dict[str, Any]] = [
    {"balance": 1.0},
    {"balance": 1.1},
    {"max_correct_per_problem": 1},
    {"near_duplicates": 0.3},
    {"filters": "med-prm"},
    {"min_steps": 3, "near_duplicates": 0.5, "max_correct_per_problem": 2, "balance": 1.0},
    {"selection": Selection("random", 0.3, None)},
    {"selection": Selection("bis", 0.3, None), "balance": 2.0},
    {"selection": Selection("uncertain", None, 7)},
]


@pytest.mark.parametrize("filters", COMPARING)
def test_order_does_not_matter(filters: dict[str, Any]) -> None:
    pairs = pool()
    reasons = kept(pairs, **filters)
    assert 0 < len(names(reasons)) < len(pairs)
    for seed in range(3):
        assert kept(random.Random(seed).sample(pairs, len(pairs)), **filters) == reasons


@pytest.mark.parametrize(
    "filters",
    [{"balance": 1.0}, {"max_correct_per_problem": 1}, {"selection": Selection("random", None, 9)}],
)
def test_the_seed_draws_another_sample_of_the_same_size(filters: dict[str, Any]) -> None:
    pairs = pool()
    first, again, other = (names(kept(pairs, seed=seed, **filters)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len(first) == len(other)


def has_error(pair: Pair) -> bool:
    return any(step.verdict is Verdict.INCORRECT for step in pair[1].step_labels)


@given(st.integers(0, 1000), st.sampled_from([1.0, 1.5, 3.0]))
@settings(max_examples=25, deadline=None)
def test_balance_keeps_the_smaller_class_whole(seed: int, ratio: float) -> None:
    pairs = pool(40, seed)
    left = names(kept(pairs, balance=ratio))
    before = Counter(has_error(pair) for pair in pairs)
    after = Counter(has_error(pair) for pair in pairs if pair[0].trace.id in left)
    smaller = min(before, key=lambda each: before[each])
    assert after[smaller] == before[smaller]
    assert after[not smaller] == min(before[not smaller], int(ratio * before[smaller]))


def test_correct_traces_per_problem() -> None:
    pairs = pool()
    left = names(kept(pairs, max_correct_per_problem=2))
    count = Counter(p[0].problem.id for p in pairs if p[0].trace.id in left and not has_error(p))
    assert max(count.values()) == 2
    assert {p[0].trace.id for p in pairs if has_error(p)} <= left


def test_near_duplicates_keep_one_of_a_group() -> None:
    pairs = [
        trace("a", [LONG, "The answer is 4."]),
        trace("b", [LONG, "The answer is 5."], problem="q"),
        trace("c", [LONG.upper(), "the answer  is 4."]),
        trace("d", ["The answer is 4."]),
        trace("e", ["일곱 더하기 셋은 열이다", "정답은 10입니다"]),
        trace("f", ["일곱 더하기 넷은 열하나다", "정답은 11입니다"]),
    ]
    reasons = kept(pairs, near_duplicates=0.9)
    group = {id for id in "abc" if reasons[id] is None}
    assert len(group) == 1
    assert names(reasons) == group | {"d", "e", "f"}
    (twin,) = group
    assert all(f"with '{twin}'" in str(reasons[id]) for id in {*"abc"} - group)


def test_filters_apply_one_after_the_other() -> None:
    # The duplicate is removed before the problem's traces are counted.
    pairs = [trace("a", [LONG]), trace("b", [LONG]), trace("c", ["something else entirely"])]
    reasons = kept(pairs, near_duplicates=0.9, max_correct_per_problem=2)
    removed = [why.name for why in reasons.values() if why is not None]
    assert removed == ["near-duplicates"]


def published_filter(
    questions: Sequence[tuple[str, list[tuple[str, int, int, list[int]]]]],
) -> set[str]:
    """Med-PRM's filter, written from its scripts alone: solutions are (id, steps, right, labels)."""
    chosen = set()
    for _, solutions in questions:
        sampled = [one for one in solutions if 2 < one[1] < 10]
        wrong = [one[0] for one in sampled if one[2] != 1 and 0 in one[3]]
        right = [one[0] for one in sampled if one[2] == 1]
        chosen |= {*wrong, *right[: max(len(wrong), 2)]}
    return chosen


def test_med_prm_equals_a_transcription() -> None:
    rng = random.Random(5)
    questions, pairs = [], []
    for number in range(80):
        solutions = []
        for index in range(rng.randint(1, 14)):
            labels = [int(rng.random() < 0.85) for _ in range(rng.randint(1, 11))]
            right = int(rng.random() < 0.6)
            solutions.append((f"q{number}:{index}", len(labels), right, labels))
            pairs.append(
                trace(
                    f"q{number}:{index}",
                    [f"s{n}" for n in range(len(labels))],
                    problem=f"q{number}",
                    right=bool(right),
                    scores=[8 * one for one in labels],
                )
            )
        questions.append((f"q{number}", solutions))
    rng.shuffle(pairs)
    assert names(kept(pairs, filters="med-prm")) == published_filter(questions)


# selection ---------------------------------------------------------------------------------------


def test_bis_prefers_mixed_traces_with_reliable_right_steps() -> None:
    assert balanced_information([1, 1, 0, 0]) == pytest.approx(0.3)
    assert balanced_information([0.5, 0.5, 0, 0]) == pytest.approx(0.15)
    assert balanced_information([1, 1, 1, 1]) == pytest.approx(0.05)
    assert balanced_information([0, 0]) == pytest.approx(0.05)
    assert balanced_information([0.1, 0.1]) == pytest.approx(0.005)


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.25, 1.0]))
@settings(max_examples=25, deadline=None)
def test_bis_takes_the_best_share_of_every_subset(seed: int, share: float) -> None:
    pairs = pool(40, seed)
    left = names(kept(pairs, Selection("bis", share, None)))
    for subset in ("a", "b"):
        own = [pair for pair in pairs if pair[0].trace.subset == subset]
        ranks = {
            context.trace.id: balanced_information([step.score or 0 for step in label.step_labels])
            for context, label in own
        }
        inside = [rank for id, rank in ranks.items() if id in left]
        outside = [rank for id, rank in ranks.items() if id not in left]
        assert len(inside) == max(1, int(share * len(own)))
        assert min(inside) >= max(outside, default=0)


def test_shares_are_counted_as_decimals() -> None:
    """int(0.29 * 100) is 28, and int(1.15 * 100) is 114."""
    assert (
        len(names(kept([trace(f"t{n}") for n in range(100)], Selection("random", 0.29, None))))
        == 29
    )
    wrong, right = [3, 0, 0], [3, 3, 3]
    pairs = [trace(f"t{n}", scores=wrong if n < 100 else right) for n in range(220)]
    assert len(names(kept(pairs, balance=1.15))) == 100 + 115


def test_uncertain_takes_the_least_certain() -> None:
    sure, torn = trace("sure", scores=[8, 8, 8]), trace("torn", scores=[8, 5, 8])
    late = trace("late", scores=[8, 0, 4])  # uncertain only after its first error
    assert names(kept([sure, torn, late], Selection("uncertain", None, 1))) == {"torn"}
    posterior = [
        (trace(id)[0], TraceLabel(id, (), True, None, meta={"posterior": [0.1, 0.0, 0.0, best]}))
        for id, best in (("a", 0.9), ("b", 0.6), ("c", 0.99))
    ]
    assert names(kept(posterior, Selection("uncertain", None, 2))) == {"a", "b"}


def test_what_cannot_be_ranked_is_refused_or_left_out() -> None:
    with pytest.raises(InputError, match="No label can be ranked by 'uncertain'"):
        kept([trace()], Selection("uncertain", None, 1))
    reasons = kept([trace("a"), trace("b", scores=[8, 1])], Selection("uncertain", None, 2))
    assert (str(reasons["a"]), reasons["b"]) == (
        str(Filtered("select", "nothing to rank it by uncertain")),
        None,
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bis:0.1", Selection("bis", 0.1, None)),
        ("random:1.0", Selection("random", 1.0, None)),
        ("uncertain:1", Selection("uncertain", None, 1)),
    ],
)
def test_selections_are_read(text: str, found: Selection) -> None:
    assert Selection.parse(text) == found


@pytest.mark.parametrize(
    "text", ["bis", "bis:", "bis:0", "bis:1.5", "bis:-1", "best:5", "bis:1e-1"]
)
def test_other_selections_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a selection"):
        Selection.parse(text)


# soft labels -------------------------------------------------------------------------------------


def test_beta_labels_are_the_posterior_mean() -> None:
    # The mean of Beta(1 + s, 1 + n - s), n = 8.
    _, label = trace(scores=[8, 4, 0])
    soft = beta_label(label, label)
    assert isinstance(soft, TraceLabel)
    assert [step.score for step in soft.step_labels] == [0.9, 0.5, 0.1]
    assert all(step.verdict is None for step in soft.step_labels)
    assert [step.successes for step in soft.step_labels] == [8, 4, 0]


def test_a_consensus_takes_the_counts_of_its_steps() -> None:
    _, measured = trace(scores=[8, 4, 0])
    from traces import Abstention, AbstentionReason

    open_step = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED))
    agreed = TraceLabel("t", (StepLabel(Verdict.CORRECT), StepLabel(Verdict.INCORRECT), open_step))
    soft = beta_label(agreed, measured)
    assert isinstance(soft, TraceLabel)
    assert [step.score for step in soft.step_labels] == [0.9, 0.5, None]
    assert isinstance(beta_label(agreed, None), Filtered)


# counts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", COMPARING)
def test_the_table_adds_up(filters: dict[str, Any]) -> None:
    reasons = kept(pool(), **filters)
    removed = Counter(why.name for why in reasons.values() if why is not None)
    found = FilterCounts.of(len(names(reasons)), removed)
    assert found.labeled == len(reasons)
    assert found.kept + sum(found.removed.values()) == found.labeled
    last = found.table().splitlines()[-1].split()
    assert int(last[-1]) == found.kept
