"""Embeddings and positions given to the text model: the same hidden states as the whole model's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference.local.vision import VisionReader, embed_images, inner_text_model, run_model
from inference.local.vision_loading import image_ids
from tests.inference_local.test_vision_reading import STEPS, conversation
from tests.tiny_models import tiny_llama, tiny_tokenizer
from tests.tiny_vision import tiny_vision
from traces.errors import ModelRefused


def read(kind: str) -> tuple[Any, VisionReader]:
    model, processor = tiny_vision(kind)
    return model, VisionReader(processor, image_ids(model.config, processor), model.device)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "internvl"])
@torch.inference_mode()
def test_the_text_model_gives_the_whole_models_hidden_states(kind: str) -> None:
    model, reader = read(kind)
    inputs = reader.read(conversation(*STEPS))
    given = embed_images(model, inputs)
    assert (given.ids, given.others) == (inputs.ids, {})
    alone = inner_text_model(model)(
        inputs_embeds=given.embeds, position_ids=given.positions.unsqueeze(1).squeeze(0)
    )
    wanted = run_model(model, inputs, use_cache=False).last_hidden_state
    assert torch.allclose(alone.last_hidden_state, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "internvl", "gemma3"])
def test_the_head_is_embedded_as_in_the_whole_conversation(kind: str) -> None:
    model, reader = read(kind)
    messages = conversation(*STEPS)
    head = reader.head(messages)
    assert head is not None
    whole, part = (
        embed_images(model, reader.read(messages)),
        embed_images(model, reader.inputs(head)),
    )
    tokens = len(head.ids)
    assert torch.equal(part.embeds, whole.embeds[:, :tokens])
    assert torch.equal(part.positions, whole.positions[:, :tokens])
    assert part.shift == whole.shift
    behind = torch.arange(len(whole.ids) - tokens) + part.following
    assert torch.equal(whole.positions[:, tokens:], behind.expand(len(whole.positions), -1))


def test_positions_count_rows_and_columns_where_the_model_does() -> None:
    model, reader = read("qwen2_vl")
    given = embed_images(model, reader.read(conversation("a", images=1)))
    # Six placeholders in two rows of three take three positions, so that text goes on three earlier.
    assert (given.positions.shape[0], given.shift) == (3, -3)
    model, reader = read("llava")
    given = embed_images(model, reader.read(conversation("a", images=1)))
    assert (given.positions.shape[0], given.shift) == (1, 0)


def test_masks_that_look_ahead_are_told() -> None:
    model, reader = read("gemma3")
    assert "attention_mask" in embed_images(model, reader.read(conversation("a"))).others


def test_nothing_of_the_watching_stays() -> None:
    model, reader = read("llava")
    inputs = reader.read(conversation("a"))
    embed_images(model, inputs)
    with torch.inference_mode():
        assert run_model(model, inputs).last_hidden_state.shape[1] == len(inputs.ids)


def test_a_text_model_has_no_text_model_inside() -> None:
    with pytest.raises(ModelRefused, match="no separate text model"):
        inner_text_model(tiny_llama(tiny_tokenizer()))
