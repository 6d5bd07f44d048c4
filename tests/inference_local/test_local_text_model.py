"""The local text model: what `generate` gives, seeds per sample, and a plain word for what does not fit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference.local.engines import LocalTextModel
from inference.protocol import GenerationRequest, Message, TextModel
from traces.records import ModelReply

REQUEST = GenerationRequest((Message("system", "Be brief."), Message("user", "Which dose?")), 9)


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> TextModel:
    return LocalTextModel(str(tiny_folder), spec="hf:tiny")


def ask(model: TextModel, request: GenerationRequest) -> ModelReply:
    return asyncio.run(model.generate(request))


def test_greedy_reply_equals_generate(model: TextModel, tiny_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    text = (
        "<|begin|><|start|>system<|close|>\n\nBe brief.<|end|><|start|>user<|close|>\n\n"
        "Which dose?<|end|><|start|>assistant<|close|>\n\n"
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    plain: Any = AutoModelForCausalLM.from_pretrained(tiny_folder)
    output = plain.generate(ids, max_new_tokens=9, do_sample=False, pad_token_id=0)
    reply = ask(model, REQUEST)
    assert reply.text == tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    assert (reply.finish_reason, reply.usage.input_tokens) == ("length", ids.shape[1])
    assert (reply.usage.output_tokens, reply.usd, reply.model) == (9, 0.0, "hf:tiny")


def test_samples_differ_and_repeat(model: TextModel) -> None:
    sampled = replace(REQUEST, temperature=1.0, seed=3)
    first = ask(model, sampled)
    assert ask(model, sampled) == first
    assert ask(model, replace(sampled, sample_index=1)).text != first.text
    assert ask(model, replace(sampled, seed=4)).text != first.text


def test_a_last_assistant_turn_is_continued(model: TextModel) -> None:
    reply = ask(model, REQUEST)
    assert reply.text is not None
    begun = Message("assistant", "the dose")
    continued = ask(model, replace(REQUEST, messages=(*REQUEST.messages, begun)))
    assert continued.usage.input_tokens == reply.usage.input_tokens + 2


def test_a_prompt_beyond_the_window_is_said_and_not_cut(model: TextModel) -> None:
    long = replace(REQUEST, messages=(Message("user", "dose " * 600),))
    reply = ask(model, long)
    assert (reply.text, reply.finish_reason) == (None, "over_length")
    assert reply.raw.endswith("do not fit in 512.")


def test_the_window_limits_the_reply(model: TextModel) -> None:
    long = replace(REQUEST, messages=(Message("user", "dose " * 480),), max_tokens=10_000)
    reply = ask(model, long)
    assert 490 < reply.usage.input_tokens < 512
    assert 0 < reply.usage.output_tokens <= 512 - reply.usage.input_tokens


def test_it_is_local_and_takes_one_request_at_a_time(model: TextModel) -> None:
    assert (model.spec, model.hosted, model.concurrency) == ("hf:tiny", False, 1)
    asyncio.run(model.aclose())
