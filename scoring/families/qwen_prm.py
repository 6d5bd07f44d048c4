"""Qwen2.5-Math-PRM and Qwen2.5-Math-7B-PRM800K: `<extra_0>` after each step, a head of two classes.

Zhang et al., "The Lessons of Developing Process Reward Models in Mathematical Reasoning",
https://arxiv.org/abs/2501.07301; checkpoints `Qwen/Qwen2.5-Math-PRM-7B`, `-72B`. The repository's
modeling code is not run: backbone and head are read from the safetensors files. Checkpoints of
`AutoModelForTokenClassification` with two labels and the same marker work too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.engine.heads import head_of
from scoring.family import Aggregation, LaidOutTrace, PrmCheckpoint
from scoring.layout import ChatLayout
from scoring.read_outs import TwoClasses, require_tokens
from traces import Evidence, TraceInContext

NAMES: Final = ("qwen-prm", "qwen-prm800k")
"""Qwen2.5-Math-PRM and Qwen2.5-Math-7B-PRM800K: different weights, the same read-out."""
MARKER: Final = "<extra_0>"
"""Written after each step."""
SYSTEM: Final = r"Please reason step by step, and put your final answer within \boxed{}."
"""The published system turn."""
HEADS: Final = (("score.0", "score.2"), ("score",))
"""Names of the head's linear layers: two in published PRMs, one in token classification."""


class QwenPrm(TwoClasses):
    """The Qwen PRM read-out on one checkpoint."""

    aggregation: Aggregation = "product"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        backbone: PreTrainedModel,
        head: nn.Module,
        *,
        name: str = NAMES[0],
    ) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: has `<extra_0>` as a single token, and a chat template.
            backbone: gives hidden states.
            head: hidden states to two logits, incorrect and correct.
            name: which of the two families it is.

        Raises:
            PrmError: the marker is missing, or the chat template cannot hold the prompt.
        """
        [self._marker] = require_tokens(tokenizer, [MARKER], family=name)
        super().__init__(tokenizer, backbone, head)
        self.name = name
        self._layout = ChatLayout(
            tokenizer,
            [("system", SYSTEM), ("user", None), ("assistant", None)],
            add_generation_prompt=False,
        )

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out the question in the user turn, the steps in the assistant's; no evidence."""
        problem = context.problem
        options = (f"\n({chr(65 + i)}) {option}" for i, option in enumerate(problem.options))
        steps: list[str | int] = []
        for step in context.trace.steps:
            steps += [step.strip(), self._marker]
        asked = f"{problem.shown_question.strip()}{''.join(options)}"
        ids, markers = self._layout.fill([[asked], steps])
        return LaidOutTrace(context.trace.id, ids, tuple((marker,) for marker in markers))


def bind(checkpoint: PrmCheckpoint) -> QwenPrm:
    """Bind the family to a checkpoint.

    Raises:
        PrmError: the safetensors files hold no head of two classes.
    """
    head = head_of(checkpoint.folder, HEADS, 2).to(checkpoint.device)
    model = checkpoint.model(AutoModel)
    return QwenPrm(checkpoint.tokenizer, model, head, name=checkpoint.family)
