"""The posterior of the first error: exactness, invariances, anchors and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.posterior import ANCHOR_WEIGHT, NamedFirstErrors, first_error_posterior


@dataclass
class Drawn:
    """Traces with their truth, as labelers of known rates see them."""

    steps: np.ndarray
    truth: np.ndarray
    rng: np.random.Generator

    def labeler(self, name: str, rates: tuple[float, float, float, float]) -> NamedFirstErrors:
        """One with these shares of false alarms, missed, early and late errors."""
        index = [
            _drawn(self.rng, steps, truth, rates)
            for steps, truth in zip(self.steps.tolist(), self.truth.tolist(), strict=True)
        ]
        given = self.rng.random(len(index)) < 0.95
        return NamedFirstErrors(name=name, given=given, index=np.array(index))

    def accuracy(self, probabilities: np.ndarray) -> float:
        """The share of traces whose most probable first error is the truth."""
        return float((probabilities.argmax(axis=1) == self.truth).mean())


def _drawn(rng: np.random.Generator, steps: int, truth: int, rates: tuple[float, ...]) -> int:
    false_alarm, missed, early, late = rates
    if truth == steps:
        return int(rng.integers(steps)) if rng.random() < false_alarm else steps
    if rng.random() < missed:
        return steps
    if truth > 0 and rng.random() < early:
        return int(rng.integers(truth))
    if truth < steps - 1 and rng.random() < late:
        return int(rng.integers(truth + 1, steps))
    return truth


def drawn(n: int, seed: int) -> Drawn:
    rng = np.random.default_rng(seed)
    steps = rng.integers(2, 12, n)
    truth = np.where(rng.random(n) < 0.4, steps, (rng.random(n) * steps).astype(int))
    return Drawn(steps, truth, rng)


GOOD, FAIR, POOR = (0.05, 0.1, 0.05, 0.05), (0.2, 0.05, 0.2, 0.1), (0.1, 0.2, 0.1, 0.1)


def test_three_labelers_without_gold_find_rates_and_beat_the_best_of_them() -> None:
    traces = drawn(3000, seed=1)
    labelers = [
        traces.labeler(name, rates) for name, rates in (("a", GOOD), ("b", FAIR), ("c", POOR))
    ]
    fitted = first_error_posterior(traces.steps, labelers)
    assert fitted.identified
    for name, rates in (("a", GOOD), ("b", FAIR), ("c", POOR)):
        found = fitted.confusions[""][name]
        estimate = (found.false_alarm, found.missed, found.early, found.late)
        assert estimate == pytest.approx(rates, abs=0.05)
    alone = max(float((one.index == traces.truth)[one.given].mean()) for one in labelers)
    assert traces.accuracy(fitted.probabilities) > alone + 0.03
    assert fitted.no_error[""] == pytest.approx(0.4, abs=0.03)


def test_probabilities_are_probabilities_of_the_steps_that_exist() -> None:
    traces = drawn(200, seed=2)
    fitted = first_error_posterior(traces.steps, [traces.labeler("a", GOOD)])
    assert fitted.probabilities.sum(axis=1) == pytest.approx(np.ones(200))
    beyond = np.arange(fitted.probabilities.shape[1]) > traces.steps[:, None]
    assert not fitted.probabilities[beyond].any()
    assert (fitted.probabilities[~beyond] > 0).all()


def test_a_noisy_labeler_changes_almost_no_confident_label() -> None:
    traces = drawn(3000, seed=3)
    labelers = [traces.labeler("a", GOOD), traces.labeler("b", FAIR), traces.labeler("c", POOR)]
    before = first_error_posterior(traces.steps, labelers).probabilities
    noise = (traces.rng.random(3000) * (traces.steps + 1)).astype(int)
    silent = np.ones(3000, bool)
    with_noise = [*labelers, NamedFirstErrors(name="noise", given=silent, index=noise)]
    after = first_error_posterior(traces.steps, with_noise).probabilities
    kept = before.max(axis=1) >= 0.9
    same = before.argmax(axis=1) == after.argmax(axis=1)
    assert same[kept].mean() >= 0.98


def test_an_anchor_settles_which_of_two_labelers_is_right() -> None:
    traces = drawn(2000, seed=4)
    good, bad = traces.labeler("good", GOOD), traces.labeler("bad", (0.5, 0.05, 0.5, 0.3))
    alone = first_error_posterior(traces.steps, [good, bad])
    assert not alone.identified
    known = np.zeros(2000, bool)
    known[traces.rng.choice(2000, 100, replace=False)] = True
    anchor = NamedFirstErrors(name="gold", given=known, index=traces.truth)
    anchored = first_error_posterior(traces.steps, [good, bad], anchor=anchor)
    assert anchored.identified
    found = anchored.probabilities
    assert (found[known, traces.truth[known]] == 1).all()
    rest = ~known & good.given
    right = (found.argmax(axis=1) == traces.truth)[rest].mean()
    assert right >= (good.index == traces.truth)[rest].mean() - 0.005
    assert right > (alone.probabilities.argmax(axis=1) == traces.truth)[rest].mean()


def test_groups_have_rates_of_their_own() -> None:
    traces = drawn(4000, seed=5)
    first = np.arange(4000) < 2000
    groups = ["x" if is_first else "y" for is_first in first]
    careful, careless = traces.labeler("a", GOOD), traces.labeler("a", (0.5, 0.4, 0.2, 0.2))
    changing = NamedFirstErrors(
        name="a",
        given=careful.given,
        index=np.where(first, careful.index, careless.index),
    )
    others = [traces.labeler("b", GOOD), traces.labeler("c", FAIR)]
    fitted = first_error_posterior(traces.steps, [changing, *others], groups=groups)
    assert fitted.confusions["x"]["a"].missed == pytest.approx(0.1, abs=0.05)
    assert fitted.confusions["y"]["a"].missed == pytest.approx(0.4, abs=0.06)


def with_scores(one: NamedFirstErrors, scores: np.ndarray) -> NamedFirstErrors:
    return NamedFirstErrors(name=one.name, given=one.given, index=one.index, scores=scores)


def test_scores_are_learned_and_not_believed() -> None:
    """Scores that tell right from wrong help; scores that mean nothing change almost nothing."""
    traces = drawn(3000, seed=6)
    a, b, c = (traces.labeler(name, FAIR) for name in "abc")
    noise = traces.rng.random((3000, traces.steps.max()))
    before_error = np.arange(noise.shape[1]) < traces.truth[:, None]
    telling = with_scores(a, np.where(before_error, 0.3 + 0.7 * noise, 0.6 * noise))
    base = traces.accuracy(first_error_posterior(traces.steps, [a, b, c]).probabilities)
    helped = first_error_posterior(traces.steps, [telling, b, c]).probabilities
    same = first_error_posterior(traces.steps, [with_scores(a, noise), b, c]).probabilities
    assert traces.accuracy(helped) > base + 0.01
    assert traces.accuracy(same) == pytest.approx(base, abs=0.01)


def test_the_scores_of_one_of_two_labelers_do_not_decide() -> None:
    traces = drawn(500, seed=7)
    a, b = traces.labeler("a", GOOD), traces.labeler("b", FAIR)
    scores = traces.rng.random((500, traces.steps.max()))
    plain = first_error_posterior(traces.steps, [a, b]).probabilities
    scored = first_error_posterior(traces.steps, [a, with_scores(b, scores)]).probabilities
    assert np.array_equal(plain, scored)


@pytest.mark.slow
def test_chunks_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = drawn(300, seed=8)
    labelers = [traces.labeler(name, FAIR) for name in "ab"]
    labelers.append(
        with_scores(traces.labeler("c", GOOD), traces.rng.random((300, traces.steps.max())))
    )
    groups = ["x" if n % 3 else "y" for n in range(300)]
    whole = first_error_posterior(traces.steps, labelers, groups=groups).probabilities
    monkeypatch.setattr("labeling.posterior.AT_ONCE", 37)
    parts = first_error_posterior(traces.steps, labelers, groups=groups).probabilities
    assert parts == pytest.approx(whole, abs=1e-6)


def test_it_refuses_arrays_that_do_not_fit() -> None:
    one = NamedFirstErrors(name="a", given=np.ones(2, bool), index=np.zeros(2, int))
    with pytest.raises(ValueError, match="at least one labeler"):
        first_error_posterior(np.array([1, 2, 3]), [one])
    with pytest.raises(ValueError, match="at least one labeler"):
        first_error_posterior(np.array([1, 2, 3]), [])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_the_order_of_traces_and_labelers_changes_nothing(seed: int, order: list[int]) -> None:
    traces = drawn(40, seed)
    labelers = [traces.labeler(name, FAIR) for name in "abc"]
    before = first_error_posterior(traces.steps, labelers).probabilities
    shuffled = traces.rng.permutation(40)
    moved = [
        NamedFirstErrors(name=one.name, given=one.given[shuffled], index=one.index[shuffled])
        for one in (labelers[place] for place in order)
    ]
    after = first_error_posterior(traces.steps[shuffled], moved).probabilities
    assert after == pytest.approx(before[shuffled], abs=1e-9)


# Against an independent implementation: loops over traces, steps and labelers, from the text of
# the module, without patterns or masks.

START = {"fa": 0.1, "miss": 0.1, "early": 0.06, "late": 0.06, "early_next": 0.5, "late_next": 0.5}
PSEUDO, PSEUDO_CLEAN = 4.0, 2.0


def _events(named: int, truth: int, steps: int) -> list[tuple[str, bool]]:
    """The choices that lead from a truth to what is named: (rate, whether it happened)."""
    if truth == steps:
        return [("fa", named != steps)]
    found = [("miss", named == steps)]
    if named == steps:
        return found
    if truth > 0:
        found.append(("early", named < truth))
        if named < truth:
            return found + ([("early_next", named == truth - 1)] if truth > 1 else [])
    if truth < steps - 1:
        found.append(("late", named > truth))
        if named > truth and truth < steps - 2:
            found.append(("late_next", named == truth + 1))
    return found


def _where(named: int, truth: int, steps: int) -> float:
    """The chance of the very step, given the kind."""
    if truth == steps:
        return 1 / steps if named != steps else 1.0
    if named == steps or abs(named - truth) <= 1:
        return 1.0
    return 1 / (truth - 1) if named < truth else 1 / (steps - truth - 2)


def _reference(
    steps: list[int], said: list[list[int | None]], known: dict[int, int]
) -> list[list[float]]:
    clean, rates = 0.5, [dict(START) for _ in said]
    found: list[list[float]] = []
    for _ in range(400):
        found = []
        for trace, length in enumerate(steps):
            if trace in known:
                found.append([float(z == known[trace]) for z in range(length + 1)])
                continue
            weights = []
            for z in range(length + 1):
                weight = clean if z == length else (1 - clean) / length
                for labeler, words in enumerate(said):
                    if (named := words[trace]) is None:
                        continue
                    for rate, happened in _events(named, z, length):
                        p = rates[labeler][rate]
                        weight *= p if happened else 1 - p
                    weight *= _where(named, z, length)
                weights.append(weight)
            found.append([weight / math.fsum(weights) for weight in weights])
        mass = [ANCHOR_WEIGHT if trace in known else 1.0 for trace in range(len(steps))]
        none = sum(m * found[t][steps[t]] for t, m in enumerate(mass))
        clean = (none + 0.5 * PSEUDO_CLEAN) / (sum(mass) + PSEUDO_CLEAN)
        for labeler, words in enumerate(said):
            yes, all_ = dict.fromkeys(START, 0.0), dict.fromkeys(START, 0.0)
            for trace, length in enumerate(steps):
                if (named := words[trace]) is None:
                    continue
                for z in range(length + 1):
                    weight = mass[trace] * found[trace][z]
                    for rate, happened in _events(named, z, length):
                        all_[rate] += weight
                        yes[rate] += weight * happened
            rates[labeler] = {
                rate: (yes[rate] + START[rate] * PSEUDO) / (all_[rate] + PSEUDO) for rate in START
            }
    return found


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("anchors", [0, 4])
def test_it_equals_an_independent_implementation(seed: int, anchors: int) -> None:
    traces = drawn(25, seed)
    labelers = [traces.labeler(name, FAIR) for name in "ab"]
    known = {trace: int(traces.truth[trace]) for trace in range(anchors)}
    is_known = np.arange(25) < anchors
    anchor = NamedFirstErrors(name="gold", given=is_known, index=traces.truth)
    said = [
        [int(index) if given else None for index, given in zip(one.index, one.given, strict=True)]
        for one in labelers
    ]
    expected = _reference(traces.steps.tolist(), said, known)
    found = first_error_posterior(traces.steps, labelers, anchor=anchor if anchors else None)
    for row, wanted in zip(found.probabilities, expected, strict=True):
        assert row[: len(wanted)].tolist() == pytest.approx(wanted, abs=1e-4)
