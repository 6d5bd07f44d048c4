"""Math-Shepherd-Mistral-7B-PRM: `Step i: ... ки`, a line each, P(+) against P(-) at each `ки`.

Wang et al., "Math-Shepherd: Verify and Reinforce LLMs Step-by-step without Human Annotations",
https://arxiv.org/abs/2312.08935; checkpoint and read-out (ids 648 and 387 at tag 12902) as its card,
`peiyi9979/math-shepherd-mistral-7b-prm`, says. Aggregated by the minimum, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.family import NO_SETTINGS, Aggregation, LaidOutTrace, of_signs
from scoring.layout import Marked, joint_ids, numbered, one_line, question_inline, token_behind
from traces import Evidence, PrmError, TraceInContext

MARKER: Final = " ки"
"""Stands behind each step, a line break behind it."""
SIGNS: Final = "+ -"
"""The two tokens whose logits are compared, good and bad, as the card encodes them."""


class MathShepherd:
    """The Math-Shepherd read-out on one checkpoint."""

    name = "math-shepherd"
    aggregation: Aggregation = "min"
    takes_documents = False
    settings: Mapping[str, Any] = NO_SETTINGS

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: fast; has `ки` behind a blank as one token, and `+ -` as two.
            model: a causal language model.

        Raises:
            PrmError: a token is missing.
        """
        marker = token_behind(tokenizer, MARKER)
        signs = tokenizer(SIGNS, add_special_tokens=False)["input_ids"]
        if marker is None or len(signs) != 2 or tokenizer.unk_token_id in signs:
            raise PrmError(
                'The checkpoint lacks a token for "ки", "+" or "-", which the family '
                "math-shepherd reads.",
                remedy="name the right family with --family",
            )
        self.tokenizer = tokenizer
        self.backbone: PreTrainedModel = cast(PreTrainedModel, model.base_model)
        self._marker = marker
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._rows = head.weight[signs].detach().float()
        self.served = of_signs(*signs)

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """The question, then a numbered step a line, each with its marker; no place for evidence."""
        before, pieces = f"{question_inline(context.problem)} ", []
        for step in numbered([one_line(step) for step in context.trace.steps]):
            pieces.append(Marked(f"{before}{step}", MARKER))
            before = "\n"
        ids, markers = joint_ids(self.tokenizer, pieces, self._marker)
        return LaidOutTrace(context.trace.id, ids, tuple((marker,) for marker in markers))

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """P(+) of the two signs, read at the markers."""
        return torch.softmax(hidden.float() @ self._rows.T, dim=-1)[:, 0]
