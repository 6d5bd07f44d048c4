"""Skywork-o1-Open-PRM: question and steps as plain lines, a value head at each line break.

Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B; read-out as in
https://github.com/SkyworkAI/skywork-o1-prm-inference (model_utils): ids of BOS, problem and a line
break, then of each step alone with the line break's token; score = sigmoid of the value there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.engine.heads import head_of
from scoring.family import NO_SETTINGS, Aggregation, LaidOutTrace, PrmCheckpoint, served_head
from scoring.layout import one_line, plain_ids, question_inline
from scoring.read_outs import missing_token
from traces import Evidence, TraceInContext

HEADS: Final = (("v_head.summary",), ("v_head",))
"""Possible names of the value head."""


class Skywork:
    """The Skywork read-out on one checkpoint."""

    name = "skywork-o1"
    aggregation: Aggregation = "mean"
    takes_documents = False
    served = served_head(1)
    settings: Mapping[str, Any] = NO_SETTINGS

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel, head: nn.Module
    ) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: encodes a line break as one last token.
            backbone: gives hidden states.
            head: hidden states to one value.

        Raises:
            PrmError: a line break has no token.
        """
        line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
        if not line_break or line_break[-1] == tokenizer.unk_token_id:
            raise missing_token("a line break", self.name)
        self.tokenizer, self.backbone = tokenizer, backbone
        self._marker, self._head = int(line_break[-1]), head

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out BOS, question, line break; then each step on one line. No evidence."""
        bos = self.tokenizer.bos_token_id
        ids = [] if bos is None else [int(bos)]
        ids += plain_ids(self.tokenizer, f"{question_inline(context.problem)}\n")
        read_at = []
        for step in context.trace.steps:
            # A line break inside a step would be scored as a separate step.
            ids += [*plain_ids(self.tokenizer, one_line(step)), self._marker]
            read_at.append((len(ids) - 1,))
        return LaidOutTrace(context.trace.id, tuple(ids), tuple(read_at))

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """Return the sigmoid of the value at each line break."""
        value: Tensor = self._head(hidden.float())
        return torch.sigmoid(value.squeeze(-1))


def bind(checkpoint: PrmCheckpoint) -> Skywork:
    """Bind the family to a checkpoint.

    Raises:
        PrmError: the safetensors files hold no value head.
    """
    head = head_of(checkpoint.folder, HEADS, 1).to(checkpoint.device)
    return Skywork(checkpoint.tokenizer, checkpoint.model(AutoModel), head)
