"""What a consensus of labelers reaches on the lab: `make bench-consensus`.

At least 1,000 held-out traces a source with exact truth, labeled by the judge, Monte Carlo (k=8)
and the bundled PRM; then `strict`, `majority` and `bayes` with and without anchored traces, each
beside its labelers: processbench_f1 at full retention with the paired difference to the best
labeler, the share of traces with an error that is kept at a first-error precision of .99, the
calibration error of the posterior, what a labeler of pure noise changes, and the time for 10,000
traces.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.lab import Source, by_id, sources, staged
from inference import LocalPolicy, PolicyConfig
from lab import LikelihoodJudge, bundled_model_folder
from labeling import (
    MonteCarloConfig,
    NamedFirstErrors,
    continue_traces,
    first_error_posterior,
    judge_traces,
)
from scoring import load_scorer
from traces import MISSING_FIRST_ERROR, TraceLabel, first_error

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
RESAMPLES = 2000
PRECISION = 0.99
ANCHORED = 60


@dataclass(frozen=True)
class Measured:
    """The traces of one source as arrays."""

    name: str
    steps: Ints
    truth: Ints
    """First error; the number of steps where there is none."""
    problems: Ints
    labelers: Mapping[str, NamedFirstErrors]


def measured(part: Source, labels: Mapping[str, Mapping[str, TraceLabel]]) -> Measured:
    """Arrays of a source."""
    steps = np.array([len(context.trace.steps) for context in part.contexts])
    ids = [context.trace.id for context in part.contexts]
    truth = [part.gold[trace].first_error_index for trace in ids]
    problems = [context.problem.id for context in part.contexts]
    return Measured(
        part.name,
        steps,
        np.where([index is None for index in truth], steps, [index or 0 for index in truth]),
        np.unique(problems, return_inverse=True)[1],
        {
            name: _named(name, steps, [of.get(trace) for trace in ids])
            for name, of in labels.items()
        },
    )


def _named(name: str, steps: Ints, labels: Sequence[TraceLabel | None]) -> NamedFirstErrors:
    given, index = np.zeros(len(steps), bool), steps.copy()
    scores = np.zeros((len(steps), steps.max()))
    scored = np.zeros(scores.shape, bool)
    for row, label in enumerate(labels):
        error = MISSING_FIRST_ERROR if label is None else first_error(label)
        if label is None or error.missing:
            continue
        given[row] = True
        index[row] = steps[row] if error.index is None else error.index
        for column, step in enumerate(label.step_labels):
            if step.score is not None:
                scores[row, column], scored[row, column] = step.score, True
    if not scored.any():
        return NamedFirstErrors(name=name, given=given, index=index)
    return NamedFirstErrors(name=name, given=given, index=index, scores=scores, scored=scored)


def f1(right: NDArray[np.bool_], with_error: NDArray[np.bool_]) -> float:
    """The harmonic mean of error and correct accuracy."""
    rates = right[with_error].mean(), right[~with_error].mean()
    return float(2 * rates[0] * rates[1] / (rates[0] + rates[1])) if min(rates) else 0.0


def difference(
    data: Measured, first: NDArray[np.bool_], second: NDArray[np.bool_], seed: int
) -> dict[str, object]:
    """The paired difference in F1, resampling problems."""
    rng = np.random.default_rng(seed)
    with_error = data.truth < data.steps
    members = [np.flatnonzero(data.problems == each) for each in range(data.problems.max() + 1)]
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate(
            [members[each] for each in rng.integers(len(members), size=len(members))]
        )
        drawn.append(f1(first[rows], with_error[rows]) - f1(second[rows], with_error[rows]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "difference": round(f1(first, with_error) - f1(second, with_error), 4),
        "ci95": [round(float(low), 4), round(float(high), 4)],
    }


def kept_at_precision(data: Measured, posterior: Floats) -> float:
    """The share of traces with an error among the most certain ones that keep the precision."""
    named, sure = posterior.argmax(axis=1), posterior.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    names_error = (named < data.steps)[order]
    right = (named == data.truth)[order]
    precision = np.cumsum(right & names_error) / np.maximum(np.cumsum(names_error), 1)
    enough = np.flatnonzero(precision >= PRECISION)
    count = int(enough[-1]) + 1 if len(enough) else 0
    with_error = (data.truth < data.steps)[order]
    return float(with_error[:count].sum() / with_error.sum())


def calibration_error(data: Measured, posterior: Floats) -> float:
    """The expected calibration error of the named first error, over ten equal intervals."""
    sure, right = posterior.max(axis=1), posterior.argmax(axis=1) == data.truth
    interval = np.minimum((sure * 10).astype(int), 9)
    return float(
        sum(
            abs(sure[interval == each].mean() - right[interval == each].mean())
            * (interval == each).mean()
            for each in np.unique(interval)
        )
    )


def figures(data: Measured, seed: int) -> dict[str, object]:
    """All figures of one source."""
    rng = np.random.default_rng(seed)
    with_error = data.truth < data.steps
    right = {name: one.given & (one.index == data.truth) for name, one in data.labelers.items()}
    alone = {name: f1(each, with_error) for name, each in right.items()}
    known = np.zeros(len(data.steps), bool)
    known[rng.choice(len(known), ANCHORED, replace=False)] = True
    anchor = NamedFirstErrors(name="gold", given=known, index=data.truth)
    two = [data.labelers["judge"], data.labelers["mc"]]
    three = [*two, data.labelers["prm"]]
    noise = NamedFirstErrors(
        name="noise",
        given=np.ones(len(known), bool),
        index=(rng.random(len(known)) * (data.steps + 1)).astype(int),
    )
    found: dict[str, object] = {"source": data.name, "traces": len(known), "alone": alone}
    best = max(alone, key=alone.__getitem__)
    for name, labelers, anchored in (
        ("judge+mc", two, None),
        (f"judge+mc, {ANCHORED} anchored", two, anchor),
        ("judge+mc+prm", three, None),
        (f"judge+mc+prm, {ANCHORED} anchored", three, anchor),
    ):
        fitted = first_error_posterior(data.steps, labelers, anchor=anchored)
        posterior = fitted.probabilities
        own = posterior.argmax(axis=1) == data.truth
        rest = np.ones(len(known), bool) if anchored is None else ~known
        found[name] = {
            "processbench_f1": round(f1(own[rest], with_error[rest]), 4),
            "minus_best_labeler": difference(data, own, right[best], seed),
            f"kept_at_{PRECISION}": round(kept_at_precision(data, posterior), 4),
            "calibration_error": round(calibration_error(data, posterior), 4),
            "identified": fitted.identified,
        }
    before = first_error_posterior(data.steps, three).probabilities
    after = first_error_posterior(data.steps, [*three, noise]).probabilities
    kept = before.max(axis=1) >= 0.9
    found["same_kept_label_with_noise"] = round(
        float((before.argmax(axis=1) == after.argmax(axis=1))[kept].mean()), 4
    )
    same = right["judge"] & (data.labelers["judge"].index == data.labelers["mc"].index)
    agreeing = data.labelers["judge"].index == data.labelers["mc"].index
    says_error = agreeing & (data.labelers["judge"].index < data.steps)
    found["strict"] = {
        "kept_with_error": round(float(agreeing[with_error].mean()), 4),
        "first_error_precision": round(float(same[says_error].mean()), 4),
    }
    return found


def timed(data: Measured, traces: int) -> float:
    """CPU seconds of the estimate over so many traces, drawn from these with replacement."""
    rows = np.random.default_rng(0).integers(len(data.steps), size=traces)
    labelers = [
        NamedFirstErrors(
            name=one.name,
            given=one.given[rows],
            index=one.index[rows],
            scores=None if one.scores is None else one.scores[rows],
            scored=None if one.scored is None else one.scored[rows],
        )
        for one in data.labelers.values()
    ]
    began = time.process_time()
    first_error_posterior(data.steps[rows], labelers)
    return time.process_time() - began


def label(part: Source, k: int, seed: int) -> dict[str, dict[str, TraceLabel]]:
    """The three labelers of the lab on one source."""
    policy = LocalPolicy(
        str(bundled_model_folder("policy")),
        PolicyConfig(max_tokens=130, temperature=1.0),
        spec="lab",
    )
    judge = LikelihoodJudge(str(bundled_model_folder("judge")))
    config = MonteCarloConfig(k=k, seed=seed)
    scorer = load_scorer(str(bundled_model_folder("prm")))
    return {
        "judge": staged(judge_traces(part.contexts, judge)),
        "mc": staged(continue_traces(part.contexts, policy, config=config)),
        "prm": by_id(scorer.score(part.contexts)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print one JSON document per source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500, help="two traces each a source")
    parser.add_argument("--seed", type=int, default=20_261_130, help="no training used it")
    parser.add_argument("-k", type=int, default=8, help="continuations a prefix")
    arguments = parser.parse_args(argv)
    for part in sources(arguments.seed, arguments.problems):
        data = measured(part, label(part, arguments.k, arguments.seed))
        found = figures(data, arguments.seed)
        found["cpu_seconds_for_10000"] = round(timed(data, 10_000), 2)
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
