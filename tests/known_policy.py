"""A policy whose chance of success after every prefix is known: a Markov chain in a Llama's weights.

Layers add nothing to the stream, embeddings are one-hot, and the output head holds log p(next | last). So
the next token depends on the last one alone, and the chance to end with the right answer is a small
linear equation. Words of a trace are tokens; a step's last word says where its continuations start.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.tiny_models import save
from traces.problem import Problem, Trace, TraceInContext

RIGHT, WRONG, END = "The answer is 2.", "The answer is 3.", "[end]"
NEXT: dict[str, dict[str, float]] = {
    "good": {RIGHT: 0.6, WRONG: 0.1, "hmm": 0.3},
    "fair": {RIGHT: 0.2, WRONG: 0.3, "hmm": 0.4, "good": 0.1},
    "bad": {WRONG: 0.9, "hmm": 0.1},
    "lost": {WRONG: 1.0},
    "hmm": {RIGHT: 0.25, WRONG: 0.25, "hmm": 0.4, "fair": 0.1},
    RIGHT: {END: 1.0},
    WRONG: {END: 1.0},
}
"""Chances of the next word."""
_WORDS = ["[pad]", END, "[user]", "[policy]", "[other]", *NEXT]
_NEVER = -1e4


def chances() -> dict[str, float]:
    """The chance to end with the right answer after each word, by solving for absorption."""
    words = list(NEXT)
    step = np.array([[NEXT[a].get(b, 0.0) for b in words] for a in words])
    ends = np.array([1.0 if word == RIGHT else 0.0 for word in words])
    for row, word in enumerate(words):
        if word in (RIGHT, WRONG):
            step[row] = 0.0
    solved = np.linalg.solve(np.eye(len(words)) - step, ends)
    return dict(zip(words, solved.tolist(), strict=True))


def known_policy(folder: Path) -> Path:
    """Save the policy as a checkpoint folder."""
    size = len(_WORDS)
    width = 16
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=0.0,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    number = {word: place for place, word in enumerate(_WORDS)}
    with torch.no_grad():
        layer = model.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size, width))
        head = torch.full((size, width), _NEVER)
        for word, after in NEXT.items():
            for other, chance in after.items():
                head[number[other], number[word]] = float(np.log(chance))
        # The norm in front of the head makes a one-hot stream `sqrt(width)` long.
        model.lm_head.weight.copy_(head / width**0.5)
    core = Tokenizer(models.WordLevel(number, unk_token="[other]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token="[pad]",
        eos_token=END,
        unk_token="[other]",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = (
        "{% for message in messages %}[user] {{ message['content'] }} {% endfor %}[policy] "
    )
    return save(folder, tokenizer, model)


def known_traces(count: int) -> list[TraceInContext]:
    """Traces of one to four steps that end with each of the words."""
    words = ("good", "fair", "bad", "lost")
    return [
        TraceInContext(
            Problem(f"p{number}", f"hmm {'fair ' * (number % 3)}good", answer="2"),
            Trace(
                f"t{number}",
                f"p{number}",
                tuple(f"hmm {words[(number + step) % 4]}" for step in range(1 + number % 4)),
            ),
        )
        for number in range(count)
    ]
