"""ReasonEval-7B and -34B: three classes after each step, in one forward pass.

Xia et al., https://github.com/GAIR-NLP/ReasonEval (codes/examples.py, commit 37d5d28): prompt and
steps are encoded as one text in which separators mark the ends of steps; the separators are then
taken out, and each step is read at its last token (at the one before it for the 7B, whose separator
is BOS). The classes are wrong, neutral and right. The
step score is validity, 1 - P(wrong); redundancy is P(neutral). A solution's validity is the lowest
of its steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.engine.heads import head_of
from scoring.family import NO_SETTINGS, Aggregation, LaidOutTrace, PrmCheckpoint
from scoring.layout import plain_ids, question_inline
from traces import Evidence, TraceInContext

NAME: Final = "reasoneval"
HEADS: Final = (("score_head",),)
"""Name of the head in the checkpoints."""
PROMPT: Final = "Question:\n{}\nAnswer:\nLet's think step by step.\n"


class ReasonEval:
    """The ReasonEval read-out on one checkpoint."""

    name = NAME
    aggregation: Aggregation = "min"
    takes_documents = False
    settings: Mapping[str, Any] = NO_SETTINGS

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel, head: nn.Module
    ) -> None:
        """Take a model that gives hidden states, and its head of three classes in float32."""
        self.tokenizer, self.backbone, self._head = tokenizer, backbone, head
        # Where BOS is the separator (7B), the script removes it too and reads one token early.
        self._back = 1 + (tokenizer.pad_token_id == tokenizer.bos_token_id)

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out BOS, prompt, and the steps without anything between them; no evidence."""
        bos = self.tokenizer.bos_token_id
        ids = [] if bos is None else [int(bos)]
        ids += plain_ids(self.tokenizer, PROMPT.format(question_inline(context.problem)))
        read_at = []
        for step in context.trace.steps:
            # The separator is a control token: the texts around it are encoded apart.
            ids += plain_ids(self.tokenizer, step)
            read_at.append((len(ids) - self._back,))
        return LaidOutTrace(context.trace.id, tuple(ids), tuple(read_at))

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """Return 1 - P(wrong), read at each position."""
        logits: Tensor = self._head(hidden.float())
        return torch.softmax(logits, dim=-1)[:, 1:].sum(dim=-1).clamp(max=1.0)


def bind(checkpoint: PrmCheckpoint) -> ReasonEval:
    """Bind the family to a checkpoint.

    Raises:
        PrmError: the safetensors files hold no head of three classes.
    """
    head = head_of(checkpoint.folder, HEADS, 3).to(checkpoint.device)
    return ReasonEval(checkpoint.tokenizer, checkpoint.model(AutoModel), head)
