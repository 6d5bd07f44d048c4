"""What the strategies of `stepgold continue` spend and miss, against `all`: `make bench-continue`.

On lab traces (half corrupted, half written by the policy) `all` draws every prefix 16 times. A strategy
draws a subset of exactly these continuations (continuation i of step t depends on seed, trace, t and i
alone), so what it would have drawn is replayed from them; on some traces it is really run and must give
the very same labels and tokens. Tokens are those generated and those prefilled; disagreement is the
share of traces whose first error is not the exact truth. Intervals: paired bootstrap by problem.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from benchmarks.lab import Source, decisive_passages, source
from inference import LocalPolicy, PolicyConfig, continuation_messages, conversation_ids
from lab import build_workspace, bundled_model_folder, sample_traces
from labeling import (
    STRATEGIES,
    AnswerChecker,
    MonteCarloConfig,
    check_texts,
    continue_by_strategy,
    label_progress,
    start_progress,
)
from traces import TraceContinuations, TraceInContext, TraceLabel, Wanted, first_error

RESAMPLES = 2000


@dataclass(frozen=True)
class Spent:
    """One strategy on one trace."""

    problem: str
    generated: int
    prefilled: int
    agrees: bool
    """Whether its first error is the exact one."""
    as_all: bool
    """Whether every hard label it gives is the one `all` gives."""


class Replayed:
    """A policy that answers from what `all` has drawn."""

    def __init__(
        self, drawn: dict[str, TraceContinuations], prefixes: dict[str, list[int]]
    ) -> None:
        self._texts = {
            (trace_id, text.step_index, text.index): text
            for trace_id, whole in drawn.items()
            for text in whole.texts
        }
        self._prefixes = prefixes
        self._filled: dict[str, int] = {}

    spec = "lab"

    def continue_traces(self, contexts: Any, *, k: int, seed: int) -> Iterator[TraceContinuations]:
        """Everything."""
        for one in contexts:
            steps = range(len(one.trace.steps))
            yield from self.continue_wanted([(one, [Wanted(s, 0, k) for s in steps])], seed=seed)

    def continue_wanted(
        self, asked: Sequence[tuple[TraceInContext, Sequence[Wanted]]], *, seed: int
    ) -> Iterator[TraceContinuations]:
        """Just these; prefix tokens count once, as far as a trace was ever prefilled."""
        for context, wanted in asked:
            trace_id = context.trace.id
            texts = tuple(
                self._texts[trace_id, one.step_index, index]
                for one in wanted
                for index in range(one.first, one.first + one.count)
            )
            reached = self._prefixes[trace_id][max(one.step_index for one in wanted)]
            new = max(0, reached - self._filled.get(trace_id, 0))
            self._filled[trace_id] = max(reached, self._filled.get(trace_id, 0))
            yield TraceContinuations(trace_id, texts, prefilled_tokens=new)

    def release(self, trace_ids: Sequence[str]) -> None:
        """Nothing is kept."""


def lab_policy() -> LocalPolicy:
    """The lab's policy as `stepgold continue --policy lab` runs it, within 130 tokens."""
    return LocalPolicy(
        str(bundled_model_folder("policy")),
        PolicyConfig(max_tokens=130, temperature=1.0),
        spec="lab",
    )


def lab_sources(problems: int, seed: int) -> list[Source]:
    """Two traces a problem of each origin."""
    lab = build_workspace(seed, problems, problems_per_drug=2, n_distractors=0)
    passages = decisive_passages(lab)
    shown = {problem.id: passages[problem.drug].text for problem in lab.problems}
    sampled = sample_traces(lab.problems, shown, per_problem=2, seed=seed)
    return [
        source("corrupted", lab.problems, lab.traces, passages),
        source("sampled", lab.problems, sampled, passages),
    ]


def draw(contexts: list[TraceInContext], k: int) -> list[TraceContinuations]:
    """Everything, in this process on one core."""
    import torch

    torch.set_num_threads(1)
    return list(lab_policy().continue_traces(contexts, k=k, seed=0))


def draw_on_all_cores(
    contexts: list[TraceInContext], k: int, workers: int
) -> dict[str, TraceContinuations]:
    """The same in several processes; by trace."""
    parts = [contexts[start::workers] for start in range(workers)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        done = pool.map(draw, parts, [k] * workers)
        return {one.trace_id: one for part in done for one in part}


def prefix_lengths(contexts: Sequence[TraceInContext]) -> dict[str, list[int]]:
    """Tokens of every prefix that are shared (all but the last, which is fed to each row)."""
    tokenizer = AutoTokenizer.from_pretrained(
        bundled_model_folder("policy"), trust_remote_code=False
    )
    lengths = {}
    for one in contexts:
        conversations = [
            continuation_messages(
                one.problem, one.evidence, one.trace.prefix(step), system=None, separator="\n"
            )
            for step in range(len(one.trace.steps))
        ]
        lengths[one.trace.id] = [len(ids) - 1 for ids in conversation_ids(tokenizer, conversations)]
    return lengths


def spend(
    name: str,
    part: Source,
    whole: dict[str, TraceContinuations],
    lengths: dict[str, list[int]],
    k: int,
) -> dict[str, Spent]:
    """One strategy, replayed over one source."""
    config = MonteCarloConfig(k=k, strategy=name)
    by_id = {context.trace.id: context for context in part.contexts}
    words = continue_by_strategy(
        part.contexts, Replayed(whole, lengths), AnswerChecker.for_problem, config
    )
    found = {}
    for word in words:
        label, drawn = word.label, word.continuations
        context = by_id[label.trace_id]
        hard = _hard_labels(context, whole[label.trace_id], k)
        steps = {one.step_index for one in drawn}
        truth = part.gold[label.trace_id].first_error_index
        named = first_error(label)
        found[label.trace_id] = Spent(
            context.problem.id,
            sum(one.tokens for one in drawn),
            max((lengths[label.trace_id][step] for step in steps), default=0),
            not named.missing and named.index == truth,
            all(
                step.verdict is None or step.verdict == other.verdict
                for step, other in zip(label.step_labels, hard.step_labels, strict=True)
            ),
        )
    return found


def _hard_labels(context: TraceInContext, whole: TraceContinuations, k: int) -> TraceLabel:
    checker, config = AnswerChecker.for_problem(context.problem), MonteCarloConfig(k=k)
    progress = start_progress(context, checker, config)
    progress.add(check_texts(context, whole.texts, checker))
    return label_progress(context, progress, config)


def compare(name: str, every: dict[str, Spent], some: dict[str, Spent]) -> dict[str, Any]:
    """One strategy against `all`, with paired bootstrap intervals by problem."""
    ids = sorted(every)
    problems = sorted({every[trace_id].problem for trace_id in ids})
    index = {problem: number for number, problem in enumerate(problems)}
    owner = np.array([index[every[trace_id].problem] for trace_id in ids])

    def per_problem(values: list[float]) -> Any:
        return np.bincount(owner, weights=values, minlength=len(problems))

    tokens = per_problem([float(some[i].generated + some[i].prefilled) for i in ids])
    whole = per_problem([float(every[i].generated + every[i].prefilled) for i in ids])
    lost = per_problem([float(every[i].agrees) - float(some[i].agrees) for i in ids])
    traces = per_problem([1.0] * len(ids))
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(problems), [1 / len(problems)] * len(problems), RESAMPLES)
    ratios = (weights @ tokens) / (weights @ whole)
    points = (weights @ lost) / (weights @ traces)
    return {
        "strategy": name,
        "tokens_share": round(tokens.sum() / whole.sum(), 4),
        "tokens_ci95": [round(float(x), 4) for x in np.quantile(ratios, [0.025, 0.975])],
        "generated": sum(some[i].generated for i in ids),
        "prefilled": sum(some[i].prefilled for i in ids),
        "disagreement": round(1 - sum(some[i].agrees for i in ids) / len(ids), 4),
        "more_than_all": round(lost.sum() / len(ids), 4),
        "more_ci95": [round(float(x), 4) for x in np.quantile(points, [0.025, 0.975])],
        "same_hard_labels": sum(some[i].as_all for i in ids) / len(ids),
    }


def really_run(part: Source, whole: dict[str, TraceContinuations], n: int, k: int) -> int:
    """Run every strategy on the first `n` traces; return how many labels differ from the replay."""
    contexts, different = part.contexts[:n], 0
    lengths = prefix_lengths(contexts)
    for name in STRATEGIES:
        config = MonteCarloConfig(k=k, strategy=name)
        words = [
            {
                one.label.trace_id: (
                    one.label.step_labels,
                    [(each.step_index, each.index, each.text) for each in one.continuations],
                )
                for one in continue_by_strategy(contexts, policy, AnswerChecker.for_problem, config)
            }
            for policy in (lab_policy(), Replayed(whole, lengths))
        ]
        different += sum(words[0][trace_id] != words[1][trace_id] for trace_id in words[0])
    return different


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500, help="four traces each")
    parser.add_argument("--seed", type=int, default=20_261_127, help="used for nothing before")
    parser.add_argument("-k", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--run", type=int, default=32, help="traces a source that are really run")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    every: dict[str, dict[str, Spent]] = {name: {} for name in STRATEGIES}
    for part in lab_sources(arguments.problems, arguments.seed):
        whole = draw_on_all_cores(part.contexts, arguments.k, arguments.workers)
        lengths = prefix_lengths(part.contexts)
        mine = {name: spend(name, part, whole, lengths, arguments.k) for name in STRATEGIES}
        for name, spent in mine.items():
            figures = {"source": part.name, "traces": len(spent)} | compare(
                name, mine["all"], spent
            )
            print(json.dumps(figures), flush=True)
            every[name] |= {f"{part.name} {trace_id}": one for trace_id, one in spent.items()}
        different = really_run(part, whole, arguments.run, arguments.k)
        print(
            json.dumps({"really_run": arguments.run, "labels_that_differ": different}), flush=True
        )
    for name, spent in every.items():
        both = {"source": "both", "traces": len(spent)} | compare(name, every["all"], spent)
        print(json.dumps(both), flush=True)
    print(json.dumps({"seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
