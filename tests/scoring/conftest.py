"""Small random PRMs of each family, saved as checkpoints, and traces with every trap in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scoring.checkpoints import save_qwen_prm
from tests.tiny_models import save, tiny_llama, tiny_tokenizer
from traces.evidence import Evidence, Passage
from traces.problem import Problem, Trace, TraceInContext

DOCUMENTS = (
    "The cap of the drug is 300 mg, and never more than that. " * 6,
    "The dose is 6 mg per kg.",
    "Halved below eGFR 30.",
)


@pytest.fixture(scope="session")
def medprm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose tokenizer has the marker as a special token, as the published one."""
    tokenizer = tiny_tokenizer(extra=[" ки"])
    return save(
        tmp_path_factory.mktemp("medprm"),
        tokenizer,
        tiny_llama(tokenizer, max_position_embeddings=1024),
    )


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 with the published head of two linear layers."""
    return save_qwen_prm(tmp_path_factory.mktemp("qwen"), published=True)


@pytest.fixture(scope="session")
def contexts() -> list[TraceInContext]:
    """Nine traces: options, several lines in a step, blanks around it, evidence of 0 to 3 passages."""
    steps = (
        "Step 1: the dose is 6 mg per kg.",
        "Step 2: 6 x 30 = 180 mg,\nso 180 mg.",
        " Step 3: the cap is 300 mg. ",
        "Step 4: the answer is (A).",
    )
    made = []
    for number in range(9):
        options = ("180 mg", "300 mg") if number % 2 else ()
        problem = Problem(f"p{number}", f"Which single dose for patient {number}?", options)
        evidence = tuple(
            Evidence(Passage("c", f"d{rank}", 0, 0, len(text), text), None, rank)
            for rank, text in enumerate(DOCUMENTS[: number % 4])
        )
        trace = Trace(f"t{number}", problem.id, steps[: 1 + number * 7 % 4])
        made.append(TraceInContext(problem, trace, evidence))
    return made
