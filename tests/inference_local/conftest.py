"""One small random policy, saved as a checkpoint, and traces for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_models import save, tiny_llama, tiny_tokenizer
from traces.evidence import Evidence, Passage
from traces.problem import Problem, Trace, TraceInContext

_STEPS = (
    "Step 1: the dose is 6 mg per kg.",
    "Step 2: 6 x 30 = 180 mg,\nso 180 mg.",
    "Step 3: the cap is 300 mg.",
    "Step 4: the answer is 180 mg.",
)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with a random Llama that has clear preferences."""
    tokenizer = tiny_tokenizer()
    return save(tmp_path_factory.mktemp("tiny"), tokenizer, tiny_llama(tokenizer))


@pytest.fixture(scope="session")
def contexts() -> list[TraceInContext]:
    """Seven traces of one to four steps, with questions of different lengths and one passage."""
    made = []
    for number in range(7):
        question = "Which single dose? " * (1 + number % 3) + f"Patient {number}."
        passage = Passage("c", "d", 0, 0, 20, f"The cap of drug {number} is 300 mg.")
        made.append(
            TraceInContext(
                Problem(f"p{number}", question, answer="180 mg"),
                Trace(f"t{number}", f"p{number}", _STEPS[: 1 + number % 4]),
                (Evidence(passage, 0.9, 0),),
            )
        )
    return made
