"""Estimates are right for a policy whose chances are known, and no circumstance changes a label."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import chi2  # type: ignore[import-untyped]

from inference.local.policy import LocalPolicy
from labeling import MonteCarloConfig
from labeling.pipeline import continue_traces
from tests.known_policy import chances, known_policy, known_traces
from tests.policies import local_policy
from traces.labels import StepLabel
from traces.problem import Problem, Trace, TraceInContext
from traces.records import LabeledTrace

Words = dict[str, tuple[tuple[StepLabel, ...], list[str]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return known_policy(tmp_path_factory.mktemp("known"))


def policy(folder: Path, **changes: Any) -> LocalPolicy:
    return local_policy(folder, spec="hf:known", max_tokens=40, temperature=1.0, **changes)


def label(
    policy: LocalPolicy, contexts: Sequence[TraceInContext], config: MonteCarloConfig
) -> dict[str, LabeledTrace]:
    measured = continue_traces(contexts, policy, config=config)
    return {one.label.trace_id: one for one in measured}


def words(measured: dict[str, LabeledTrace]) -> Words:
    return {
        name: (one.label.step_labels, [drawn.text for drawn in one.continuations])
        for name, one in measured.items()
    }


def label_share(folder: Path, numbers: Sequence[int], strategy: str) -> Words:
    """What one worker does: a policy of its own over its share of the traces."""
    contexts = known_traces(max(numbers) + 1)
    config = MonteCarloConfig(k=6, seed=3, strategy=strategy)
    return words(label(policy(folder), [contexts[number] for number in numbers], config))


@pytest.mark.slow
def test_estimates_pass_a_chi_square_test(folder: Path) -> None:
    k, ends = 2500, ("good", "fair", "bad", "hmm")
    context = TraceInContext(Problem("p", "hmm", answer="2"), Trace("t", "p", ends))
    config = MonteCarloConfig(k=k, seed=0, label="soft")
    [measured] = label(policy(folder), [context], config).values()
    assert len(measured.continuations) == 10_000
    known, statistic = chances(), 0.0
    for word, step in zip(ends, measured.label.step_labels, strict=True):
        assert (step.continuations, step.unparsed, step.unfinished) == (k, 0, 0)
        assert step.score is not None
        expected = known[word]
        statistic += k * (step.score - expected) ** 2 / (expected * (1 - expected))
    assert chi2.sf(statistic, df=len(ends)) > 0.001


def test_a_hopeless_prefix_never_succeeds(folder: Path) -> None:
    assert chances()["lost"] == 0.0
    context = TraceInContext(Problem("p", "hmm", answer="2"), Trace("t", "p", ("lost",)))
    [measured] = label(policy(folder), [context], MonteCarloConfig(k=50)).values()
    [step] = measured.label.step_labels
    assert (step.successes, step.continuations) == (0, 50)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["all", "adaptive"])
def test_labels_are_the_same_for_every_batch_size_and_order(folder: Path, strategy: str) -> None:
    contexts = known_traces(7)
    config = MonteCarloConfig(k=6, seed=3, strategy=strategy)
    wanted = words(label(policy(folder, batch_rows=64), contexts, config))
    assert len({step.successes for steps, _ in wanted.values() for step in steps}) > 3
    for changes in ({"batch_rows": 1}, {"batch_rows": 7}, {"cache_tokens": 200}):
        assert words(label(policy(folder, **changes), contexts[::-1], config)) == wanted
    again = label(policy(folder), contexts, config)
    assert words(again) == wanted
    assert {one.label.meta["near_ties"] for one in again.values()} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["all", "early-stop", "binary"])
def test_labels_are_the_same_when_a_run_is_taken_up_again(folder: Path, strategy: str) -> None:
    """What is missing after a stop is drawn by a new policy that has seen none of the rest."""
    whole = label_share(folder, range(8), strategy)
    assert label_share(folder, [0, 2, 5], strategy) | label_share(folder, [1, 3, 4, 6, 7], strategy) == whole  # fmt: skip


@pytest.mark.slow
def test_labels_are_the_same_for_any_number_of_workers(folder: Path) -> None:
    whole = label_share(folder, range(9), "early-stop")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as workers:
        shares = [
            workers.submit(label_share, folder, range(start, 9, 3), "early-stop")
            for start in range(3)
        ]
        together = {name: word for share in shares for name, word in share.result(120).items()}
    assert together == whole
