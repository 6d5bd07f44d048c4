"""The shipped models load through plain transformers and keep about what their card says."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from lab import prompts
from lab.build import ModelName, bundled_model_folder, load_bundled
from lab.training.measures import (
    HeldOut,
    draw_held_out,
    likelihood_figures,
    marker_first_errors,
    pass_rate,
)
from lab.training.tokens import build_tokenizer

NAMES: tuple[ModelName, ...] = ("policy", "judge", "prm")


@pytest.fixture(scope="module")
def held_out() -> list[HeldOut]:
    return draw_held_out(31_000, 60)


def test_all_shipped_files_stay_small() -> None:
    files = [path for path in bundled_model_folder("prm").parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10 * 1024 * 1024


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_tokenizer_is_the_built_one(name: ModelName) -> None:
    built = build_tokenizer()
    for loader in (AutoTokenizer, PreTrainedTokenizerFast):
        shipped = loader.from_pretrained(bundled_model_folder(name))
        assert shipped.get_vocab() == built.get_vocab()
        assert shipped.chat_template == prompts.CHAT_TEMPLATE
        text = "<|user|>Question: 6 x 120 = 720 mg. ки<|end|>"
        assert shipped.decode(shipped.encode(text)) == text


def test_the_policy_samples_by_default_and_stops_at_the_end_token() -> None:
    config = GenerationConfig.from_pretrained(bundled_model_folder("policy"))
    assert config.do_sample is True
    assert config.eos_token_id == build_tokenizer().convert_tokens_to_ids(prompts.END)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_plain_transformers_gives_the_bundled_model(name: ModelName) -> None:
    plain = AutoModelForCausalLM.from_pretrained(bundled_model_folder(name), dtype="float32")
    model, tokenizer = load_bundled(name)
    ids = torch.tensor([tokenizer.encode("<|user|>Question: Which single dose?<|end|>")])
    with torch.inference_mode():
        assert torch.equal(plain(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.slow
def test_the_judge_needs_the_right_passage(held_out: list[HeldOut]) -> None:
    model, tokenizer = load_bundled("judge")
    right = likelihood_figures(model, tokenizer, held_out)
    wrong = likelihood_figures(model, tokenizer, held_out, wrong_passage=True)
    assert right.step_accuracy > 0.85
    assert right.processbench_f1 > 0.75
    assert wrong.step_accuracy < right.step_accuracy - 0.15


@pytest.mark.slow
def test_the_policy_solves_most_but_not_all(held_out: list[HeldOut]) -> None:
    model, tokenizer = load_bundled("policy")
    assert 0.5 < pass_rate(model, tokenizer, held_out) < 0.98
    assert pass_rate(model, tokenizer, held_out[:30], wrong_passage=True) < 0.3


@pytest.mark.slow
def test_the_prm_finds_first_errors(held_out: list[HeldOut]) -> None:
    model, tokenizer = load_bundled("prm")
    right = marker_first_errors(model, tokenizer, held_out)
    wrong = marker_first_errors(model, tokenizer, held_out, wrong_passage=True)
    assert right.processbench_f1 > 0.7
    assert wrong.processbench_f1 < right.processbench_f1 - 0.3
