"""The grown PRM: the policy inside it is untouched, and the comparison is exact before training."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lab import prompts
from lab.corruption import draw_trace
from lab.domain import decisive_passage, draw_facts, draw_question
from lab.training.grow import CODE, MISMATCH, CodeBook, grow
from lab.training.prm_examples import encode_verdicts
from lab.training.tokens import (
    build_tokenizer,
    decode,
    decoder_layers,
    encode,
    token_id,
    token_table,
)
from lab.training.train_language import fresh_model
from lab.training.train_prm import Readout, untrained


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer()


@pytest.fixture(scope="module")
def policy(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    fresh = fresh_model(tokenizer, seed=1)
    fresh.requires_grad_(False)
    return fresh


def book_for(policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> CodeBook:
    generator = torch.Generator().manual_seed(0)
    size, width = token_table(policy).shape
    return CodeBook(
        0.01 * torch.randn(size, CODE, generator=generator),
        0.001 * torch.randn(CODE, width, generator=generator),
        token_id(tokenizer, prompts.USER),
        token_id(tokenizer, "Explanation"),
        1.0,
    )


def marked_ids(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    rng = random.Random(3)
    facts = draw_facts(rng)
    question = draw_question(rng, facts)
    steps = draw_trace(rng, facts, question).steps
    user = prompts.marked_user_text(decisive_passage(facts), question.text, steps)
    return torch.tensor([encode(tokenizer, prompts.generation_prompt(user))])


def test_the_mismatch_is_the_squared_code_distance_inside_the_explanation_only(
    policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    book = book_for(policy, tokenizer)
    model = grow(policy, book)
    ids = marked_ids(tokenizer)
    with torch.inference_mode():
        states = model.model(input_ids=ids, output_hidden_states=True).hidden_states
        predicted = policy.model(input_ids=ids).last_hidden_state @ book.reader.T
    width = policy.config.hidden_size
    difference = states[-2][0, 1:, width : width + CODE]
    expected = book.codes[ids[0, 1:]] - predicted[0, :-1]
    torch.testing.assert_close(difference, expected, rtol=0.05, atol=1e-3)
    opening = ids[0].tolist().index(book.opening)
    mismatch = states[-2][0, :, width + MISMATCH]
    assert mismatch[opening + 2 :].min() > 10 * mismatch[:opening].abs().max()


def test_growing_leaves_the_policy_as_it_was(
    policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    model = grow(policy, book_for(policy, tokenizer))
    assert len(decoder_layers(model)) == len(decoder_layers(policy)) + 2
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_untrained_takes_what_was_taught_and_leaves_the_rest(
    policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = grow(policy, book_for(policy, tokenizer))
    Readout.of(model, tokenizer).write(model)
    built = {name: value.clone() for name, value in model.state_dict().items()}
    gather = decoder_layers(model)[-1]
    with torch.no_grad():
        for taught in (gather.self_attn.o_proj, gather.mlp.down_proj, model.model.norm):
            taught.weight += 0.5
        token_table(model)[token_id(tokenizer, prompts.POSITIVE)] += 0.5
    untrained(model, tokenizer)
    small = [f"model.layers.7.{name}_proj.weight" for name in ("mlp.gate", "mlp.up")]
    small += [f"model.layers.7.self_attn.{name}_proj.weight" for name in "qkv"]
    for name, value in model.state_dict().items():
        # Coordinates that were drawn at random are drawn again.
        torch.testing.assert_close(value, built[name], atol=0.2 if name in small else 1e-6, rtol=0)


def test_targets_turn_at_the_first_token_that_leaves_the_solution(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    verdicts = encode_verdicts(tokenizer, "Question:", ["6 x 20 = 120 mg."], ["6 x 20 = 140 mg."])
    tokens = [decode(tokenizer, [token]) for token in verdicts.encoded.ids]
    turned = verdicts.right.index(0.0)
    assert "".join(tokens[:turned]) == "Question: 6 x 20 = 1"
    assert "".join(tokens[turned:]) == "20 mg. ки"
    assert verdicts.encoded.weights == [0.0, 0.0] + [0.5] * (len(tokens) - 3) + [1.0]
