"""What the text model inside an image-text model is given: embeddings with image features, positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference.vision import VisionInputs
from traces.errors import ModelRefused

_KNOWN = frozenset(
    {"inputs_embeds", "position_ids", "use_cache", "cache", "past_key_values", "return_dict"}
)


class _Reached(Exception):
    """The text model would run now."""


@dataclass(frozen=True, slots=True)
class EmbeddedTokens:
    """A conversation, or its beginning, as the text model inside takes it."""

    ids: tuple[int, ...]
    """Its token ids."""
    embeds: Tensor
    """`[1, tokens, width]`: token embeddings, image features in the places of the placeholders."""
    positions: Tensor
    """int64 `[axes, tokens]`: one axis; three (time, height, width) for Qwen2-VL and its kin."""
    following: int
    """The position of the next text token, the same on every axis."""
    others: Mapping[str, Any]
    """What else the text model is given that is not None; where this is not empty embeddings and
    positions do not tell the whole story (features added to deeper layers, masks that look ahead)."""

    @property
    def shift(self) -> int:
        """What is added to a text token's place behind these tokens to get its position."""
        return self.following - len(self.ids)


def text_model(model: PreTrainedModel) -> PreTrainedModel:
    """The text model inside an image-text model: takes `inputs_embeds`, gives hidden states.

    Raises:
        ModelRefused: it has none of its own.
    """
    inner: PreTrainedModel = model.get_decoder()  # type: ignore[no-untyped-call]
    if inner is model or inner is model.base_model:
        raise ModelRefused(
            "This image-text model has no text model of its own inside.",
            remedy="serve it with an OpenAI-compatible server and name it openai:MODEL",
        )
    return inner


@torch.inference_mode()
def embed(model: PreTrainedModel, inputs: VisionInputs) -> EmbeddedTokens:
    """Merge image features into the embeddings of a conversation, by the model's own code.

    The model runs up to its text model, which is not run: whatever the architecture does with
    images and positions is what it does here.

    Args:
        model: an image-text model with its head.
        inputs: all tokens, or a beginning that holds all images.

    Raises:
        ModelRefused: the text model inside is not reached, or is given no embeddings.
    """
    inner = text_model(model)
    with watched(inner, stop=True) as given, suppress(_Reached):
        run(model, inputs)
    embeds = given.get("inputs_embeds")
    if not isinstance(embeds, Tensor):
        raise ModelRefused(
            "This image-text model does not hand embeddings to its text model.",
            remedy="serve it with an OpenAI-compatible server and name it openai:MODEL",
        )
    positions = positions_of(given, len(inputs.ids), embeds.device)
    others = {name: value for name, value in given.items() if name not in _KNOWN and value is not None}  # fmt: skip
    return EmbeddedTokens(inputs.ids, embeds, positions, int(positions.max()) + 1, others)


def run(
    model: PreTrainedModel,
    inputs: VisionInputs,
    how: Callable[..., Any] | None = None,
    **options: Any,
) -> Any:
    """The model's own forward pass over one conversation.

    Args:
        model: an image-text model.
        inputs: what it takes.
        how: what of the model is called; None for all but the head that gives logits.
        options: further keywords.
    """
    ids = torch.tensor([inputs.ids], device=model.device)
    beside = {
        name: value.to(model.dtype) if value.is_floating_point() else value
        for name, value in inputs.beside.items()
    }
    return (how or model.base_model)(input_ids=ids, **beside, **options)


@contextmanager
def watched(inner: PreTrainedModel, *, stop: bool = False) -> Iterator[dict[str, Any]]:
    """Keep the keywords that a model is called with next; with `stop` it is then not run."""
    given: dict[str, Any] = {}

    def keep(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.update(kwargs)
        if stop:
            raise _Reached

    hook = inner.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield given
    finally:
        hook.remove()


def positions_of(given: Mapping[str, Any], tokens: int, device: torch.device) -> Tensor:
    """The positions that a text model was called with, `[axes, tokens]`; by default 0, 1, 2 ..."""
    positions = given.get("position_ids")
    if not isinstance(positions, Tensor):
        return torch.arange(tokens, device=device).unsqueeze(0)
    # Behind a row of plain places, if there are four, come time, height and width.
    return positions.reshape(-1, tokens)[-3:]
