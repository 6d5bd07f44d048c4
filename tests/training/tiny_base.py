"""A tiny base model, and a dataset whose wrong steps a tiny model can learn to see."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import stepgold
from tests.tiny_models import save, tiny_llama, tiny_tokenizer


def save_base(folder: Path, *, layers: int = 1, seed: int = 0) -> Path:
    """A random language model without markers."""
    tokenizer = tiny_tokenizer()
    model = tiny_llama(
        tokenizer, num_hidden_layers=layers, initializer_range=0.1, tie_word_embeddings=True
    )
    return save(folder, tokenizer, model)


def rows(number: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Traces of three or four steps; every second one has a wrong step, which says 300."""
    rng = random.Random(seed)
    found = []
    for at in range(number):
        steps = [f"the dose is {rng.randint(1, 6)} mg" for _ in range(rng.choice([3, 4]))]
        error = None
        if at % 2:
            error = rng.randrange(len(steps))
            steps[error] = "the cap is 300 mg"
        found.append(
            {
                "id": f"t{at}",
                "problem": f"Question {at}: which dose?",
                "steps": steps,
                "labels": {"gold": {"kind": "gold", "first_error": error}},
            }
        )
    return found


def workspace(folder: Path, made: list[dict[str, Any]]) -> stepgold.Workspace:
    """A workspace with these traces as dataset `d`."""
    file = folder / "traces.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    found = stepgold.Workspace(folder / "w", progress=False)
    found.import_("traces", file, dataset="d")
    return found
