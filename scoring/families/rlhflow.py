"""RLHFlow's Llama-3.1 PRMs (Mistral and Deepseek data): one user turn a step, answered `+` or `-`.

Xiong et al., "An Implementation of Generative PRM", https://github.com/RLHFlow/RLHF-Reward-Modeling
(math-rm/prm_evaluate.py): the first user turn is the question, a space and the first step; every
earlier step was answered `+`; the score is P(+) against P(-) of the next answer. All answers of a
trace are read in one forward pass, in which each sees exactly the turns before it. Aggregated by
the mean. The two checkpoints differ only in how their data split steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.family import Aggregation, LaidOutTrace, PrmCheckpoint
from scoring.layout import ChatLayout, question_inline
from scoring.read_outs import TwoTokens, require_tokens
from traces import Evidence, TraceInContext

NAMES: Final = ("rlhflow-mistral", "rlhflow-deepseek")
"""The two checkpoints."""
VERDICTS: Final = ("+", "-")
"""The answers whose logits are compared: correct, incorrect."""


class RlhFlow(TwoTokens):
    """The RLHFlow read-out on one checkpoint."""

    aggregation: Aggregation = "mean"

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, *, name: str = NAMES[0]
    ) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: has `+` and `-` as single tokens, and a chat template.
            model: a causal language model.
            name: which of the two families it is.

        Raises:
            PrmError: a token is missing, or the chat template cannot hold the turns.
        """
        verdicts = require_tokens(tokenizer, VERDICTS, family=name)
        super().__init__(tokenizer, model, verdicts)
        self.name, self._plus = name, verdicts[0]
        self._layouts: dict[int, ChatLayout] = {}

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out question and first step, then each step, all answered `+`; no evidence."""
        steps = [step.strip() for step in context.trace.steps]
        steps[0] = f"{question_inline(context.problem)} {steps[0]}"
        places: list[list[str | int]] = []
        for step in steps:
            places += [[step], [self._plus]]
        ids, answers = self._layout(len(steps)).fill(places)
        # An answer is predicted by the token before it.
        return LaidOutTrace(context.trace.id, ids, tuple((answer - 1,) for answer in answers))

    def _layout(self, steps: int) -> ChatLayout:
        """Return the conversation of that many steps, rendered once."""
        if steps not in self._layouts:
            turns = [("user", None), ("assistant", None)] * steps
            self._layouts[steps] = ChatLayout(self.tokenizer, turns, add_generation_prompt=False)
        return self._layouts[steps]


def bind(checkpoint: PrmCheckpoint) -> RlhFlow:
    """Bind the family to a checkpoint."""
    return RlhFlow(checkpoint.tokenizer, checkpoint.model(), name=checkpoint.family)
