"""The two policies that the engine benchmark drives, with the traces that they continue."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lab import LabProblem, build_workspace, bundled_model_folder
from traces import Evidence, Passage, Problem, Trace, TraceInContext

_VOCABULARY = 32_000
_TEMPLATE = "{% for message in messages %}[user] {{ message['content'] }} [policy] {% endfor %}"


@dataclass(frozen=True, slots=True)
class Case:
    """A policy and what it continues."""

    name: str
    """For the table."""
    folder: Path
    """Checkpoint of the policy."""
    contexts: tuple[TraceInContext, ...]
    """Traces, all of whose prefixes are continued."""
    k: int
    """Continuations a prefix."""
    new_tokens: int
    """Limit of one continuation, for both sides."""
    generate_prefixes: int
    """Prefixes, evenly spread, that stand for all of them on the slow side."""
    greedy_prefixes: int
    """Prefixes whose greedy texts are compared."""


def lab_case(*, problems: int) -> Case:
    """The lab's policy (0.7M parameters, prefixes of 100 to 200 tokens), which ends its turns itself."""
    workspace = build_workspace(5, problems)
    asked = {one.id: one for one in workspace.problems}
    contexts = tuple(
        TraceInContext(
            Problem(one.problem_id, asked[one.problem_id].question),
            Trace(one.id, one.problem_id, one.steps),
            (_evidence(asked[one.problem_id]),),
        )
        for one in workspace.traces
    )
    return Case(
        "lab policy", bundled_model_folder("policy"), contexts, 16, 130, problems, 2 * problems
    )


def _evidence(problem: LabProblem) -> Evidence:
    text = problem.decisive_passage
    return Evidence(Passage("lab", problem.drug, 0, 0, len(text), text), 0.9, 0)


def llama_case(scratch: Path, *, quick: bool) -> Case:
    """A random Llama of 110M parameters (tied output head) behind prefixes of 1,000 words."""
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=64 if quick else 768,
        intermediate_size=128 if quick else 2048,
        num_hidden_layers=2 if quick else 12,
        num_attention_heads=4 if quick else 12,
        num_key_value_heads=4 if quick else 12,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    folder = scratch / "llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = _word_tokenizer()
    tokenizer.save_pretrained(folder)
    contexts = (_trace(0, question=870, steps=6, words=40),)
    limits = (2, 2) if quick else (2, 6)
    return Case("llama 110M", folder, contexts, 16, 8 if quick else 64, *limits)


def _word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word: `w0`, `w1`, ..."""
    words = ["[pad]", "[user]", "[policy]", "Question:"]
    words += [f"w{number}" for number in range(_VOCABULARY - len(words))]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, pad_token="[pad]", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _trace(number: int, *, question: int, steps: int, words: int) -> TraceInContext:
    """A problem of `question` words and a trace of `steps` steps of `words` words each."""
    draw = random.Random(number)

    def text(count: int) -> str:
        return " ".join(f"w{draw.randrange(_VOCABULARY - 4)}" for _ in range(count))

    return TraceInContext(
        Problem(f"p{number}", text(question)),
        Trace(f"t{number}", f"p{number}", tuple(text(words) for _ in range(steps))),
    )
