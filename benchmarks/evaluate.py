"""How long evaluation takes: the size of ProcessBench, and a million steps with a 10,000-fold bootstrap.

Each figure stands beside the plain way of doing the same: a bootstrap that draws problem by problem. The
plain one is measured over `--plain` resamples and scaled up; peak memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.timing import peak_memory
from evaluation import (
    EvaluatedTrace,
    EvaluatedTraces,
    diagnose,
    evaluate_macro_f1,
    evaluate_processbench,
    measures,
)
from evaluation.frames import Floats
from evaluation.measures import by_problem, generator, resampled_sums
from traces import StepLabel, TraceLabel, Verdict

PROCESSBENCH = {"gsm8k": 400, "math": 1000, "olympiadbench": 1000, "omnimath": 1000}
"""Traces by subset."""
LARGE_TARGET = "< 10 s, < 1,000 MB"
VERDICTS = (StepLabel(Verdict.CORRECT), StepLabel(Verdict.INCORRECT))


def made_traces(
    n: int, *, steps: int, per_problem: int, subset: str, seed: int
) -> list[EvaluatedTrace]:
    """Traces of 1 to 2 * steps - 1 steps with gold on every step and scores that know something of it."""
    draw = random.Random(f"{seed}:{subset}")
    made = []
    for number in range(n):
        length = draw.randint(1, 2 * steps - 1)
        gold = [draw.random() < 0.15 for _ in range(length)]
        scored = tuple(
            StepLabel(score=min(1.0, max(0.0, draw.gauss(0.35 if bad else 0.75, 0.25))))
            for bad in gold
        )
        id = f"{subset}-{number}"
        made.append(
            EvaluatedTrace(
                id,
                f"{subset}-{number // per_problem}",
                subset,
                length,
                TraceLabel(id, tuple(VERDICTS[bad] for bad in gold)),
                TraceLabel(id, scored),
                draw.random() < 0.6,
            )
        )
    return made


def plain_resampling(counts: Floats, resamples: int, seed: int) -> Floats:
    """The obvious bootstrap: draw as many problems as there are, add their rows up."""
    rng = np.random.default_rng(seed)
    return np.array(
        [counts[rng.integers(0, len(counts), len(counts))].sum(axis=0) for _ in range(resamples)]
    )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def row(what: str, seconds: tuple[float, float], plain: float | None, target: str) -> None:
    """Print one line of the table."""
    peak = peak_memory() / 2**20
    ratio = "" if plain is None else f"{plain:9.1f} {plain / seconds[0]:8.1f}x"
    print(
        f"{what:<58} {seconds[0]:8.2f} {seconds[1]:8.2f} {peak:8.0f} {ratio:>19}  {target}",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="steps of the large case")
    parser.add_argument("--resamples", type=int, default=10_000, help="resamples of the large case")
    parser.add_argument("--plain", type=int, default=200, help="resamples of the plain way")
    arguments = parser.parse_args(argv)
    print(f"{'':<58} {'wall s':>8} {'CPU s':>8} {'peak MB':>8} {'plain s':>9} {'ratio':>9}")

    small = [
        trace
        for subset, n in PROCESSBENCH.items()
        for trace in made_traces(n, steps=8, per_problem=1, subset=subset, seed=0)
    ]
    row(
        "ProcessBench size (3,400 traces): processbench, 2,000-fold",
        timed(lambda: evaluate_processbench(small)),
        None,
        "< 1 s",
    )
    row("the same: macro-f1", timed(lambda: evaluate_macro_f1(small)), None, "< 1 s")
    row("the same: diagnostics", timed(lambda: diagnose(small)), None, "")

    for per_problem in (1, 8):
        large_case(arguments.steps, per_problem, arguments.resamples, arguments.plain)


def large_case(n_steps: int, per_problem: int, resamples: int, plain_resamples: int) -> None:
    """About `n_steps` steps in traces of 10 on average, so many traces a problem."""
    traces = made_traces(n_steps // 10, steps=10, per_problem=per_problem, subset="large", seed=1)
    steps = sum(trace.n_steps for trace in traces)
    known = EvaluatedTraces.of(traces)
    counts = by_problem(known.frame.problem, measures.step_rows(known, 0.5))
    problems = len(counts)
    wall, _ = timed(lambda: plain_resampling(counts, plain_resamples, 0))
    plain = wall * resamples / plain_resamples
    own = timed(lambda: resampled_sums(counts, generator(0), resamples))
    row(f"{resamples:,} resamples of {problems:,} problems alone", own, plain, "")
    whole = timed(lambda: evaluate_macro_f1(traces, resamples=resamples))
    row(f"{steps:,} steps, {problems:,} problems: macro-f1, whole", whole, None, LARGE_TARGET)
    whole = timed(lambda: evaluate_processbench(traces, resamples=resamples))
    row("the same: processbench, whole", whole, None, LARGE_TARGET)


if __name__ == "__main__":
    main()
