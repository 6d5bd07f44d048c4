"""RLHFlow's Llama-3.1 PRMs (Mistral and Deepseek data): a user turn a step, the model answers `+` or `-`.

Xiong et al., "An Implementation of Generative PRM", https://github.com/RLHFlow/RLHF-Reward-Modeling
(math-rm/prm_evaluate.py): the first user turn is the question, a blank and the first step; every
earlier step was answered `+`; the score is P(+) against P(-) of the next answer. All answers of a
trace are read in one forward pass: each sees exactly the turns before it. Aggregated by the mean.
The two checkpoints differ only in how their data split steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.family import NO_SETTINGS, Aggregation, LaidOutTrace, of_signs
from scoring.layout import ChatLayout, question_inline, single_token
from traces import Evidence, PrmError, TraceInContext

NAMES: Final = ("rlhflow-mistral", "rlhflow-deepseek")
"""The two checkpoints."""
SIGNS: Final = ("+", "-")
"""The answers whose logits are compared: right, wrong."""


class RlhFlow:
    """The RLHFlow read-out on one checkpoint."""

    aggregation: Aggregation = "mean"
    takes_documents = False
    settings: Mapping[str, Any] = NO_SETTINGS

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str = NAMES[0]
    ) -> None:
        """Bind the family to a checkpoint.

        Args:
            name: which of the two checkpoints it is.
            tokenizer: has `+` and `-` as single tokens, and a chat template.
            model: a causal language model.

        Raises:
            PrmError: a token is missing, or the chat template cannot hold the turns.
        """
        signs = [single_token(tokenizer, sign) for sign in SIGNS]
        if None in signs:
            raise PrmError(
                'The checkpoint has no single tokens "+" and "-", which the RLHFlow families read.',
                remedy="name the right family with --family",
            )
        self.name, self.tokenizer = name, tokenizer
        self.backbone: PreTrainedModel = cast(PreTrainedModel, model.base_model)
        self._plus, self._minus = (int(i) for i in signs if i is not None)
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._rows = head.weight[[self._plus, self._minus]].detach().float()
        self._layouts: dict[int, ChatLayout] = {}
        self.served = of_signs(self._plus, self._minus)

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Question and first step, then step by step, each answered `+`; no place for evidence."""
        steps = [step.strip() for step in context.trace.steps]
        steps[0] = f"{question_inline(context.problem)} {steps[0]}"
        places: list[list[str | int]] = []
        for step in steps:
            places += [[step], [self._plus]]
        ids, answers = self._layout(len(steps)).fill(places)
        # An answer is predicted by the token before it.
        return LaidOutTrace(context.trace.id, ids, tuple((answer - 1,) for answer in answers))

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """P(+) of the two answers, read before each."""
        return torch.softmax(hidden.float() @ self._rows.T, dim=-1)[:, 0]

    def _layout(self, steps: int) -> ChatLayout:
        """The conversation of that many steps, rendered once."""
        if steps not in self._layouts:
            turns = [("user", None), ("assistant", None)] * steps
            self._layouts[steps] = ChatLayout(self.tokenizer, turns, add_generation_prompt=False)
        return self._layouts[steps]
