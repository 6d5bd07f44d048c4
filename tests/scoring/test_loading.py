"""From a checkpoint to a scorer: recognised, or refused with a word on what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scoring import FitOptions, Scorer, load_scorer
from tests.tiny_models import save, tiny_llama, tiny_tokenizer
from traces.errors import InputError, PrmError


def test_families_are_recognised_by_their_tokens(medprm_folder: Path, qwen_folder: Path) -> None:
    assert load_scorer(f"hf:{medprm_folder}").family.name == "medprm"
    assert load_scorer(str(qwen_folder)).family.name == "qwen-prm"


def test_published_aggregations(medprm_folder: Path, qwen_folder: Path) -> None:
    found = [
        load_scorer(str(medprm_folder)).family.aggregation,
        load_scorer(str(qwen_folder)).family.aggregation,
        load_scorer(str(medprm_folder), family="likelihood").family.aggregation,
    ]
    assert found == ["min", "product", "min"]


def test_an_unknown_checkpoint_asks_for_the_family(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(PrmError) as refusal:
        load_scorer(str(save(tmp_path, tokenizer, tiny_llama(tokenizer))))
    assert "--family" in str(refusal.value)
    for name in ("medprm-orm", "qwen-prm800k", "math-shepherd", "rlhflow-mistral", "FILE.toml"):
        assert name in str(refusal.value)


def test_an_unknown_family_is_wrong_use(medprm_folder: Path) -> None:
    with pytest.raises(InputError, match="nonesuch"):
        load_scorer(str(medprm_folder), family="nonesuch")


@pytest.mark.parametrize("family", ["medprm", "qwen-prm"])
def test_a_checkpoint_of_another_family_is_refused(
    medprm_folder: Path, qwen_folder: Path, family: str
) -> None:
    other = qwen_folder if family == "medprm" else medprm_folder
    with pytest.raises(PrmError):
        load_scorer(str(other), family=family)


def test_a_missing_checkpoint_is_a_prm_error() -> None:
    with pytest.raises(PrmError, match="no such folder"):
        load_scorer("hf:no/such/prm")


def test_an_incomplete_checkpoint_is_a_prm_error(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    folder = save(tmp_path, tokenizer, tiny_llama(tokenizer))
    (folder / "model.safetensors").unlink()
    with pytest.raises(PrmError, match="cannot be loaded"):
        load_scorer(str(folder))


@pytest.mark.parametrize(("positions", "window"), [(300, 300), (8192, 4096)])
def test_the_window_is_the_models_but_at_most_4096(
    tmp_path: Path, positions: int, window: int
) -> None:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    folder = save(tmp_path, tokenizer, tiny_llama(tokenizer, max_position_embeddings=positions))
    assert load_scorer(str(folder)).config()["max_tokens"] == window
    assert (
        load_scorer(str(folder), options=FitOptions(positions)).config()["max_tokens"] == positions
    )
    for wrong in (0, positions + 1):
        with pytest.raises(InputError, match="window"):
            load_scorer(str(folder), options=FitOptions(wrong))


def test_other_weights_are_another_configuration(medprm_folder: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    other = save(tmp_path, tokenizer, tiny_llama(tokenizer, seed=9, max_position_embeddings=1024))
    one, two = load_scorer(str(medprm_folder)), load_scorer(str(other))
    assert one.config() != two.config()
    assert one.config() == load_scorer(str(medprm_folder)).config()
    assert one.resolved_model == one.config()["weights"]


def test_half_precision_weights_give_float32_probabilities(medprm_folder: Path) -> None:
    scorer = load_scorer(str(medprm_folder), dtype=torch.bfloat16)
    assert isinstance(scorer, Scorer)
    hidden = torch.randn(50, 32, dtype=torch.bfloat16)
    read = scorer.family.probabilities(hidden, torch.zeros(50, dtype=torch.int64))
    assert read.dtype == torch.float32
    assert not torch.equal(read, read.to(torch.bfloat16).float())
    assert scorer.config()["dtype"] == "bfloat16"


def test_importing_the_package_loads_no_model_library() -> None:
    code = "import scoring, scoring.families, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    import scoring

    with pytest.raises(AttributeError, match="nonesuch"):
        _ = scoring.nonesuch  # type: ignore[attr-defined]
