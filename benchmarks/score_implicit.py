"""Implicit PRMs: the engine against the published loop, in the same run.

The loop is that of EurusPRM's cards: one solution a forward, through the PRM and then through its
reference, log-softmax over the vocabulary at all positions. Two random Llamas of 4 layers, 512 wide, with
a vocabulary of 64,000. Peak memory: each side in a process of its own.

    python -m benchmarks.score_implicit [--candidates 8] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.score_case import Case, Size
from benchmarks.timing import peak_memory
from scoring.engine.engine import Scorer
from scoring.families.implicit import COEFFICIENT, REWARDS, ImplicitPrm
from traces import TraceInContext

_CASE = Case("no evidence", evidence=0, question=150, lengths=(300, 500))
_SIZE = Size(layers=4, width=512, vocabulary=64_000)
_TEMPLATE = (
    "{% for message in messages %}<|start|> {{ message['role'] }} {{ message['content'] }}<|end|>"
    "{% endfor %}"
)
"""The assistant's turn is closed by a control token right behind it, as Qwen's is."""
Sums = dict[str, list[float]]


class Bench:
    """A pair of models, driven both ways."""

    def __init__(self) -> None:
        self.models = [_SIZE.model() for _ in range(2)]
        for weight in self.models[1].parameters():
            weight.mul_(1.02)
        tokenizer = _SIZE.tokenizer()
        tokenizer.chat_template = _TEMPLATE
        self.family = ImplicitPrm(tokenizer, *self.models)
        self._before = self.models[0].config._attn_implementation
        self.scorer = Scorer(self.family, max_tokens=4096)
        self._shared = self.models[0].config._attn_implementation

    def loop(self, contexts: Sequence[TraceInContext]) -> Sums:
        """The published way, on the same ids and places."""
        found = {}
        for model in self.models:
            model.set_attn_implementation(self._before)
        for context in contexts:
            laid_out = self.family.lay_out(context, ())
            ids = torch.tensor([laid_out.ids])
            with torch.no_grad():
                own, other = (self._logs(model, ids) for model in self.models)
            rewards = COEFFICIENT * (own - other)
            rewards[: laid_out.read_at[0][0]] = 0
            sums = rewards.cumsum(0)
            found[context.trace.id] = [float(sums[at[-1]]) for at in laid_out.read_at]
        return found

    @staticmethod
    def _logs(model: Any, ids: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1]
        logs: torch.Tensor = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[0, :, 0]
        return logs

    def shared(self, contexts: Sequence[TraceInContext]) -> Sums:
        """The engine."""
        for model in self.models:
            model.set_attn_implementation(self._shared)
        return {label.trace_id: label.meta[REWARDS] for label in self.scorer.score(contexts)}


def _timed(work: Callable[[], Sums]) -> tuple[Sums, float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - processor


def _speed(candidates: int, rounds: int) -> dict[str, float]:
    """The best round of each side, and the largest difference of sums."""
    bench, contexts = Bench(), _CASE.problem(0, candidates)
    best = {"loop": (9e9, 9e9), "shared": (9e9, 9e9)}
    found: dict[str, Sums] = {}
    for _ in range(rounds):
        for side, run in (("loop", bench.loop), ("shared", bench.shared)):
            found[side], *times = _timed(lambda run=run: run(contexts))  # type: ignore[misc]
            best[side] = (min(best[side][0], times[0]), min(best[side][1], times[1]))
    pairs = [
        (a, b)
        for name, sums in found["loop"].items()
        for a, b in zip(sums, found["shared"][name], strict=True)
    ]
    return {
        "ratio_wall": best["loop"][0] / best["shared"][0],
        "ratio_processor": best["loop"][1] / best["shared"][1],
        "largest_difference": max(abs(a - b) for a, b in pairs),
        "largest_sum": max(abs(a) for a, _ in pairs),
    }


def _peak(side: str, candidates: int) -> float:
    """MiB at most beyond the loaded models, in a process of its own."""
    code = f"from benchmarks.score_implicit import peak; peak({side!r}, {candidates})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def peak(side: str, candidates: int) -> None:
    """Print how far one side drives the memory of this process (Linux)."""
    bench, contexts = Bench(), _CASE.problem(0, candidates)
    # What making the models took for a moment is forgotten: the mark starts at what they hold.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    (bench.loop if side == "loop" else bench.shared)(contexts)
    print((peak_memory() - before) / 2**20)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    figures = _speed(asked.candidates, asked.rounds)
    figures |= {f"peak_mib_{side}": _peak(side, asked.candidates) for side in ("loop", "shared")}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
