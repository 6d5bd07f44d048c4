"""Implicit PRMs: the log-likelihood ratio of a trained language model and its reference.

Yuan et al., "Free Process Rewards without Process Labels", https://arxiv.org/abs/2412.01981, and
the checkpoints EurusPRM-Stage1 and -Stage2 (Cui et al., https://arxiv.org/abs/2502.01456). A
token's reward is 0.001 * (log p of the PRM - log p of the reference), as on EurusPRM's cards. A
step's value is the sum of all rewards up to its end, in the assistant's turn of a chat in which
each step starts with `Step i:`.

The end of a step follows the published scripts (PRIME-RL/ImplicitPRM c044175, eval/processbench.py,
and the cards): the conversation up to the step, followed by a blank line (one token with their
tokenizers), is rendered and encoded alone, and the position two tokens before its end is looked up
among the rewards of the *following* tokens. So a sum includes the blank line after the step and the
first token of the next one (where a full stop and a blank line are one token, its second one too).
The last sum includes the control token that closes the turn, and the first one begins with the last
token of the assistant's header.

Published sums are close to 0. The scores here are their sigmoids: close to 0.5, correct above it.
The sums are stored in the label's meta. Published thresholds are fitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, Final, cast

from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.engine.engine import ByStep, Reader, StepScores
from scoring.engine.heads import LanguageHead
from scoring.family import Aggregation, LaidOutTrace, PrmCheckpoint
from scoring.layout import ChatLayout, numbered, question_inline
from scoring.names import missing_reference
from traces import Evidence, PrmError, TraceInContext

AGGREGATIONS: Final[Mapping[str, Aggregation]] = {
    "eurusprm-stage1": "min",
    "eurusprm-stage2": "last",
    "implicit-prm": "min",
}
"""The two EurusPRMs, and any other pair of models. The published aggregation of Stage 2 is the
whole sum, which is the last step's.
"""
ANY: Final = "implicit-prm"
"""Family of a pair of models that has no name here."""
COEFFICIENT: Final = 0.001
"""Factor on a difference of log-probabilities."""
REWARDS: Final = "cumulative_rewards"
"""Key of a label's meta that holds the sum at the end of each step."""


class ImplicitPrm:
    """The read-out of a language model and its reference."""

    takes_documents = False

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        reference: PreTrainedModel,
        *,
        name: str = ANY,
        reference_settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind the family to two checkpoints.

        Args:
            tokenizer: that of both models, with a chat template.
            model: the causal language model that was trained as a PRM.
            reference: the model it is compared with; it takes the same token ids.
            name: one of `AGGREGATIONS`.
            reference_settings: identifies the reference; stored with the labels.

        Raises:
            PrmError: the chat template cannot hold the turns or does not close the assistant's with
                one control token, or logits cannot be computed from hidden states.
        """
        self.name, self.aggregation = name, AGGREGATIONS[name]
        self.settings: Mapping[str, Any] = {
            "coefficient": COEFFICIENT,
            **(reference_settings or {}),
        }
        self.tokenizer = tokenizer
        self.readers = tuple(
            Reader(cast(PreTrainedModel, each.base_model), LanguageHead(each).following_logs)
            for each in (model, reference)
        )
        self.backbone = self.readers[0].backbone
        self._layout = ChatLayout(
            tokenizer, [("user", None), ("assistant", None)], add_generation_prompt=False
        )
        closing = self._layout.closing
        if not closing or str(tokenizer.decode(list(closing[1:]))).strip():
            raise PrmError(
                "The checkpoint's chat template does not close the assistant's turn with one"
                f" control token, which the family {name} reads.",
                remedy="take the tokenizer files that were published with the PRM",
            )
        self._closing = len(closing)

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out the question in the user's turn and the steps in the assistant's; no evidence.

        A step reads the positions before its own new tokens; summing is left to `step_scores`.
        """
        question = question_inline(context.problem)
        steps = numbered([step.strip() for step in context.trace.steps])
        whole = self._ids(question, steps)
        last = len(whole) - self._closing - 1
        header = len(self._ids(question, ())) - self._closing - 1
        ends = [
            len(self._ids(question, steps[:count])) - self._closing
            for count in range(1, len(steps))
        ]
        # Tokens may join across the end of a step: no position may exceed the last one.
        bounds = accumulate([max(header - 2, -1), *ends, last], lambda a, b: min(max(a, b), last))
        read_at = tuple(tuple(range(a + 1, b + 1)) for a, b in pairwise(bounds))
        return LaidOutTrace(context.trace.id, whole, read_at)

    def _ids(self, question: str, steps: Sequence[str]) -> tuple[int, ...]:
        ids, _ = self._layout.fill([[question], ["\n\n".join(steps)]])
        return ids

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """Return the probability of each following token under the PRM's own model."""
        return self.readers[0].read(hidden, next_ids).exp()

    def step_scores(self, read: Sequence[ByStep]) -> StepScores:
        """Return the sigmoid of the sum of rewards up to the end of each step."""
        model, reference = read
        gains = (
            COEFFICIENT * math.fsum(p - q for p, q in zip(own, other, strict=True))
            for own, other in zip(model, reference, strict=True)
        )
        sums = list(accumulate(gains))
        return StepScores([(1 + math.tanh(each / 2)) / 2 for each in sums], {REWARDS: sums})


def bind(checkpoint: PrmCheckpoint) -> ImplicitPrm:
    """Bind the family to a checkpoint and its reference.

    Raises:
        InputError: there is no reference.
    """
    reference = checkpoint.reference
    if reference is None:
        raise missing_reference(checkpoint.family)
    return ImplicitPrm(
        checkpoint.tokenizer,
        checkpoint.model(),
        replace(checkpoint, folder=reference.folder).model(),
        name=checkpoint.family,
        reference_settings=reference.settings(),
    )
