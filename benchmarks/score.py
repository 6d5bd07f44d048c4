"""`make bench-score`: shared-prefix scoring against the published loop, in the same run.

The loop is Med-PRM's: one sequence a forward, logits at all positions, softmax of the two signs at the
markers. Both sides lay the traces out themselves and use all processors of the machine.

    python -m benchmarks.score [--quick] [--rounds 2] [--loop-sample 8] [--only speed|memory]

`--loop-sample` candidates, evenly spread over the lengths, stand for all in the loop (0: all of them);
loop and shared scoring take turns within a round. The bound counts the operations of the linear layers
and of attention, without and with the output head. Peak memory: each side in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.score_case import MATH, RAG, Case, Size
from benchmarks.timing import peak_memory
from scoring.engine.engine import Scorer
from scoring.engine.forward import plant
from scoring.families.medprm import VERDICTS, MedPrm
from traces import TraceInContext

_QUICK = Size(layers=2, width=128, vocabulary=2_000)
_WINDOW = 8192
_TOLERANCE = 1e-4


@dataclass(slots=True)
class Bench:
    """One model, driven both ways."""

    size: Size
    family: MedPrm = field(init=False)
    model: Any = field(init=False)
    scorer: Scorer = field(init=False)

    def __post_init__(self) -> None:
        self.family, self.model = self.size.family()
        before = self.model.config._attn_implementation
        self.scorer = Scorer(self.family, max_tokens=_WINDOW)
        self._attention = {"loop": before, "shared": self.model.config._attn_implementation}

    _attention: dict[str, str] = field(init=False)

    def loop(self, contexts: Sequence[TraceInContext]) -> dict[str, list[float]]:
        """The published loop: step scores by trace id."""
        self.model.set_attn_implementation(self._attention["loop"])
        signs = self.family.tokenizer.convert_tokens_to_ids(list(VERDICTS))
        found = {}
        with torch.no_grad():
            for context in contexts:
                laid_out = self.family.lay_out(context, context.evidence)
                ids = torch.tensor([laid_out.ids])
                logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
                at = [place for (place,) in laid_out.read_at]
                found[context.trace.id] = logits[0, at][:, signs].softmax(-1)[:, 0].tolist()
        return found

    def shared(self, contexts: Sequence[TraceInContext]) -> dict[str, list[float]]:
        """The engine: step scores by trace id."""
        self.model.set_attn_implementation(self._attention["shared"])
        return {
            label.trace_id: [float(step.score or 0.0) for step in label.step_labels]
            for label in self.scorer.score(contexts)
        }

    def bounds(self, contexts: Sequence[TraceInContext]) -> tuple[float, float]:
        """Operations of the loop through operations of the tree: layers alone, and with the head."""
        laid_out = [self.family.lay_out(one, one.evidence) for one in contexts]
        work, row = self.scorer.work, 2 * self.size.width
        loop = sum(work.tokens(len(trace.ids)) for trace in laid_out)
        tree = sum(work.tokens(len(node.ids), node.start) for node in plant(laid_out, share=True))
        all_rows = sum(len(trace.ids) for trace in laid_out) * self.size.vocabulary * row
        read_rows = sum(len(trace.read_at) for trace in laid_out) * len(VERDICTS) * row
        return loop / tree, (loop + all_rows) / (tree + read_rows)


@dataclass(slots=True)
class Timed:
    """Time of several rounds."""

    candidates: int = 0
    wall: float = 0.0
    processor: float = 0.0

    def run(
        self,
        work: Callable[[Sequence[TraceInContext]], dict[str, list[float]]],
        contexts: Sequence[TraceInContext],
    ) -> dict[str, list[float]]:
        """Run and add up."""
        wall, processor = time.perf_counter(), time.process_time()
        found = work(contexts)
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor
        self.candidates += len(contexts)
        return found


def spread(contexts: Sequence[TraceInContext], count: int) -> list[TraceInContext]:
    """`count` of them, evenly spread over the lengths; all for 0."""
    if not 0 < count < len(contexts):
        return list(contexts)
    by_length = sorted(contexts, key=lambda one: sum(map(len, one.trace.steps)))
    return [by_length[(2 * i + 1) * len(by_length) // (2 * count)] for i in range(count)]


def speed(bench: Bench, case: Case, candidates: int, rounds: int, sample: int) -> dict[str, Any]:
    """One row: the loop and the engine on one problem, taking turns."""
    contexts = case.problem(0, candidates)
    loop, shared, worst = Timed(), Timed(), 0.0
    for number in range(rounds):
        sides = [(loop, bench.loop, spread(contexts, sample)), (shared, bench.shared, contexts)]
        found = [
            timed.run(work, chosen) for timed, work, chosen in sides[:: 1 if number % 2 else -1]
        ]
        few, all_of_them = sorted(found, key=len)
        worst = max(
            [
                worst,
                *(
                    abs(a - b)
                    for key in few
                    for a, b in zip(few[key], all_of_them[key], strict=True)
                ),
            ]
        )
    ratio = (shared.candidates / shared.wall) / (loop.candidates / loop.wall)
    processor = (shared.candidates / shared.processor) / (loop.candidates / loop.processor)
    bound, with_head = bench.bounds(contexts)
    if worst > _TOLERANCE:
        sys.exit(f"{case.name}, N={candidates}: probabilities differ by {worst:.2g}")
    return {
        "case": case.name, "N": candidates, "loop_per_s": loop.candidates / loop.wall,
        "shared_per_s": shared.candidates / shared.wall, "ratio": ratio,
        "ratio_processor_time": processor, "bound": bound, "share": ratio / bound,
        "bound_with_head": with_head, "share_with_head": ratio / with_head,
        "largest_difference": worst,
    }  # fmt: skip


def peak(size: str, side: str, candidates: int) -> int:
    """Peak memory of one side in a process of its own, bytes."""
    command = [sys.executable, "-m", "benchmarks.score", "--peak", side, str(candidates)]
    command += ["--quick"] if size == "quick" else []
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(ended.stdout.strip().splitlines()[-1])


def measure_peak(size: Size, side: str, candidates: int) -> None:
    """Run one side once and print the peak of this process; the loop needs the longest ones alone."""
    bench = Bench(size)
    contexts = RAG.problem(0, candidates)
    contexts.sort(key=lambda one: -sum(map(len, one.trace.steps)))
    run = {"loop": lambda: bench.loop(contexts[:2]), "shared": lambda: bench.shared(contexts)}
    run[side]()
    print(peak_memory())


def show(row: dict[str, Any]) -> None:
    """One line of the table."""
    print(
        f"{row['case']:>12} | {row['N']:>3} | {row['loop_per_s']:>8.3f} | {row['shared_per_s']:>8.3f}"
        f" | {row['ratio']:>5.2f} | {row['ratio_processor_time']:>5.2f} | {row['bound']:>5.2f}"
        f" | {row['share']:>5.2f} | {row['bound_with_head']:>5.2f} | {row['share_with_head']:>5.2f}"
        f" | {row['largest_difference']:.1e}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.score")
    parser.add_argument("--quick", action="store_true", help="a tiny model: shows that it runs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--loop-sample", type=int, default=8)
    parser.add_argument("--only", choices=("speed", "memory"))
    parser.add_argument("--json", action="store_true", help="one JSON line a row as well")
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    size = _QUICK if options.quick else Size()
    if options.peak:
        measure_peak(size, options.peak[0], int(options.peak[1]))
        return
    if options.only != "memory":
        bench = Bench(size)
        warm_up = Case("warm-up", evidence=64, question=8, lengths=(40, 80)).problem(0, 3)
        bench.loop(warm_up)
        bench.shared(warm_up)
        print(
            "        case |   N | loop /s  | shared/s | ratio |  cpu* | bound | share |"
            "  bnd+ |  shr+ | max diff"
        )
        for case, candidates in ((RAG, 1), (RAG, 8), (RAG, 64), (MATH, 8), (MATH, 64)):
            row = speed(bench, case, candidates, options.rounds, options.loop_sample)
            show(row)
            if options.json:
                print(json.dumps(row))
        print(
            "* ratio of processor time, which other work on the machine disturbs less\n"
            "bound: operations of linear layers and attention, loop through shared; bnd+ with the"
            " output head, which the loop computes at all positions; share: ratio through bound"
        )
    if options.only != "speed":
        sides = {
            side: peak("quick" if options.quick else "", side, 64) for side in ("loop", "shared")
        }
        ratio = sides["shared"] / sides["loop"]
        print(
            f"peak memory, {RAG.name}, N=64: loop {sides['loop'] / 2**20:.0f} MiB, shared"
            f" {sides['shared'] / 2**20:.0f} MiB, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
