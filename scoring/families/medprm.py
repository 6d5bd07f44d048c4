"""Med-PRM: all steps in the user turn, ` ки` after each, P(+) against P(-) at each ` ки`.

Yun et al., "Med-PRM: Medical Reasoning Models with Stepwise, Guideline-verified Process Rewards",
https://arxiv.org/abs/2506.11474; checkpoint `dmis-lab/llama-3.1-medprm-reward-v1.0`.

Strict mode: one BOS, markers are searched in the solution only, softmax in float32.

medprm-compat reproduces the released script, faults included, to compare with published numbers
(`python/4_scoring_PRM.py` of https://github.com/eth-medical-ai-lab/Med-PRM). It differs from strict
mode as follows: the rendered conversation is tokenized with a second BOS; the system turn for
documents ends in a space (which Llama 3.1's template trims); control tokens inside texts are
control tokens; ` ки` is read wherever it occurs, in documents and questions too; the softmax is
taken in bfloat16, so that good steps tie and the first of several candidates wins. Documents are
packed by its rule, see `retrieval.packing.pack_like_medprm`.

medprm-orm is Med-PRM's outcome model: one marker after the whole solution, one score, on the last
step. System turn and layout are those of the released training script (`orm_processed_solution`).
Earlier steps are "not measured", which no aggregation counts as a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from retrieval import render_document
from scoring.family import Aggregation, LaidOutTrace, PrmCheckpoint
from scoring.layout import ChatLayout, Turn, one_line, question_inline
from scoring.read_outs import TwoTokens, require_tokens
from traces import Evidence, PrmError, TraceInContext

MARKER: Final = " ки"
"""Written after each step."""
VERDICTS: Final = (" +", " -")
"""The tokens whose logits are compared: correct, incorrect."""
_TASK = (
    "You are an evaluator assessing the logicality and validity of the reasoning in each step of "
    "the given explanation. In order to support the evaluation, {given} provided{how}. If the "
    "reasoning contains errors, output - after that step. If the reasoning in a step is logical "
    "and valid, output + after that step."
)
SYSTEM_WITH_DOCUMENTS: Final = _TASK.format(
    given="the relevant documents, the question, and the explanation are", how=" sequentially"
)
"""The published system turn with evidence."""
SYSTEM: Final = _TASK.format(given="the question and the explanation are", how="")
"""The published system turn without evidence."""


class MedPrm(TwoTokens):
    """The Med-PRM read-out on one checkpoint."""

    name = "medprm"
    aggregation: Aggregation = "min"
    takes_documents = True

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: has ` ки`, ` +` and ` -` as single tokens, and a chat template.
            model: a causal language model.

        Raises:
            PrmError: a token is missing, or the chat template cannot hold the prompt.
        """
        ids = require_tokens(tokenizer, (MARKER, *VERDICTS), family="medprm")
        super().__init__(tokenizer, model, ids[1:])
        self._marker = ids[0]
        self._layouts = {
            documents: ChatLayout(
                tokenizer,
                [("system", SYSTEM_WITH_DOCUMENTS if documents else SYSTEM), ("user", None)],
                add_generation_prompt=True,
            )
            for documents in (True, False)
        }

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out documents, question with inline options, and steps, each with its marker."""
        documents = "".join(render_document(i, item) for i, item in enumerate(evidence, 1))
        before = f"{documents}Question: {question_inline(context.problem)}\n\nExplanation: "
        pieces: list[str | int] = []
        for step in context.trace.steps:
            # Published steps are one line each, with a space between a marker and the next step.
            pieces += [f"{before}{one_line(step)}", self._marker]
            before = " "
        ids, markers = self._layouts[bool(evidence)].fill([pieces])
        return LaidOutTrace(context.trace.id, ids, tuple((marker,) for marker in markers))


class MedPrmCompat(MedPrm):
    """The read-out of the released script on one checkpoint."""

    settings: Mapping[str, Any] = MappingProxyType({"mode": "medprm-compat"})

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Tokenize the rendered conversation as a whole, with a BOS before the template's.

        Markers inside texts are read with the first step. So the minimum of the step scores is the
        published `PRM_min_score`, and with two steps the last one is `PRM_score`.

        Raises:
            PrmError: the template rewrites the solution, or the tokenizer is a slow one.
        """
        if not self.tokenizer.is_fast:
            raise PrmError("This mode needs a fast tokenizer (tokenizer.json).")
        documents = "".join(render_document(i, item) for i, item in enumerate(evidence, 1))
        steps = [f"{one_line(step)}{MARKER}" for step in context.trace.steps]
        text = self._rendered(documents, question_inline(context.problem), " ".join(steps))
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        begin = text.rfind(" ".join(steps))
        if begin < 0:
            raise PrmError("The checkpoint's chat template rewrites the solution.")
        ends = accumulate((len(step) + 1 for step in steps), initial=begin - 1)
        step_of = {end: number for number, end in enumerate([*ends][1:])}
        read_at: list[list[int]] = [[] for _ in steps]
        for place, (first, end) in enumerate(encoded["offset_mapping"]):
            if text[first:end] == MARKER:
                read_at[step_of.get(end, 0)].append(place)
        return LaidOutTrace(
            context.trace.id, tuple(encoded["input_ids"]), tuple(map(tuple, read_at))
        )

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """Return P(+), logits and softmax in bfloat16: near 1 in steps of 2^-8."""
        logits = hidden.bfloat16() @ self._rows.bfloat16().T
        return torch.softmax(logits, dim=-1)[:, 0].float()

    def _rendered(self, documents: str, question: str, solution: str) -> str:
        turns = [
            {"role": "system", "content": f"{SYSTEM_WITH_DOCUMENTS} " if documents else SYSTEM},
            {
                "role": "user",
                "content": f"{documents}Question: {question}\n\nExplanation: {solution}",
            },
        ]
        return str(
            self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )


ORM_SYSTEM: Final = (
    "You are an evaluator assessing the overall quality and correctness of the final answer in the "
    "given explanation. In order to support the evaluation, the question and the explanation are "
    "provided. If the final answer is incorrect or not well-supported, output -. If the final "
    "answer is correct and well-supported, output +."
)
"""The published system turn without evidence."""


class MedPrmOrm(MedPrm):
    """The outcome read-out on one checkpoint."""

    name = "medprm-orm"
    aggregation: Aggregation = "last"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        """Bind the family to a checkpoint, as `MedPrm`."""
        super().__init__(tokenizer, model)
        turns: list[Turn] = [("system", ORM_SYSTEM), ("user", None)]
        # With documents the released scripts use the stepwise system turn.
        self._outcome = {
            True: self._layouts[True],
            False: ChatLayout(tokenizer, turns, add_generation_prompt=True),
        }

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out documents, question and all steps, with one marker at the end."""
        documents = "".join(render_document(i, item) for i, item in enumerate(evidence, 1))
        solution = " ".join(one_line(step) for step in context.trace.steps)
        question = question_inline(context.problem)
        text = f"{documents}Question: {question}\n\nExplanation: {solution}"
        ids, (marker,) = self._outcome[bool(evidence)].fill([[text, self._marker]])
        unread: tuple[tuple[int, ...], ...] = ((),) * (len(context.trace.steps) - 1)
        return LaidOutTrace(context.trace.id, ids, (*unread, (marker,)))


def bind(checkpoint: PrmCheckpoint) -> MedPrm:
    """Bind Med-PRM to a checkpoint."""
    return MedPrm(checkpoint.tokenizer, checkpoint.model())


def bind_outcome(checkpoint: PrmCheckpoint) -> MedPrmOrm:
    """Bind Med-PRM's outcome model to a checkpoint."""
    return MedPrmOrm(checkpoint.tokenizer, checkpoint.model())
