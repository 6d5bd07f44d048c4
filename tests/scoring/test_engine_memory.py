"""Running out of memory halves the packs and loses nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.local.checkpoints import is_out_of_memory
from scoring.engine.cost import best_device, best_dtype, forward_tokens
from scoring.engine.engine import Scorer
from scoring.families.likelihood import Likelihood
from scoring.families.medprm import MedPrm
from tests.tiny_models import tiny_llama, tiny_tokenizer
from traces.errors import InputError
from traces.labels import AbstentionReason, TraceLabel
from traces.problem import Problem, Trace, TraceInContext


def scores(labels: Any) -> dict[str, list[float | None]]:
    return {label.trace_id: [step.score for step in label.step_labels] for label in labels}


@pytest.fixture
def family() -> MedPrm:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    return MedPrm(tokenizer, tiny_llama(tokenizer, max_position_embeddings=1024))


def narrow(family: MedPrm, limit: int) -> list[int]:
    """Let the model run out of memory above `limit` tokens; the sizes that were tried."""
    tried: list[int] = []

    def before(_: Any, __: Any, options: Any) -> None:
        tried.append(options["input_ids"].numel())
        if tried[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    family.backbone.register_forward_pre_hook(before, with_kwargs=True)
    return tried


@pytest.mark.parametrize("limit", [1000, 700, 450])
def test_halves_until_it_fits_and_goes_on(
    family: MedPrm, contexts: list[TraceInContext], limit: int
) -> None:
    wanted = scores(Scorer(family, max_tokens=1024).score(contexts))
    scorer = Scorer(family, max_tokens=1024, batch_tokens=100_000)
    tried = narrow(family, limit)
    found = list(scorer.score(contexts))
    assert len(found) == len(contexts), "each trace once"
    for name, values in scores(found).items():
        assert values == pytest.approx(wanted[name], abs=1e-5)
    assert tried[0] > limit
    assert scorer.batch_tokens <= tried[0] // 2
    assert sum(size > limit for size in tried) <= 4, "what did not fit is remembered"


def test_what_does_not_fit_alone_is_named_and_the_others_are_scored(
    family: MedPrm, contexts: list[TraceInContext]
) -> None:
    """With room for 200 tokens only traces without the long passage can be scored."""
    wanted = scores(Scorer(family, max_tokens=1024).score(contexts))
    scorer = Scorer(family, max_tokens=1024)
    narrow(family, 200)
    found: dict[str, TraceLabel] = {label.trace_id: label for label in scorer.score(contexts)}
    assert set(found) == set(wanted)
    lost = [label for label in found.values() if label.abstention is not None]
    assert 0 < len(lost) < len(found)
    for label in lost:
        assert label.abstention is not None
        assert label.abstention.reason is AbstentionReason.MODEL_ERROR
        assert label.abstention.retryable
        assert "memory" in label.abstention.detail
    for name, label in found.items():
        if label.abstention is None:
            assert [s.score for s in label.step_labels] == pytest.approx(wanted[name], abs=1e-5)


@pytest.mark.parametrize("failing", range(1, 5))
def test_a_read_out_without_memory_goes_again_behind_the_same_past(failing: int) -> None:
    """The likelihood's logits are larger than what its layers need: there the memory runs out too."""
    tokenizer = tiny_tokenizer()
    family = Likelihood(tokenizer, tiny_llama(tokenizer))
    problem = Problem("p", "Which dose? " * 6)
    candidates = [
        TraceInContext(problem, Trace(f"c{i}", "p", (f"Step 1: {i} mg. " * (1 + i % 5), "Done.")))
        for i in range(12)
    ]
    wanted = scores(Scorer(family, max_tokens=512, batch_tokens=120).score(candidates))
    calls = 0

    def read(hidden: torch.Tensor, next_ids: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return Likelihood.probabilities(family, hidden, next_ids)

    family.probabilities = read  # type: ignore[method-assign]
    scorer = Scorer(family, max_tokens=512, batch_tokens=120)
    found = scores(scorer.score(candidates))
    assert set(found) == set(wanted)
    for name, values in found.items():
        assert values == pytest.approx(wanted[name], abs=1e-5)
    assert scorer.batch_tokens < 120


def test_another_fault_is_not_taken_for_a_lack_of_memory(
    family: MedPrm, contexts: list[TraceInContext]
) -> None:
    scorer = Scorer(family, max_tokens=1024)

    def before(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    family.backbone.register_forward_pre_hook(before)
    with pytest.raises(RuntimeError, match="shapes"):
        list(scorer.score(contexts))


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("expected scalar type Float"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_pack_suits_the_width_of_the_model(family: MedPrm) -> None:
    tokenizer = tiny_tokenizer()
    wide = tiny_llama(tokenizer, hidden_size=256, intermediate_size=4096, num_hidden_layers=1)
    assert 1024 <= forward_tokens(wide) < forward_tokens(family.backbone) <= 1 << 16


def test_devices_and_dtypes() -> None:
    assert best_device("cpu").type == "cpu"
    for wrong in ("gpu", "cuda:77", "xyz"):
        with pytest.raises(InputError, match=wrong):
            best_device(wrong)
    assert best_dtype(torch.device("cpu"), None) is torch.float32
    assert best_dtype(torch.device("cuda"), None) is torch.bfloat16
    assert best_dtype(torch.device("mps"), "float16") is torch.float16
    with pytest.raises(InputError, match="int8"):
        best_dtype(torch.device("cpu"), "int8")


@pytest.mark.slow
def test_under_a_real_limit_of_memory(tmp_path: Path) -> None:
    """A process that may not have the memory for its batch size scores all the same."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    asked, kept, differing = done.stdout.split()
    assert int(kept) < int(asked)
    assert float(differing) < 1e-4


_LIMITED = """
import resource
import torch
from benchmarks.score_case import Case, Size
from scoring.engine.engine import Scorer

torch.set_num_threads(1)
family, model = Size(layers=1, width=128, vocabulary=2000).family()
contexts = Case("c", evidence=300, question=20, lengths=(100, 200)).problem(0, 24)
calm = {label.trace_id: label for label in Scorer(family, max_tokens=4096).score(contexts)}
scorer = Scorer(family, max_tokens=4096, batch_tokens=60000)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (8 << 20), resource.RLIM_INFINITY))
found = list(scorer.score(contexts))
assert len(found) == len(calm)
pairs = [(s.score, t.score) for label in found
         for s, t in zip(label.step_labels, calm[label.trace_id].step_labels, strict=True)]
print(60000, scorer.batch_tokens, max(abs(a - b) for a, b in pairs))
"""
