"""The window: the least of what the model and its tokenizer can look at."""

from __future__ import annotations

import pytest
from transformers import GPT2Config, LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config

from inference.local.checkpoints import model_window
from tests.tiny_models import tiny_tokenizer


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (LlamaConfig(max_position_embeddings=2048), 2048),
        (GPT2Config(n_positions=77), 77),
        (MistralConfig(max_position_embeddings=32768, sliding_window=4096), 4096),
        (MistralConfig(max_position_embeddings=512, sliding_window=None), 512),
        (
            Qwen2Config(max_position_embeddings=900, sliding_window=50, use_sliding_window=False),
            900,
        ),
        (Qwen2Config(max_position_embeddings=900, sliding_window=50, use_sliding_window=True), 50),
    ],
)
def test_the_models_own_limits(config: PretrainedConfig, window: int) -> None:
    assert model_window(config, tiny_tokenizer()) == window


def test_the_tokenizers_limit_counts_where_it_states_one() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 300
    assert model_window(LlamaConfig(max_position_embeddings=2048), tokenizer) == 300
