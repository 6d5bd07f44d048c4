"""Proof, for the model at hand, that shared prefixes give what the plain model gives."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference.prefix_sharing import ATTENTION, OwnCache, SharedPrefix
from inference.prefix_sharing_kept import KeptPrefixes
from traces.errors import ModelRefused

_IDS = 12
_CUTS = (8, 5)
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits, as a share of their largest size; 0.05 for half precision."""


def assert_sharing_works(model: PreTrainedModel) -> None:
    """Compare a few shared steps with the plain forward pass.

    Args:
        model: loaded with `attn_implementation=ATTENTION`.

    Raises:
        ModelRefused: the logits differ, or the model cannot be driven this way at all.
    """
    try:
        wanted, got = _plain(model), _shared(model)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as fault:
        raise _refusal(f"{type(fault).__name__}: {fault}") from fault
    size = float(wanted.abs().max())
    difference = float((wanted - got).abs().max())
    if not difference <= _TOLERANCE.get(model.dtype, 0.05) * max(size, 1.0):
        raise _refusal(f"logits differ by {difference:.2g}")


def _ids(model: PreTrainedModel) -> Tensor:
    """Fixed token ids spread over the vocabulary, so that the proof takes no randomness."""
    spread = torch.arange(1, _IDS + 1, device=model.device) * 7919
    return (spread % int(model.config.vocab_size)).unsqueeze(0)


@torch.inference_mode()
def _plain(model: PreTrainedModel) -> Tensor:
    """Logits `[rows, steps, vocabulary]` at the positions that the rows feed, by eager attention."""
    model.set_attn_implementation("eager")
    try:
        logits = model(input_ids=_ids(model), use_cache=False).logits[0]
    finally:
        model.set_attn_implementation(ATTENTION)
    steps = _IDS - max(_CUTS)
    return torch.stack([logits[cut : cut + steps] for cut in _CUTS]).float()


@torch.inference_mode()
def _shared(model: PreTrainedModel) -> Tensor:
    """The same logits with the first tokens prefilled in two parts and shared."""
    ids, steps = _ids(model), _IDS - max(_CUTS)
    kept = KeptPrefixes(max(_CUTS))
    for cut in sorted(_CUTS):
        layers, _ = kept.prefill(model, [("", tuple(ids[0, :cut].tolist()))])
    cuts = torch.tensor(_CUTS, device=model.device)
    shared = SharedPrefix(layers, torch.zeros_like(cuts), cuts)
    own, logits = OwnCache(len(layers), steps), []
    for step in range(steps):
        positions = (cuts + step).unsqueeze(1)
        output = model(
            input_ids=ids[0, positions],
            position_ids=positions,
            past_key_values=own,
            use_cache=True,
            shared_prefix=shared,
        )
        logits.append(output.logits[:, -1])
    return torch.stack(logits, dim=1).float()


def _refusal(reason: str) -> ModelRefused:
    return ModelRefused(
        f"This model's attention is of a kind that the local engine does not cover ({reason[:200]}).",
        remedy="serve it with an OpenAI-compatible server and name it openai:MODEL",
    )
