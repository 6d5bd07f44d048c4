"""Two models: vocabularies held against each other, memory that runs out in either, logits in parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from scoring import load_scorer
from scoring.engine.cost import LayerWork
from scoring.engine.engine import Scorer, window_of
from scoring.engine.heads import LanguageHead
from scoring.families.implicit import REWARDS, ImplicitPrm
from scoring.family import difference
from tests.scoring.golden_cases import trace
from tests.scoring.golden_tokenizers import llama31, qwen25
from tests.tiny_models import evaluating, save, tiny_llama, tiny_tokenizer
from traces.errors import PrmError
from traces.labels import AbstentionReason
from traces.problem import Trace, TraceInContext

TOKENIZER = tiny_tokenizer()


def family(**reference: Any) -> ImplicitPrm:
    return ImplicitPrm(
        TOKENIZER, tiny_llama(TOKENIZER, seed=1), tiny_llama(TOKENIZER, seed=2, **reference)
    )


def candidates(count: int) -> list[TraceInContext]:
    one: TraceInContext = trace("Which dose? " * 4, "6 mg.")
    return [
        replace(one, trace=Trace(f"c{n}", "p", ("6 x 30. " * (1 + n % 5), "So it is 180.")))
        for n in range(count)
    ]


def sums(scorer: Scorer, contexts: list[TraceInContext]) -> dict[str, Any]:
    return {label.trace_id: label.meta.get(REWARDS) for label in scorer.score(contexts)}


@pytest.fixture(scope="module")
def wanted() -> dict[str, Any]:
    """The sums of six candidates."""
    return sums(Scorer(family(), max_tokens=512), candidates(6))


def test_the_reference_may_know_more_but_nothing_else() -> None:
    more = tiny_tokenizer(extra=["<more>"])
    assert difference(TOKENIZER, TOKENIZER) is None
    assert difference(TOKENIZER, more) is None
    assert "<more>" in str(difference(more, TOKENIZER))
    assert "the reference numbers it" in str(difference(qwen25(), llama31()))


def test_the_same_vocabulary_split_otherwise_is_another_one() -> None:
    """Digits one by one or by threes: the vocabularies alone would pass."""
    from tokenizers import pre_tokenizers

    other = tiny_tokenizer()
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    assert other.get_vocab() == TOKENIZER.get_vocab()
    assert "split" in str(difference(TOKENIZER, other))


@pytest.mark.parametrize("which", [0, 1], ids=["model", "reference"])
@pytest.mark.parametrize("failing", [1, 3])
def test_memory_that_runs_out_in_either_model_loses_nothing(
    which: int, failing: int, wanted: dict[str, Any]
) -> None:
    pair = family()
    calls = 0

    def before(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    scorer = Scorer(pair, max_tokens=512, batch_tokens=100)
    pair.readers[which].backbone.register_forward_pre_hook(before)
    found = sums(scorer, candidates(6))
    assert set(found) == set(wanted)
    for name, values in found.items():
        assert values == pytest.approx(wanted[name], abs=1e-7)
    assert scorer.batch_tokens < 100


def test_what_one_of_them_has_no_memory_for_is_named() -> None:
    pair = family()
    scorer = Scorer(pair, max_tokens=512, batch_tokens=4000)

    def before(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    pair.readers[1].backbone.register_forward_pre_hook(before)
    labels = list(scorer.score(candidates(3)))
    reasons = {label.abstention.reason for label in labels if label.abstention is not None}
    assert (len(labels), reasons) == (3, {AbstentionReason.MODEL_ERROR})


def test_logits_are_held_in_parts(monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]) -> None:
    rows: list[int] = []
    model = tiny_llama(TOKENIZER, seed=1)
    parts = ImplicitPrm(TOKENIZER, model, tiny_llama(TOKENIZER, seed=2))
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, given: rows.append(given[0].shape[0])
    )
    monkeypatch.setattr("scoring.engine.heads._LOGITS_NUMBERS", 7 * len(TOKENIZER))
    found = sums(Scorer(parts, max_tokens=512), candidates(2))
    for name, values in found.items():
        assert values == pytest.approx(wanted[name], abs=1e-7)
    assert max(rows) == 7
    assert len(rows) > 2


def test_a_model_that_caps_its_logits_is_refused() -> None:
    """Gemma 2 does so behind its head: read off hidden states its probabilities would be others."""
    made: Any = Gemma2ForCausalLM
    config: dict[str, Any] = {
        "vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.4,
    }  # fmt: skip
    torch.manual_seed(0)
    with pytest.raises(PrmError, match="gemma2"):
        LanguageHead(evaluating(made(Gemma2Config(final_logit_softcapping=0.5, **config))))
    LanguageHead(evaluating(made(Gemma2Config(final_logit_softcapping=None, **config))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_reason_to_refuse(dtype: torch.dtype) -> None:
    LanguageHead(tiny_llama(TOKENIZER).to(dtype))


def test_the_narrower_window_and_the_work_of_both_hold(tmp_path: Path) -> None:
    pair = family(max_position_embeddings=128)
    assert window_of(pair) == 128
    works = [LayerWork.of(reader.backbone) for reader in pair.readers]
    both = LayerWork.of(*(reader.backbone for reader in pair.readers))
    assert both.tokens(9) == sum(work.tokens(9) for work in works)
    folders = [
        str(save(tmp_path / name, TOKENIZER, tiny_llama(TOKENIZER, max_position_embeddings=size)))
        for name, size in (("wide", 512), ("narrow", 128))
    ]
    assert load_scorer(folders[0], reference=folders[1]).config()["max_tokens"] == 128


def test_a_template_that_does_not_close_the_turn_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    models = [tiny_llama(tokenizer, seed=seed) for seed in (1, 2)]
    with pytest.raises(PrmError, match="chat template"):
        ImplicitPrm(tokenizer, *models)
