"""Strategies draw a subset of what `all` draws, and say the same; rounds and frontiers change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln  # type: ignore[import-untyped]

from labeling import MonteCarloConfig
from labeling import monte_carlo as rounds
from labeling.pipeline import continue_traces
from labeling.strategies import ERROR, STRATEGIES, Bounds, TraceProgress, given_up, strategy_named
from traces.errors import InputError
from traces.labels import Abstention, AbstentionReason, StepLabel, TraceLabel, Verdict, first_error
from traces.problem import PolicyText, Problem, Trace, TraceContinuations, TraceInContext, Wanted
from traces.records import Continuation, LabeledTrace

RIGHT, WRONG = "The answer is 7.", "The answer is 8."
Matrix = list[list[bool]]
"""For each step, whether its continuations in order reach the answer."""


class Scripted:
    """A policy whose every continuation is laid down; it notes what it was asked for."""

    def __init__(self, matrices: dict[str, Matrix]) -> None:
        self.matrices = matrices
        self.asked: list[tuple[str, int, int]] = []
        self.rounds = 0
        self.released: list[str] = []
        self.over_length: set[str] = set()

    spec = "scripted"

    def continue_traces(
        self, contexts: Iterable[TraceInContext], *, k: int, seed: int
    ) -> Iterator[TraceContinuations]:
        asked = [
            (one, [Wanted(step, 0, k) for step in range(len(one.trace.steps))]) for one in contexts
        ]
        yield from self.continue_wanted(asked, seed=seed)

    def continue_wanted(
        self, asked: Sequence[tuple[TraceInContext, Sequence[Wanted]]], *, seed: int
    ) -> Iterator[TraceContinuations]:
        self.rounds += 1
        for context, wanted in reversed(asked):  # in any order
            trace_id = context.trace.id
            if trace_id in self.over_length:
                why = Abstention(AbstentionReason.OVER_LENGTH, "too long")
                yield TraceContinuations(trace_id, (), abstention=why)
                continue
            texts = []
            for one in wanted:
                for index in range(one.first, one.first + one.count):
                    self.asked.append((trace_id, one.step_index, index))
                    text = RIGHT if self.matrices[trace_id][one.step_index][index] else WRONG
                    texts.append(PolicyText(one.step_index, index, text, "stop", 5))
            yield TraceContinuations(trace_id, tuple(texts), "m-1", prefilled_tokens=3)

    def release(self, trace_ids: Sequence[str]) -> None:
        self.released += trace_ids


def contexts(matrices: dict[str, Matrix]) -> list[TraceInContext]:
    return [
        TraceInContext(
            Problem(f"p{name}", "3+4?", answer="7"),
            Trace(name, f"p{name}", tuple(f"s{n}" for n in range(len(matrix)))),
        )
        for name, matrix in matrices.items()
    ]


def measure(policy: Scripted, config: MonteCarloConfig) -> dict[str, LabeledTrace]:
    labeled = continue_traces(contexts(policy.matrices), policy, config=config)
    return {one.label.trace_id: one for one in labeled}


def verdicts(label: TraceLabel) -> list[Verdict | None]:
    return [step.verdict for step in label.step_labels]


K = 8
rows = st.lists(st.booleans(), min_size=K, max_size=K)
matrices = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(rows, min_size=1, max_size=7), min_size=1, max_size=5
)


@pytest.mark.slow
@given(matrices, st.integers(0, 3))
@settings(max_examples=60)
def test_early_stop_says_what_all_says_from_a_prefix_of_its_continuations(
    drawn: dict[str, Matrix], threshold: int
) -> None:
    every, early = Scripted(drawn), Scripted(drawn)
    whole = measure(every, MonteCarloConfig(k=K, threshold=threshold))
    short = measure(early, MonteCarloConfig(k=K, threshold=threshold, strategy="early-stop"))
    assert whole.keys() == short.keys() == drawn.keys()
    for name in drawn:
        assert verdicts(short[name].label) == verdicts(whole[name].label)
        mine = [(one.step_index, one.index, one.text) for one in short[name].continuations]
        theirs = [(one.step_index, one.index, one.text) for one in whole[name].continuations]
        assert set(mine) <= set(theirs)
        for step in range(len(drawn[name])):
            numbers = [index for at, index, _ in mine if at == step]
            assert numbers == list(range(len(numbers)))
    assert len(set(early.asked)) == len(early.asked)


@given(matrices, st.sampled_from(sorted(STRATEGIES)))
@settings(max_examples=60)
def test_no_strategy_asks_twice_or_beyond_k_and_all_end(
    drawn: dict[str, Matrix], name: str
) -> None:
    policy = Scripted(drawn)
    words = measure(policy, MonteCarloConfig(k=K, strategy=name))
    assert words.keys() == drawn.keys()
    assert len(set(policy.asked)) == len(policy.asked)
    assert all(index < K for _, _, index in policy.asked)
    for word in words.values():
        known = [step for step in word.label.step_labels if step.verdict is not None]
        assert known


@given(matrices, st.sampled_from(sorted(STRATEGIES)), st.sampled_from([1, 2, 7, 64]))
@settings(max_examples=40)
def test_frontier_size_changes_nothing(drawn: dict[str, Matrix], name: str, size: int) -> None:
    config = MonteCarloConfig(k=K, strategy=name)
    whole = measure(Scripted(drawn), config)
    kept, rounds.FRONTIER = rounds.FRONTIER, size
    try:
        parts = measure(Scripted(drawn), config)
    finally:
        rounds.FRONTIER = kept
    assert parts == whole


def monotone(steps: int, error: int | None, alive: bool = True) -> Matrix:
    """Alive prefixes succeed at their second continuation, prefixes with the error never."""
    row = [False, alive] + [True] * (K - 2)
    return [row if error is None or n < error else [False] * K for n in range(steps)]


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 12])
def test_every_strategy_finds_the_first_error_of_monotone_traces(name: str, steps: int) -> None:
    drawn = {str(error): monotone(steps, error) for error in [*range(steps), None]}
    words = measure(Scripted(drawn), MonteCarloConfig(k=K, strategy=name))
    for error, word in words.items():
        found = first_error(word.label)
        assert not found.missing
        assert str(found.index) == error


def test_binary_measures_few_steps_and_says_which_it_inferred() -> None:
    policy = Scripted({"t": monotone(12, 9)})
    label = measure(policy, MonteCarloConfig(k=K, strategy="binary"))["t"].label
    assert {step for _, step, _ in policy.asked} == {5, 8, 9, 10}
    assert label.meta["inferred_steps"] == [0, 1, 2, 3, 4, 6, 7]
    inferred, measured, behind = (label.step_labels[n] for n in (0, 5, 11))
    assert inferred == StepLabel(Verdict.CORRECT)
    assert (measured.successes, measured.continuations) == (1, 2)
    assert behind.abstention is not None
    assert behind.abstention.reason is AbstentionReason.NOT_MEASURED
    assert label.meta["strategy"] == "binary"
    assert label.meta["generated_tokens"] == 5 * len(policy.asked)
    assert label.meta["prefilled_tokens"] == 3 * label.meta["rounds"]


def test_binary_measures_everything_where_the_probe_behind_the_error_succeeds() -> None:
    back = monotone(6, None)
    back[2] = [False] * K
    policy = Scripted({"t": back})
    label = measure(policy, MonteCarloConfig(k=K, strategy="binary"))["t"].label
    whole = measure(Scripted({"t": back}), MonteCarloConfig(k=K))["t"].label
    assert verdicts(label) == verdicts(whole)
    assert first_error(label).index == 2
    assert "inferred_steps" not in label.meta


@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8))
def test_a_step_is_given_up_by_the_posterior_of_the_others(
    won: int, lost: int, failed: int
) -> None:
    drawn = TraceProgress(2)
    outcomes = [(0, True)] * won + [(0, False)] * lost + [(1, False)] * failed
    counts = [0, 0]
    for step, correct in outcomes:
        one = Continuation("t", step, counts[step], "", "stop", None, correct)
        counts[step] += 1
        drawn.add([one])
    # the chance that a prefix as alive as the other one fails that often: a Beta integral
    chance = exp(betaln(1 + won, 1 + lost + failed) - betaln(1 + won, 1 + lost))
    assert given_up(drawn, 1, Bounds(16, 0)) is (chance <= ERROR)


def test_adaptive_gives_nothing_up_before_k_while_no_prefix_is_alive() -> None:
    policy = Scripted({"t": [[False] * K] * 5})
    label = measure(policy, MonteCarloConfig(k=K, strategy="adaptive"))["t"].label
    assert first_error(label).index == 0
    assert label.step_labels[0].continuations == K


def test_over_length_trace_abstains_under_every_strategy() -> None:
    for name in STRATEGIES:
        policy = Scripted({"t": monotone(3, None), "u": monotone(3, 1)})
        policy.over_length = {"t"}
        words = measure(policy, MonteCarloConfig(k=K, strategy=name))
        assert words["t"].label.abstention == Abstention(AbstentionReason.OVER_LENGTH, "too long")
        assert first_error(words["u"].label).index == 1


# What a label means -------------------------------------------------------------------------------


def test_last_step_from_the_outcome_is_not_rolled_out() -> None:
    policy = Scripted({"t": monotone(3, None)})
    context = contexts(policy.matrices)[0]
    for outcome, final, expected in (
        (True, "s", Verdict.CORRECT),
        (False, "s", Verdict.INCORRECT),
        (None, "The answer is 7.", Verdict.CORRECT),
        (None, "The answer is 9.", Verdict.INCORRECT),
    ):
        trace = Trace("t", context.problem.id, ("a", "b", final), final_answer_correct=outcome)
        config = MonteCarloConfig(k=K, last_step="outcome")
        policy.asked.clear()
        (word,) = continue_traces([TraceInContext(context.problem, trace)], policy, config=config)
        last = word.label.step_labels[2]
        assert last.verdict is expected
        assert {step for _, step, _ in policy.asked} == {0, 1}
        assert last.continuations is None
        assert last.score == float(expected is Verdict.CORRECT)
        assert word.label.meta["last_step"] == "outcome"


def test_last_step_without_a_readable_outcome_is_rolled_out_after_all() -> None:
    policy = Scripted({"t": monotone(3, None)})
    label = measure(policy, MonteCarloConfig(k=K, last_step="outcome"))["t"].label
    assert {step for _, step, _ in policy.asked} == {0, 1, 2}
    assert label.step_labels[2].continuations == K
    assert "last_step" not in label.meta


def test_what_stands_behind_the_first_error() -> None:
    back = [[True] * K, [False] * K, [True] * K, [False] * K]
    kept = measure(Scripted({"t": back}), MonteCarloConfig(k=K))["t"].label
    assert verdicts(kept) == [
        Verdict.CORRECT,
        Verdict.INCORRECT,
        Verdict.CORRECT,
        Verdict.INCORRECT,
    ]
    zero = MonteCarloConfig(k=K, after_first_error="incorrect")
    wrong = measure(Scripted({"t": back}), zero)["t"].label
    assert verdicts(wrong) == [Verdict.CORRECT] + [Verdict.INCORRECT] * 3
    assert wrong.meta["inferred_steps"] == [2]
    assert wrong.step_labels[2].score == 1.0
    none = MonteCarloConfig(k=K, after_first_error="not-measured")
    unsaid = measure(Scripted({"t": back}), none)["t"].label
    assert verdicts(unsaid) == [Verdict.CORRECT, Verdict.INCORRECT, None, None]
    assert unsaid.step_labels[3].abstention is not None


def test_soft_labels_have_no_verdict_and_advantages_compare_neighbours() -> None:
    half = [True] * 4 + [False] * 4
    drawn = {"t": [half, half, [True] * K, half, [False] * K]}
    soft = measure(Scripted(drawn), MonteCarloConfig(k=K, label="soft"))["t"].label
    assert verdicts(soft) == [None] * 5
    assert [step.score for step in soft.step_labels] == [0.5, 0.5, 1.0, 0.5, 0.0]
    advantage = measure(Scripted(drawn), MonteCarloConfig(k=K, label="advantage"))["t"].label
    assert verdicts(advantage) == [
        Verdict.CORRECT, Verdict.NEUTRAL, Verdict.CORRECT, Verdict.INCORRECT, Verdict.INCORRECT
    ]  # fmt: skip
    assert [step.successes for step in advantage.step_labels] == [4, 4, 8, 4, 0]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"k": 0}, "--k is 0"),
        ({"threshold": 16}, "cannot be used with"),
        ({"label": "value"}, "not a value of --label"),
        ({"last_step": "x"}, "not a value of --last-step"),
        ({"after_first_error": "x"}, "not a value of --after-first-error"),
        ({"label": "soft", "strategy": "binary"}, "needs the MC estimate"),
    ],
)
def test_options_that_make_no_sense_are_refused(given: dict[str, object], what: str) -> None:
    with pytest.raises(InputError, match=what):
        MonteCarloConfig(**given)  # type: ignore[arg-type]


def test_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="not a strategy") as caught:
        strategy_named("fast")
    assert "early-stop" in str(caught.value.remedy)


def test_config_names_what_is_not_the_default() -> None:
    assert MonteCarloConfig(k=4).as_dict() == {"k": 4, "threshold": 0, "seed": 0}
    stored = MonteCarloConfig(k=4, strategy="binary", after_first_error="incorrect").as_dict()
    assert stored["strategy"] == "binary"
    assert stored["after_first_error"] == "incorrect"
