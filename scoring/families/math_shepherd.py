"""Math-Shepherd-Mistral-7B-PRM: `Step i: ... ки`, a line each, P(+) against P(-) at each `ки`.

Wang et al., "Math-Shepherd: Verify and Reinforce LLMs Step-by-step without Human Annotations",
https://arxiv.org/abs/2312.08935; checkpoint and read-out (ids 648 and 387 at tag 12902) as its
card, `peiyi9979/math-shepherd-mistral-7b-prm`, says. Aggregated by the minimum, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.family import Aggregation, LaidOutTrace, PrmCheckpoint
from scoring.layout import Marked, joint_ids, numbered, one_line, question_inline, token_after_word
from scoring.read_outs import TwoTokens, missing_token
from traces import Evidence, TraceInContext

MARKER: Final = " ки"
"""Written after each step, followed by a line break."""
VERDICTS: Final = "+ -"
"""The two tokens whose logits are compared, good and bad, as the card encodes them."""


class MathShepherd(TwoTokens):
    """The Math-Shepherd read-out on one checkpoint."""

    name = "math-shepherd"
    aggregation: Aggregation = "min"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: fast; has `ки` after a space as one token, and `+ -` as two.
            model: a causal language model.

        Raises:
            PrmError: a token is missing.
        """
        marker = token_after_word(tokenizer, MARKER)
        verdicts = tokenizer(VERDICTS, add_special_tokens=False)["input_ids"]
        if marker is None or len(verdicts) != 2 or tokenizer.unk_token_id in verdicts:
            raise missing_token('"ки", "+" or "-"', self.name)
        super().__init__(tokenizer, model, verdicts)
        self._marker = marker

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out the question and numbered steps, one a line, each with its marker."""
        before, pieces = f"{question_inline(context.problem)} ", []
        for step in numbered([one_line(step) for step in context.trace.steps]):
            pieces.append(Marked(f"{before}{step}", MARKER))
            before = "\n"
        ids, markers = joint_ids(self.tokenizer, pieces, self._marker)
        return LaidOutTrace(context.trace.id, ids, tuple((marker,) for marker in markers))


def bind(checkpoint: PrmCheckpoint) -> MathShepherd:
    """Bind the family to a checkpoint."""
    return MathShepherd(checkpoint.tokenizer, checkpoint.model())
