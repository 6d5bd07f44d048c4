"""PRMs trained by TRL's PRMTrainer (removed in TRL 2026-09): two classes at each step's separator.

Rows are laid out as the trainer's `tokenize_row` did (huggingface/trl, trl/experimental/prm, up to
v1.9): the prompt behind a BOS if the tokenizer has one, each step encoded alone with the separator's
ids behind it, nothing between prompt and first step; class 1 is "right". (The inference snippet of
its cards puts a separator before the first step too: that is not what was trained.)

PURE-PRM-7B (Cheng et al., https://arxiv.org/abs/2504.15275) is such a checkpoint, and its card lays
out the same ids. Its published reward is P(right) - P(wrong), "correct" above 0; stored is P(right),
as for every family: the reward is twice that less 1, and above 0 exactly where it is above 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.engine.heads import head_of
from scoring.family import NO_SETTINGS, Aggregation, LaidOutTrace, of_head
from scoring.layout import plain_ids, question_inline
from traces import Evidence, PrmError, TraceInContext

NAMES: Final = ("trl", "pure")
"""Any checkpoint of the trainer, and PURE-PRM-7B."""
SEPARATOR: Final = "\n"
"""The trainer's default `step_separator`."""
HEADS: Final = (("score",), ("classifier",))
"""Where the token classification head lies."""


class TrlTokenClassification:
    """The read-out of `AutoModelForTokenClassification` PRMs on one checkpoint."""

    aggregation: Aggregation = "min"
    takes_documents = False
    served = of_head(2)
    settings: Mapping[str, Any] = NO_SETTINGS

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        backbone: PreTrainedModel,
        head: nn.Module,
        name: str = NAMES[0],
    ) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: encodes the separator.
            backbone: gives hidden states.
            head: hidden states to two logits, wrong and right.
            name: trl or pure.

        Raises:
            PrmError: the separator has no token.
        """
        separator = tokenizer(SEPARATOR, add_special_tokens=False)["input_ids"]
        if not separator or tokenizer.unk_token_id in separator:
            raise PrmError(
                "The checkpoint has no token for a line break, which the family trl reads.",
                remedy="name the right family with --family",
            )
        self.name, self.tokenizer, self.backbone = name, tokenizer, backbone
        self._separator, self._head = [int(i) for i in separator], head

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """BOS, question, and each step with its separator; there is no place for evidence."""
        bos = self.tokenizer.bos_token_id
        ids = [] if bos is None else [int(bos)]
        ids += plain_ids(self.tokenizer, question_inline(context.problem))
        read_at = []
        for step in context.trace.steps:
            ids += [*plain_ids(self.tokenizer, step), *self._separator]
            read_at.append((len(ids) - 1,))
        return LaidOutTrace(context.trace.id, tuple(ids), tuple(read_at))

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """The probability of class 1, read at the last token of each separator."""
        logits: Tensor = self._head(hidden.float())
        return torch.softmax(logits, dim=-1)[:, 1]


def load_head(folder: Path) -> nn.Module:
    """The two-class head of a checkpoint, in float32.

    Raises:
        PrmError: the safetensors files hold no such head.
    """
    return head_of(folder, HEADS, 2)
