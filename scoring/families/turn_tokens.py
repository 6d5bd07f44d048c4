"""PRMs that answer one user turn a step with one token: RLHFlow, FoVer, and files of this kind.

The family is data (`scoring.generative`). Every earlier step was answered "correct", whatever it
is; the score is P(correct) against P(incorrect) of the next answer. All answers of a trace are read
in one forward pass, in which each sees exactly the turns before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.family import NO_SETTINGS, LaidOutTrace, PrmCheckpoint
from scoring.generative import GenerativeFamily, packaged_family
from scoring.layout import ChatLayout, Turn, question_inline
from scoring.names import GENERATIVE
from scoring.read_outs import TwoTokens, require_tokens
from traces import Evidence, TraceInContext

RLHFLOW: Final = ("rlhflow-mistral", "rlhflow-deepseek")
"""Checkpoints that differ only in how their data split steps."""


class TurnTokens(TwoTokens):
    """The read-out on one checkpoint."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, family: GenerativeFamily
    ) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: has both verdicts and the fixed answer as single tokens, and a chat template.
            model: a causal language model.
            family: one that `is_one_pass`.

        Raises:
            PrmError: a token is missing, or the chat template cannot hold the turns.
        """
        words = (family.correct[0], family.incorrect[0], family.history)
        right, wrong, answer = require_tokens(tokenizer, words, family=family.name)
        super().__init__(tokenizer, model, (right, wrong))
        self.name, self.aggregation = family.name, family.aggregation
        self.settings: Mapping[str, Any] = NO_SETTINGS
        if family.name not in (*RLHFLOW, *GENERATIVE):
            self.settings = {"generative": family.as_dict()}
        self._family, self._answer = family, answer
        self._layouts: dict[int, ChatLayout] = {}

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out the turns of all steps, each answered; no evidence."""
        users = self._family.users(question_inline(context.problem), context.trace.steps)
        places: list[list[str | int]] = [[self._family.system]] if self._family.system else []
        for user in users:
            places += [[user], [self._answer]]
        ids, answers = self._layout(len(users)).fill(places)
        # An answer is predicted by the token before it.
        return LaidOutTrace(context.trace.id, ids, tuple((answer - 1,) for answer in answers))

    def _layout(self, steps: int) -> ChatLayout:
        """Return the conversation of that many steps, rendered once."""
        if steps not in self._layouts:
            turns: list[Turn] = [("system", None)] if self._family.system else []
            turns += [("user", None), ("assistant", None)] * steps
            self._layouts[steps] = ChatLayout(self.tokenizer, turns, add_generation_prompt=False)
        return self._layouts[steps]


def bind(checkpoint: PrmCheckpoint) -> TurnTokens:
    """Bind a built-in family to a checkpoint."""
    name = checkpoint.family
    family = packaged_family("rlhflow" if name in RLHFLOW else name)
    return TurnTokens(checkpoint.tokenizer, checkpoint.model(), replace(family, name=name))
