"""Med-PRM: all steps in the user turn, ` ки` after each, P(+) against P(-) at each ` ки`.

Yun et al., "Med-PRM: Medical Reasoning Models with Stepwise, Guideline-verified Process Rewards",
https://arxiv.org/abs/2506.11474; checkpoint `dmis-lab/llama-3.1-medprm-reward-v1.0`.

Strict mode: one BOS; the marker is looked for in the solution only; softmax in float32. (The
released script puts two BOS, matches ` ки` in documents too, and takes the softmax in bfloat16.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from retrieval.packing import render_document
from scoring.chat_layout import ChatLayout
from scoring.family import NO_SETTINGS, Aggregation, LaidOutTrace
from scoring.served import of_signs
from scoring.tokens import single_token
from scoring.wording import one_line, question_inline
from traces.context import TraceInContext
from traces.errors import PrmError
from traces.evidence import Evidence

MARKER: Final = " ки"
"""Stands behind each step."""
SIGNS: Final = (" +", " -")
"""The tokens whose logits are compared: right, wrong."""
_TASK = (
    "You are an evaluator assessing the logicality and validity of the reasoning in each step of "
    "the given explanation. In order to support the evaluation, {given} provided{how}. If the "
    "reasoning contains errors, output - after that step. If the reasoning in a step is logical "
    "and valid, output + after that step."
)
SYSTEM_WITH_DOCUMENTS: Final = _TASK.format(
    given="the relevant documents, the question, and the explanation are", how=" sequentially"
)
"""The published system turn where evidence is given."""
SYSTEM: Final = _TASK.format(given="the question and the explanation are", how="")
"""The published system turn without evidence."""


class MedPrm:
    """The Med-PRM read-out on one checkpoint."""

    name = "medprm"
    aggregation: Aggregation = "min"
    takes_documents = True
    settings: Mapping[str, Any] = NO_SETTINGS

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: has ` ки`, ` +` and ` -` as single tokens, and a chat template.
            model: a causal language model.

        Raises:
            PrmError: a token is missing, or the chat template cannot hold the prompt.
        """
        ids = [single_token(tokenizer, text) for text in (MARKER, *SIGNS)]
        if None in ids:
            missing = (MARKER, *SIGNS)[ids.index(None)]
            raise PrmError(
                f'The checkpoint has no token "{missing}", which the family medprm reads.',
                remedy="name the right family with --family",
            )
        self.tokenizer = tokenizer
        self.backbone: PreTrainedModel = cast(PreTrainedModel, model.base_model)
        self._marker, *signs = (int(i) for i in ids if i is not None)
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._rows = head.weight[signs].detach().float()
        self.served = of_signs(*signs)
        self._layouts = {
            documents: ChatLayout(
                tokenizer,
                [("system", SYSTEM_WITH_DOCUMENTS if documents else SYSTEM), ("user", None)],
                add_generation_prompt=True,
            )
            for documents in (True, False)
        }

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Documents, question with its options inline, and the steps, each with its marker."""
        documents = "".join(render_document(i, item) for i, item in enumerate(evidence, 1))
        before = f"{documents}Question: {question_inline(context.problem)}\n\nExplanation: "
        pieces: list[str | int] = []
        for step in context.trace.steps:
            # Published steps stand on one line each, a blank between marker and next step.
            pieces += [f"{before}{one_line(step)}", self._marker]
            before = " "
        ids, markers = self._layouts[bool(evidence)].fill([pieces])
        return LaidOutTrace(context.trace.id, ids, tuple((marker,) for marker in markers))

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """P(+) of the two signs, read at the markers."""
        return torch.softmax(hidden.float() @ self._rows.T, dim=-1)[:, 0]
