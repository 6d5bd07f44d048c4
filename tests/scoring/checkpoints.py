"""Qwen-PRM checkpoints as they are published, small and random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForTokenClassification

from tests.tiny_models import evaluating, save, tiny_tokenizer

CHATML = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def qwen_tokenizer() -> Any:
    """As Qwen's: no BOS, contents as they stand, the marker a special token."""
    tokenizer = tiny_tokenizer(extra=["<extra_0>"], begin=False)
    tokenizer.chat_template = CHATML
    return tokenizer


def save_qwen_prm(folder: Path, *, published: bool, labels: int = 2) -> Path:
    """Write a checkpoint.

    Args:
        folder: where to.
        published: with the architecture, remote code and two-layer head of Qwen2.5-Math-PRM;
            otherwise as `AutoModelForTokenClassification` saves it.
        labels: classes of the head.
    """
    tokenizer = qwen_tokenizer()
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "initializer_range": 0.35, "num_labels": labels,
    }  # fmt: skip
    torch.manual_seed(2)
    model: Any = Qwen2ForTokenClassification
    save(folder, tokenizer, evaluating(model(Qwen2Config(**settings))))
    if published:
        weights = load_file(folder / "model.safetensors")
        weights = {name: value for name, value in weights.items() if not name.startswith("score")}
        weights["score.0.weight"], weights["score.0.bias"] = torch.randn(32, 32), torch.randn(32)
        weights["score.2.weight"] = torch.randn(labels, 32) / 8
        weights["score.2.bias"] = torch.zeros(labels)
        weights["lm_head.weight"] = torch.randn(len(tokenizer), 32)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = ["Qwen2ForProcessRewardModel"]
        config["auto_map"] = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"}
        (folder / "config.json").write_text(json.dumps(config))
    return folder
