"""Proof, for the model at hand, that shared prefixes give what the plain model gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference.cache_argument import kept_in
from inference.prefix_sharing import ATTENTION, OwnCache, SharedPrefix
from inference.prefix_sharing_kept import Beginning, Ids, KeptPrefixes
from inference.vision_embedding import text_model
from traces.errors import ModelRefused

FAULTS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""How a model that cannot be driven this way fails."""
_IDS = 12
_CUTS = (8, 5)
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits, as a share of their largest size; 0.05 for half precision."""


def assert_sharing_works(model: PreTrainedModel) -> None:
    """Compare a few shared steps with the plain forward pass.

    Args:
        model: whose text model has the attention `ATTENTION`.

    Raises:
        ModelRefused: the logits differ, or the model cannot be driven this way at all.
    """
    ids = _spread(model)
    try:
        wanted, got = _plain(model, ids), shared_logits(model, ids, _CUTS)
    except FAULTS as fault:
        raise refusal(f"{type(fault).__name__}: {fault}") from fault
    found = difference(wanted, got, model.dtype)
    if found is not None:
        raise refusal(found)


def difference(wanted: Tensor, got: Tensor, dtype: torch.dtype) -> str | None:
    """How far logits lie apart, in words; None where that is what a data type's rounding does."""
    size = float(wanted.abs().max())
    apart = float((wanted - got).abs().max())
    return None if apart <= _TOLERANCE.get(dtype, 0.05) * max(size, 1.0) else f"logits differ by {apart:.2g}"  # fmt: skip


@torch.inference_mode()
def shared_logits(
    model: PreTrainedModel, ids: Ids, cuts: Sequence[int], beginning: Beginning | None = None
) -> Tensor:
    """Logits with what stands before the longest cut prefilled in parts and shared.

    Args:
        model: whose text model has the attention `ATTENTION`.
        ids: of one trace.
        cuts: where each row goes on; it is fed as many tokens as stand behind the longest.
        beginning: what the trace begins with where it shows images; cuts lie behind it.

    Returns:
        float32 `[rows, tokens fed, vocabulary]`.
    """
    kept = KeptPrefixes(max(cuts))
    for cut in sorted(cuts):
        made = kept.prefill(model, [("", ids[:cut])], [beginning])
    places = torch.tensor(cuts, device=model.device)
    shared = SharedPrefix(made.layers, torch.zeros_like(places), places)
    fed = torch.tensor(ids, device=model.device)
    steps = len(ids) - max(cuts)
    own, logits = OwnCache(len(made.layers), steps), []
    for step in range(steps):
        here = (places + step).unsqueeze(1)
        output = model(
            input_ids=fed[here],
            position_ids=here + made.shifts[0],
            shared_prefix=shared,
            **kept_in(model, own),
        )
        logits.append(output.logits[:, -1])
    return torch.stack(logits, dim=1).float()


def refusal(reason: str) -> ModelRefused:
    """What is said of a model that the local engine cannot drive."""
    return ModelRefused(
        f"This model's attention is of a kind that the local engine does not cover ({reason[:200]}).",
        remedy="serve it with an OpenAI-compatible server and name it openai:MODEL",
    )


def _spread(model: PreTrainedModel) -> Ids:
    """Fixed token ids spread over the vocabulary, so that the proof takes no randomness."""
    size = int(model.config.get_text_config().vocab_size)
    return tuple(i * 7919 % size for i in range(1, _IDS + 1))


@torch.inference_mode()
def _plain(model: PreTrainedModel, ids: Ids) -> Tensor:
    """Logits `[rows, steps, vocabulary]` at the places that the rows feed, by eager attention."""
    alone = model.config.get_text_config() is model.config
    inner = model if alone else text_model(model)
    inner.set_attn_implementation("eager")
    try:
        fed = torch.tensor([ids], device=model.device)
        logits = model(input_ids=fed, use_cache=False).logits[0]
    finally:
        inner.set_attn_implementation(ATTENTION)
    steps = _IDS - max(_CUTS)
    return torch.stack([logits[cut : cut + steps] for cut in _CUTS]).float()
