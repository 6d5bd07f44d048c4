"""Qwen2.5-Math-PRM and Qwen2.5-Math-7B-PRM800K: `<extra_0>` after each step, a head of two classes.

Zhang et al., "The Lessons of Developing Process Reward Models in Mathematical Reasoning",
https://arxiv.org/abs/2501.07301; checkpoints `Qwen/Qwen2.5-Math-PRM-7B`, `-72B`. The repository's own
modelling code is not run: backbone and head are put together here from the safetensors files.
Checkpoints of `AutoModelForTokenClassification` with two labels and the same marker work too.
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
from scoring.layout import ChatLayout, single_token
from traces import Evidence, PrmError, TraceInContext

NAMES: Final = ("qwen-prm", "qwen-prm800k")
"""Qwen2.5-Math-PRM and Qwen2.5-Math-7B-PRM800K: other weights, the same read-out."""
MARKER: Final = "<extra_0>"
"""Stands behind each step."""
SYSTEM: Final = r"Please reason step by step, and put your final answer within \boxed{}."
"""The published system turn."""
_HEADS = (("score.0", "score.2"), ("score",))
"""Where the head's linear layers lie: the published one has two, token classification one."""


class QwenPrm:
    """The Qwen PRM read-out on one checkpoint."""

    aggregation: Aggregation = "product"
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
            tokenizer: has `<extra_0>` as a single token, and a chat template.
            backbone: gives hidden states.
            head: hidden states to two logits, wrong and right; see `load_head`.
            name: which of the two checkpoints it is.

        Raises:
            PrmError: the marker is missing, or the chat template cannot hold the prompt.
        """
        marker = single_token(tokenizer, MARKER)
        if marker is None:
            raise PrmError(
                f'The checkpoint has no token "{MARKER}", which the family qwen-prm reads.',
                remedy="name the right family with --family",
            )
        self.name, self.tokenizer, self.backbone = name, tokenizer, backbone
        self._marker, self._head = marker, head
        self._layout = ChatLayout(
            tokenizer,
            [("system", SYSTEM), ("user", None), ("assistant", None)],
            add_generation_prompt=False,
        )

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """The question in the user turn, the steps in the assistant's; there is no place for evidence."""
        problem = context.problem
        options = (f"\n({chr(65 + i)}) {option}" for i, option in enumerate(problem.options))
        steps: list[str | int] = []
        for step in context.trace.steps:
            steps += [step.strip(), self._marker]
        ids, markers = self._layout.fill([[f"{problem.question.strip()}{''.join(options)}"], steps])
        return LaidOutTrace(context.trace.id, ids, tuple((marker,) for marker in markers))

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """The probability of the class "right", read at the markers."""
        logits: Tensor = self._head(hidden.float())
        return torch.softmax(logits, dim=-1)[:, 1]


def load_head(folder: Path) -> nn.Module:
    """The two-class head of a checkpoint, in float32.

    Raises:
        PrmError: the safetensors files hold no head, or one with other than two classes.
    """
    return head_of(folder, _HEADS, 2)
