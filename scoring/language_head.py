"""The output head of a language model: log-probabilities of the tokens of a text, in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from traces.errors import PrmError

_LOGITS_NUMBERS = 1 << 25
"""Most logits (positions times vocabulary) computed at once."""
_PROBE = (5, 9, 2, 7)
"""Ids on which the head is tried."""
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits, as a share of their largest size; 0.01 for half precision, of which both
sides go through the same operations."""


class LanguageHead:
    """Reads the next token's log-probability off a causal language model's hidden states."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Take a causal language model.

        Raises:
            PrmError: its logits are not what its head makes of its last hidden states.
        """
        self._head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if not _is_all(model, self._head):
            raise PrmError(
                f"The model ({model.config.model_type}) changes its logits behind the output head,"
                " so that they cannot be read off hidden states.",
                remedy="take another language model",
            )

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        return int(self._head.weight.shape[0])

    def following_logs(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """The log-probability of the id that follows each position.

        Args:
            hidden: `[positions, width]`, the model's last hidden states.
            next_ids: int64 `[positions]`.

        Returns:
            float32 `[positions]`, at most 0. Some 2^25 logits at most are held at once.
        """
        size = max(1, _LOGITS_NUMBERS // self.vocabulary)
        parts = []
        for start in range(0, len(hidden), size):
            logits = self._head(hidden[start : start + size]).float()
            ids = next_ids[start : start + size]
            chosen = logits.gather(1, ids.unsqueeze(1)).squeeze(1)
            parts.append(chosen - logits.logsumexp(dim=1))
        return torch.cat(parts)


@torch.inference_mode()
def _is_all(model: PreTrainedModel, head: torch.nn.Module) -> bool:
    """Whether nothing but the head stands between hidden states and logits: some cap or scale them."""
    size = int(model.config.get_text_config().vocab_size)
    ids = torch.tensor([[i % size for i in _PROBE]], device=model.device)
    if ids.is_meta:
        # Shapes without weights, as a server's checkpoint is held here: nothing is read off them.
        return True
    wanted = model(input_ids=ids, use_cache=False).logits.float()
    got = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()
    limit = _TOLERANCE.get(model.dtype, 0.01) * max(float(wanted.abs().max()), 1.0)
    return float((wanted - got).abs().max()) <= limit
