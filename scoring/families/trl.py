"""PRMs trained by TRL's PRMTrainer (removed in TRL 2026-09): two classes at each step's separator.

Rows are laid out as the trainer's `tokenize_row` did (huggingface/trl, trl/experimental/prm, up to
v1.9): the prompt behind a BOS if the tokenizer has one, each step encoded alone with the separator's
ids behind it, nothing between prompt and first step; class 1 is "right". (The inference snippet of
its cards puts a separator before the first step too: that is not what was trained.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.families.math_shepherd import question_inline
from scoring.family import Aggregation, LaidOutTrace
from traces.context import TraceInContext
from traces.errors import PrmError
from traces.evidence import Evidence

SEPARATOR: Final = "\n"
"""The trainer's default `step_separator`."""
HEADS: Final = (("score",), ("classifier",))
"""Where the token classification head lies."""


class TrlTokenClassification:
    """The read-out of `AutoModelForTokenClassification` PRMs on one checkpoint."""

    name = "trl"
    aggregation: Aggregation = "min"
    takes_documents = False

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel, head: nn.Module
    ) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: encodes the separator.
            backbone: gives hidden states.
            head: hidden states to two logits, wrong and right.

        Raises:
            PrmError: the separator has no token.
        """
        separator = tokenizer(SEPARATOR, add_special_tokens=False)["input_ids"]
        if not separator or tokenizer.unk_token_id in separator:
            raise PrmError(
                "The checkpoint has no token for a line break, which the family trl reads.",
                remedy="name the right family with --family",
            )
        self.tokenizer, self.backbone = tokenizer, backbone
        self._separator, self._head = [int(i) for i in separator], head

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """BOS, question, and each step with its separator; there is no place for evidence."""
        bos = self.tokenizer.bos_token_id
        ids = [] if bos is None else [int(bos)]
        ids += self._encode(question_inline(context.problem))
        read_at = []
        for step in context.trace.steps:
            ids += [*self._encode(step), *self._separator]
            read_at.append((len(ids) - 1,))
        return LaidOutTrace(context.trace.id, tuple(ids), tuple(read_at))

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """The probability of class 1, read at the last token of each separator."""
        logits: Tensor = self._head(hidden.float())
        return torch.softmax(logits, dim=-1)[:, 1]

    def _encode(self, text: str) -> list[int]:
        return list(
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        )
