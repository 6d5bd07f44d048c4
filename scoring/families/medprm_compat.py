"""Med-PRM as its released script scores, fault by fault, to be held against published numbers.

Source: `python/4_scoring_PRM.py` of https://github.com/eth-medical-ai-lab/Med-PRM. Other than in
`medprm`: the rendered conversation is tokenised with a second BOS; the system turn for documents ends
in a blank (which Llama 3.1's template trims); control tokens inside texts are control tokens; ` ки` is
read wherever it stands, in documents and questions too; the softmax is taken in bfloat16, so that good
steps tie and the first of several candidates wins. The documents are packed by its rule, see
`retrieval.packing.pack_like_medprm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from retrieval.packing import render_document
from scoring.families.medprm import MARKER, SYSTEM, SYSTEM_WITH_DOCUMENTS, MedPrm
from scoring.family import LaidOutTrace
from scoring.wording import one_line, question_inline
from traces.context import TraceInContext
from traces.errors import PrmError
from traces.evidence import Evidence


class MedPrmCompat(MedPrm):
    """The released read-out on one checkpoint."""

    settings: Mapping[str, Any] = MappingProxyType({"mode": "medprm-compat"})

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """The rendered conversation tokenised as a whole, a BOS before the template's.

        Markers that stand in texts are read with the first step: the least of the step scores is
        then the published `PRM_min_score`, and the last one `PRM_score` where there are two steps.

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
        """P(+) of the two signs, logits and softmax in bfloat16: near 1 in steps of 2^-8."""
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
