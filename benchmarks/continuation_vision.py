"""`make bench-continue`, part "vision": traces with images against `model.generate` called per prefix.

What a user would write: processor, conversation and prefix to `model.generate(num_return_sequences=k)`,
the images encoded and prefilled anew for every prefix. Both sides sample with the same k, temperature,
limit and end of turn, and take turns; greedily, one sequence a prefix, both must write the same.

    python -m benchmarks.continuation_vision [--problems 3] [--rounds 1] [--threads 2] [--json]

The model is a random LLaVA of 48M parameters, 256 tokens an image.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.utils.logging import disable_progress_bar

from inference import (
    LocalModel,
    LocalPolicy,
    PolicyConfig,
    ProblemImages,
    continuation_messages,
    load_local_model,
    run_model,
)
from tests.tiny_vision import Kind, llava, llava_processor, save_vision
from traces import Problem, Trace, TraceInContext

_STEPS = tuple(f"Step {n}: the image shows {n * 12} of 300, so {n} x 12 is taken off." for n in range(1, 7))  # fmt: skip
_SIZE = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}  # fmt: skip
_SIDE, _K, _NEW, _TRACES = 224, 8, 24, 2


def build(folder: Path, problems: int) -> list[TraceInContext]:
    """A checkpoint, images, and two traces of six steps a problem."""
    kind = Kind(
        "<image>\n",
        {"image_token": "<image>"},
        partial(llava_processor, side=_SIDE),
        partial(llava, side=_SIDE, tower=_SIZE),
    )
    text = {**_SIZE, "num_key_value_heads": 4, "max_position_embeddings": 2048}
    save_vision(folder, kind, initializer_range=0.05, **text)
    draw = np.random.default_rng(0)
    contexts = []
    for number in range(problems):
        pixels = draw.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((400, 300)).save(folder / f"{number}.png")
        problem = Problem(f"p{number}", "What is left?", images=(f"{number}.png",))
        contexts += [TraceInContext(problem, Trace(f"{number}:{n}", problem.id, _STEPS), ()) for n in range(_TRACES)]  # fmt: skip
    return contexts


def policy(folder: Path, temperature: float) -> LocalPolicy:
    """Ours."""
    return LocalPolicy(
        str(folder),
        PolicyConfig(max_tokens=_NEW, temperature=temperature, with_evidence=False),
        spec="hf:random",
        images=ProblemImages(folder),
    )


def by_generate(
    local: LocalModel, contexts: Sequence[TraceInContext], folder: Path, **options: Any
) -> dict[tuple[str, int], list[str]]:
    """What a user would write."""
    texts = {}
    model: Any = local.model
    for one in contexts:
        for step in range(len(one.trace.steps)):
            messages = continuation_messages(
                one.problem,
                (),
                one.trace.prefix(step),
                system=None,
                separator="\n",
                images=ProblemImages(folder).of(one.problem),
            )
            if local.vision is None:
                raise SystemExit("the model takes no images")
            inputs = local.vision.read(messages)
            rows = run_model(model, inputs, model.generate, max_new_tokens=_NEW, pad_token_id=0, **options)  # fmt: skip
            new = [row[len(inputs.ids) :] for row in rows.tolist()]
            texts[one.trace.id, step] = local.tokenizer.batch_decode(new, skip_special_tokens=True)
    return texts


def main(argv: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="continuation_vision")
    for name, default in (("problems", 3), ("rounds", 1), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contexts = build(folder, options.problems)
        plain, sampling = load_local_model(name), policy(folder, 0.8)
        prefixes = sum(len(one.trace.steps) for one in contexts)
        wall = {"generate": 0.0, "engine": 0.0}
        for _ in range(options.rounds):
            start = time.perf_counter()
            by_generate(plain, contexts, folder, do_sample=True, temperature=0.8, top_k=0, num_return_sequences=_K)  # fmt: skip
            middle = time.perf_counter()
            tokens = [one.prefilled_tokens for one in sampling.continue_traces(contexts, k=_K, seed=0)]  # fmt: skip
            wall["generate"] += middle - start
            wall["engine"] += time.perf_counter() - middle
        few = contexts[:2]
        greedy = by_generate(plain, few, folder, do_sample=False)
        ours = {
            (one.trace_id, text.step_index): [text.text]
            for one in policy(folder, 0.0).continue_traces(few, k=1, seed=0)
            for text in one.texts
        }
    count = prefixes * _K * options.rounds
    found = {side: count / seconds for side, seconds in wall.items()}
    said = {
        "parameters": plain.model.num_parameters(),
        "continuations_per_second": found,
        "ratio": found["engine"] / found["generate"],
        "prefilled_tokens": sum(one or 0 for one in tokens),
        "greedy_equal": sum(ours[key] == text for key, text in greedy.items()),
        "greedy_compared": len(greedy),
        "torch": torch.__version__,
    }
    print(json.dumps(said) if options.json else "\n".join(f"{k}: {v}" for k, v in said.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
