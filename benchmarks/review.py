"""What the review's order and its estimate are worth, and how fast the next step is.

`make bench-review`. On the lab, with exact truth as the expert: which share of the wrong
first-error labels of `bayes` (judge, Monte Carlo, PRM) the first traces of the queue hold, beside a
random order; how often the 95% interval of the accuracy from 200 random steps holds the true
accuracy, with and without the posterior, and how wide both are. Then the time to store an answer
and find the next step, and the memory of the process, with a queue of 100,000 steps.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from review.queue import Queue, QueueSettings
from storage import Store
from traces import (
    ExpertAnswer,
    ImportedTrace,
    Labeler,
    LabelerKind,
    Problem,
    ReviewAnswer,
    SourceFile,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
)

if TYPE_CHECKING:
    from benchmarks.consensus import Measured

STEPS_CHECKED = 200
REPETITIONS = 500
SHARES = (0.1, 0.2, 0.3)
LABELERS = {"judge+mc": ("judge", "mc"), "judge+mc+prm": ("judge", "mc", "prm")}


def ordered(data: Measured, names: Sequence[str]) -> dict[str, object]:
    """The share of the wrong labels that the first traces of the queue hold."""
    from labeling import first_error_posterior

    posterior = first_error_posterior(data.steps, [data.labelers[name] for name in names])
    sure = posterior.probabilities
    wrong = sure.argmax(axis=1) != data.truth
    doubt = 1 - sure.max(axis=1)
    found: dict[str, object] = {"traces": len(wrong), "wrong": int(wrong.sum())}
    for share in SHARES:
        first = np.argsort(-doubt, kind="stable")[: int(share * len(wrong))]
        held = float(wrong[first].sum() / max(1, wrong.sum()))
        found[f"first {share:.0%} hold"] = round(held, 3)
    return found


def estimated(data: Measured, names: Sequence[str], seed: int) -> dict[str, object]:
    """Coverage and width of the intervals from random steps."""
    from evaluation import label_accuracy
    from labeling import first_error_posterior

    fit = first_error_posterior(data.steps, [data.labelers[name] for name in names])
    right, predicted = [], []
    for row, steps in enumerate(data.steps.tolist()):
        named = int(fit.probabilities[row].argmax())
        unharmed = np.cumsum(fit.probabilities[row][::-1])[::-1]
        for step in range(min(named + 1, steps)):
            says_wrong = step == named
            # The expert says whether a step is wrong; after the first error nobody was asked.
            is_wrong = step >= int(data.truth[row])
            right.append(float(says_wrong == is_wrong))
            fine = float(unharmed[step + 1])
            predicted.append(1 - fine if says_wrong else fine)
    truth, everywhere = np.array(right), np.array(predicted)
    rng = np.random.default_rng(seed)
    covered, widths = np.zeros(2), np.zeros(2)
    for _ in range(REPETITIONS):
        at = rng.choice(len(truth), STEPS_CHECKED, replace=False)
        found = label_accuracy(truth[at], everywhere[at], everywhere)
        for place, one in enumerate((found.tuned, found.alone)):
            low, high = one.ci95 or (0.0, 1.0)
            covered[place] += low <= truth.mean() <= high
            widths[place] += high - low
    covered, widths = covered / REPETITIONS, widths / REPETITIONS
    return {
        "labels": len(truth),
        "accuracy": round(float(truth.mean()), 4),
        "correlation": round(float(np.corrcoef(truth, everywhere)[0, 1]), 3),
        "covered": dict(zip(("tuned", "alone"), covered.round(3).tolist(), strict=True)),
        "width": dict(zip(("tuned", "alone"), widths.round(4).tolist(), strict=True)),
        "narrower": round(1 - float(widths[0] / widths[1]), 3),
    }


def timed(folder: Path, traces: int, steps: int, answers: int) -> dict[str, object]:
    """How long an answer and the next question take with many queued steps."""
    rng = np.random.default_rng(0)
    with Store.open(f"sqlite:///{folder / 'stepgold.db'}") as store:
        ids = [f"t{number:06}" for number in range(traces)]
        store.traces.import_file(
            "d", SourceFile("a", "1", "traces"), map(_row, ids, [steps] * traces)
        )
        store.labels.declare("d", Labeler("agreed", LabelerKind.CONSENSUS, {"rule": "bayes"}))
        for start in range(0, traces, 2000):
            part = ids[start : start + 2000]
            store.labels.put("d", "agreed", [_label(one, steps, rng) for one in part])
        began = time.perf_counter()
        queue = Queue(store, "d", QueueSettings(mode="every-step"))
        built = time.perf_counter() - began
        taken = []
        for number in range(answers):
            expert = f"E{number % 4}"
            began = time.perf_counter()
            question = queue.next(expert, at=time.time())
            assert question is not None
            taken.append(time.perf_counter() - began)
            began = time.perf_counter()
            answer = ReviewAnswer(
                trace_id=question.trace_id,
                step_index=question.step_index,
                expert=expert,
                answer=ExpertAnswer.CORRECT,
                token=f"n{number}",
                purpose=question.purpose,
            )
            queue.answer(answer, at=time.time())
            taken[-1] += time.perf_counter() - began
    return {
        "steps": traces * steps,
        "seconds_to_build": round(built, 2),
        "answer_and_next_ms": {
            name: round(1000 * float(np.quantile(taken, q)), 1)
            for name, q in (("median", 0.5), ("p95", 0.95), ("max", 1.0))
        },
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _row(id_: str, steps: int) -> ImportedTrace:
    return ImportedTrace(Problem(id_, "How much?"), Trace(id_, id_, ("Give 10 mg.",) * steps))


def _label(id_: str, steps: int, rng: np.random.Generator) -> TraceLabel:
    posterior = rng.dirichlet([0.2] * (steps + 1)).round(6).tolist()
    label = StepLabel(Verdict.CORRECT, score=0.5)
    meta = {"rule": "bayes", "posterior": posterior}
    return TraceLabel(id_, (label,) * steps, first_error_given=True, meta=meta)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print JSON documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=400, help="two traces each a source")
    parser.add_argument("--seed", type=int, default=20_261_130, help="no training used it")
    parser.add_argument("-k", type=int, default=8, help="continuations a prefix")
    parser.add_argument("--only", choices=("speed", "lab"), help="one part only")
    arguments = parser.parse_args(argv)
    if arguments.only != "lab":
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(timed(Path(folder), 12_500, 8, 1000), indent=1), flush=True)
    if arguments.only == "speed":
        return
    # Loaded last: they load torch, which is not the memory of the review.
    from benchmarks.consensus import label, measured
    from benchmarks.lab import sources

    for part in sources(arguments.seed, arguments.problems):
        data = measured(part, label(part, arguments.k, arguments.seed))
        for name, labelers in LABELERS.items():
            found: dict[str, object] = {"source": data.name, "labelers": name}
            found |= {"order": ordered(data, labelers)}
            found |= {"estimate": estimated(data, labelers, arguments.seed)}
            print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
