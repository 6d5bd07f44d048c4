"""`make bench-continue`, part "engine": the local engine against `model.generate` called per prefix.

What a user would write: render the prefix, tokenise it, `model.generate(ids, num_return_sequences=k)`.
Both sides sample with the same k, temperature and max_new_tokens, both end a row at the model's end of
turn (the random model has none, so all its rows are equally long), and both use all processors. They take
turns within a round; greedily, with one sequence a prefix, both must write the same texts.

    python -m benchmarks.continuation_engine [--quick] [--rounds 1] [--only lab|llama] [--prefixes 8]
        [--problems 24] [--threads 1] [--json]

`--prefixes` of all prefixes, evenly spread, stand for all of them on the side of `generate`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from benchmarks.continuation_engine_case import Case, lab_case, llama_case
from inference import LocalPolicy, PolicyConfig
from traces import TraceInContext

_WANTED_RATIO = 3.0
Prefix = tuple[TraceInContext, int]
Texts = dict[tuple[str, int], list[str]]


@dataclass(slots=True)
class Timed:
    """Time of several rounds."""

    continuations: int = 0
    wall: float = 0.0
    processor: float = 0.0

    def run(self, work: Callable[[], Texts]) -> Texts:
        """Run and add up."""
        wall, processor = time.perf_counter(), time.process_time()
        texts = work()
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor
        self.continuations += sum(map(len, texts.values()))
        return texts


@dataclass(slots=True)
class Bench:
    """One model, driven both ways."""

    case: Case
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    model: Any = field(init=False)
    tokenizer: Any = field(init=False)
    policies: dict[bool, LocalPolicy] = field(init=False)

    def __post_init__(self) -> None:
        folder = self.case.folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        disable_progress_bar()  # type: ignore[no-untyped-call]
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=self.dtype, trust_remote_code=False
        )
        self.model = model.to(self.device).eval()
        self.policies = {
            greedy: LocalPolicy(
                str(folder),
                PolicyConfig(max_tokens=self.case.new_tokens, temperature=0.0 if greedy else 1.0),
                spec=f"hf:{self.case.name}",
                device=self.device,
                dtype=self.dtype,
            )
            for greedy in (False, True)
        }

    def generate(self, prefixes: Sequence[Prefix], k: int, *, greedy: bool = False) -> Texts:
        """One call a prefix; texts by trace and step."""
        texts: Texts = {}
        how: dict[str, Any] = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0}
        for context, step in prefixes:
            documents = "".join(
                f"Document {number}: {one.passage.text}\n\n"
                for number, one in enumerate(context.evidence, 1)
            )
            question = f"{documents}Question: {context.problem.question}"
            rendered = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                tokenize=False,
                add_generation_prompt=True,
            )
            rendered += "".join(f"{one}\n" for one in context.trace.prefix(step))
            asked = self.tokenizer(rendered, add_special_tokens=False, return_tensors="pt")
            with torch.inference_mode():
                written = self.model.generate(
                    input_ids=asked["input_ids"].to(self.device),
                    attention_mask=asked["attention_mask"].to(self.device),
                    num_return_sequences=k,
                    max_new_tokens=self.case.new_tokens,
                    pad_token_id=0,
                    **how,
                )
            # Decoded behind its prefix: some decoders drop a blank where a text starts.
            before, *_ = self.tokenizer.batch_decode(asked["input_ids"], skip_special_tokens=True)
            whole = self.tokenizer.batch_decode(written, skip_special_tokens=True)
            texts[context.trace.id, step] = [one.removeprefix(before) for one in whole]
        return texts

    def engine(self, k: int, *, greedy: bool = False) -> Texts:
        """All prefixes of all traces through the policy."""
        texts: Texts = {}
        for done in self.policies[greedy].continue_traces(self.case.contexts, k=k, seed=0):
            for one in done.texts:
                texts.setdefault((done.trace_id, one.step_index), []).append(one.text)
        return texts


def spread(prefixes: Sequence[Prefix], count: int) -> list[Prefix]:
    """`count` of them, evenly spread; all if there are fewer."""
    if count >= len(prefixes):
        return list(prefixes)
    return [prefixes[(2 * i + 1) * len(prefixes) // (2 * count)] for i in range(count)]


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    """One row: greedy texts compared, then both sides timed in turns."""
    case = bench.case
    prefixes = [(one, step) for one in case.contexts for step in range(len(one.trace.steps))]
    chosen = spread(prefixes, case.generate_prefixes)
    plain = bench.generate(spread(prefixes, case.greedy_prefixes), 1, greedy=True)
    shared = bench.engine(1, greedy=True)
    differing = sorted(key for key, texts in plain.items() if texts != shared[key])
    generate, engine = Timed(), Timed()
    sides: list[tuple[Timed, Callable[[], Texts]]] = [
        (generate, lambda: bench.generate(chosen, case.k)),
        (engine, lambda: bench.engine(case.k)),
    ]
    for number in range(rounds):
        for timed, work in sides[:: -1 if number % 2 else 1]:
            timed.run(work)
    rates = [one.continuations / one.wall for one in (generate, engine)]
    processor = [one.continuations / one.processor for one in (generate, engine)]
    return {
        "case": case.name, "k": case.k, "prefixes": len(prefixes), "new_tokens": case.new_tokens,
        "generate_per_s": rates[0], "engine_per_s": rates[1], "ratio": rates[1] / rates[0],
        "ratio_processor_time": processor[1] / processor[0], "greedy_compared": len(plain),
        "greedy_differing": len(differing), "near_ties": bench.policies[True].near_ties,
    }  # fmt: skip


def show(row: dict[str, Any]) -> None:
    """One line of the table."""
    print(
        f"{row['case']:>14} | {row['k']:>3} | {row['prefixes']:>8} | {row['generate_per_s']:>10.2f} |"
        f" {row['engine_per_s']:>8.2f} | {row['ratio']:>5.2f} | {row['ratio_processor_time']:>5.2f} |"
        f" {row['greedy_compared'] - row['greedy_differing']:>4} of {row['greedy_compared']}",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; ends with exit 1 if a greedy text differs."""
    parser = argparse.ArgumentParser(prog="benchmarks.continuation_engine")
    parser.add_argument("--quick", action="store_true", help="small models: shows that it runs")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=("lab", "llama"))
    parser.add_argument("--prefixes", type=int, help="for generate [default: 24 and 2]")
    parser.add_argument("--problems", type=int, default=24, help="of the lab, two traces each")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="one JSON line a row as well")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print("          case |   k | prefixes | generate/s | engine/s | ratio |  cpu* | greedy equal")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        problems = 4 if options.quick else options.problems
        made: dict[str, Callable[[], Case]] = {
            "lab": lambda: lab_case(problems=problems),
            "llama": lambda: llama_case(Path(scratch), quick=options.quick),
        }
        for name, make in made.items():
            if options.only not in (None, name):
                continue
            case = make()
            if options.prefixes:
                few = options.prefixes
                case = replace(case, generate_prefixes=few, greedy_prefixes=2 * few)
            rows.append(measure(Bench(case), options.rounds))
            show(rows[-1])
            if options.json:
                print(json.dumps(rows[-1]))
    print(
        f"continuations a second, wanted: ratio of at least {_WANTED_RATIO:g}\n"
        "* ratio of processor time, which other work on the machine disturbs less"
    )
    if any(row["greedy_differing"] for row in rows):
        sys.exit("greedy texts differ")


if __name__ == "__main__":
    main()
