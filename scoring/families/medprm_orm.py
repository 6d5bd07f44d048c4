"""Med-PRM's outcome model: one marker behind the whole solution, one score on the last step.

The system turn and the layout are those of the released training script (facts: Med-PRM,
https://arxiv.org/abs/2506.11474, `orm_processed_solution`). Steps before the last have no score of
their own: they are "not measured", which no aggregation takes for a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from retrieval.packing import render_document
from scoring.chat_layout import ChatLayout, Turn
from scoring.families.medprm import MedPrm
from scoring.family import Aggregation, LaidOutTrace
from scoring.wording import one_line, question_inline
from traces.context import TraceInContext
from traces.evidence import Evidence

SYSTEM: Final = (
    "You are an evaluator assessing the overall quality and correctness of the final answer in the "
    "given explanation. In order to support the evaluation, the question and the explanation are "
    "provided. If the final answer is incorrect or not well-supported, output -. If the final answer "
    "is correct and well-supported, output +."
)
"""The published system turn where no evidence is given."""


class MedPrmOrm(MedPrm):
    """The outcome read-out on one checkpoint."""

    name = "medprm-orm"
    aggregation: Aggregation = "last"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        """Bind the family to a checkpoint; as `MedPrm`."""
        super().__init__(tokenizer, model)
        turns: list[Turn] = [("system", SYSTEM), ("user", None)]
        # With documents the released scripts give it the stepwise system turn.
        self._outcome = {
            True: self._layouts[True],
            False: ChatLayout(tokenizer, turns, add_generation_prompt=True),
        }

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Documents, question and all steps, one marker at the end."""
        documents = "".join(render_document(i, item) for i, item in enumerate(evidence, 1))
        solution = " ".join(one_line(step) for step in context.trace.steps)
        question = question_inline(context.problem)
        text = f"{documents}Question: {question}\n\nExplanation: {solution}"
        ids, (marker,) = self._outcome[bool(evidence)].fill([[text, self._marker]])
        silent: tuple[tuple[int, ...], ...] = ((),) * (len(context.trace.steps) - 1)
        return LaidOutTrace(context.trace.id, ids, (*silent, (marker,)))
