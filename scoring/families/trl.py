"""PRMs trained by TRL's PRMTrainer (removed in TRL 2026-09): two classes at each step's separator.

Rows are laid out as the trainer's `tokenize_row` did (huggingface/trl, trl/experimental/prm, up to
v1.9): a BOS if the tokenizer has one, the prompt, then each step encoded alone and followed by the
separator's ids, with nothing between prompt and first step; class 1 is "correct". (The inference
snippet of its cards puts a separator before the first step too, unlike in training.)

PURE-PRM-7B (Cheng et al., https://arxiv.org/abs/2504.15275) is such a checkpoint, and its card lays
out the same ids. Its published reward is P(correct) - P(incorrect), with steps correct above 0. As
for every family P(correct) is stored: the reward is twice that less 1, and is above 0 exactly where
P(correct) is above 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.engine.heads import head_of
from scoring.family import Aggregation, LaidOutTrace, PrmCheckpoint
from scoring.layout import plain_ids, question_inline
from scoring.read_outs import TwoClasses, missing_token
from traces import Evidence, TraceInContext

NAMES: Final = ("trl", "pure")
"""Any checkpoint of the trainer, and PURE-PRM-7B."""
SEPARATOR: Final = "\n"
"""The trainer's default `step_separator`."""
HEADS: Final = (("score",), ("classifier",))
"""Possible names of the token classification head."""


class TrlTokenClassification(TwoClasses):
    """The read-out of `AutoModelForTokenClassification` PRMs on one checkpoint."""

    aggregation: Aggregation = "min"

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
            tokenizer: encodes the separator.
            backbone: gives hidden states.
            head: hidden states to two logits, incorrect and correct.
            name: trl or pure.

        Raises:
            PrmError: the separator has no token.
        """
        separator = tokenizer(SEPARATOR, add_special_tokens=False)["input_ids"]
        if not separator or tokenizer.unk_token_id in separator:
            raise missing_token("a line break", name)
        super().__init__(tokenizer, backbone, head)
        self.name, self._separator = name, [int(i) for i in separator]

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out BOS, question, and each step with its separator; no evidence."""
        bos = self.tokenizer.bos_token_id
        ids = [] if bos is None else [int(bos)]
        ids += plain_ids(self.tokenizer, question_inline(context.problem))
        read_at = []
        for step in context.trace.steps:
            ids += [*plain_ids(self.tokenizer, step), *self._separator]
            read_at.append((len(ids) - 1,))
        return LaidOutTrace(context.trace.id, tuple(ids), tuple(read_at))


def bind(checkpoint: PrmCheckpoint) -> TrlTokenClassification:
    """Bind the family to a checkpoint.

    Raises:
        PrmError: the safetensors files hold no head of two classes.
    """
    head = head_of(checkpoint.folder, HEADS, 2).to(checkpoint.device)
    model = checkpoint.model(AutoModel)
    return TrlTokenClassification(checkpoint.tokenizer, model, head, name=checkpoint.family)
