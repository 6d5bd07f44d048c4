"""A random Med-PRM checkpoint and datasets for it, small enough for the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny_models import save, tiny_llama, tiny_tokenizer


def save_prm(folder: Path, **changes: Any) -> Path:
    """Write the checkpoint; `changes` go to the model's configuration."""
    tokenizer = tiny_tokenizer(extra=[" ки"])
    return save(
        folder, tokenizer, tiny_llama(tokenizer, **{"max_position_embeddings": 2048, **changes})
    )


def write_pool(
    path: Path, *, problems: int, candidates: int, long_ones: int = 0, documents: int = 3
) -> Path:
    """Problems with documents; of each problem the first `long_ones` candidates are far longer.

    Candidate by candidate, not problem by problem, as files of sampled solutions often are.
    """
    with path.open("w") as file:
        for index in range(candidates):
            for number in range(problems):
                words = 60 if index < long_ones else 1 + (number + index) % 4
                steps = [f"Step {t + 1}: {'6 mg per kg ' * words}" for t in range(3)]
                evidence = [
                    {"source": "c", "title": f"d{r}", "text": f"{number}: the cap is {r} mg. " * 4}
                    for r in range(documents)
                ]
                row = {
                    "id": f"p{number}:{index}", "problem": f"Which dose for patient {number}?",
                    "steps": steps, "evidence": evidence,
                }  # fmt: skip
                file.write(json.dumps(row) + "\n")
    return path
