"""Likelihood: a step is as good as its least probable token under a causal language model.

This is our own baseline, not a published PRM. A model that solves the task writes correct steps
with confidence, so that one improbable token reveals a wrong step. It needs no further training.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference import ContinuationPrompt, continuation_messages, conversation_text, first_ids
from scoring.engine.heads import LanguageHead
from scoring.family import NO_SETTINGS, Aggregation, LaidOutTrace, PrmCheckpoint
from traces import Evidence, PrmError, TraceInContext


class Likelihood:
    """Token probabilities under one causal language model, prompted like a policy."""

    name = "likelihood"
    aggregation: Aggregation = "min"
    takes_documents = True
    settings: Mapping[str, Any] = NO_SETTINGS

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        prompt: ContinuationPrompt | None = None,
    ) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: a fast one: tokens are assigned to steps by their offsets in the text.
            model: a causal language model.
            prompt: what surrounds question and steps; None for no system turn and a step a line.

        Raises:
            PrmError: the tokenizer does not give offsets, or the model's logits cannot be computed
                from hidden states.
        """
        if not tokenizer.is_fast:
            raise PrmError("The family likelihood needs a fast tokenizer (tokenizer.json).")
        self.tokenizer = tokenizer
        self.backbone: PreTrainedModel = cast(PreTrainedModel, model.base_model)
        self._head = LanguageHead(model)
        self._prompt = prompt or ContinuationPrompt()
        added = tokenizer.added_tokens_decoder.values()
        self._control = tuple(token.content for token in added if token.special)

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out the policy's prompt and all steps; read each step where its tokens are predicted.

        A token belongs to the step in which it starts. Text between two steps belongs to the later
        one, which the model might not have written.
        """
        separator = self._prompt.separator
        messages = continuation_messages(
            context.problem, evidence, (), system=self._prompt.system, separator=separator
        )
        head = conversation_text(self.tokenizer, messages)
        steps = context.trace.steps
        ids, places = self._encoded(head, separator.join(steps))
        start = first_ids(self.tokenizer)
        start = () if ids[: len(start)] == start else start
        lengths = [len(step) + len(separator) * (number > 0) for number, step in enumerate(steps)]
        begins = list(accumulate(lengths[:-1], initial=len(head)))
        read_at: list[list[int]] = [[] for _ in steps]
        for place, (begin, _) in enumerate(places):
            step = bisect_right(begins, begin) - 1
            if step >= 0:
                read_at[step].append(len(start) + place - 1)
        return LaidOutTrace(context.trace.id, (*start, *ids), tuple(map(tuple, read_at)))

    def _encoded(self, head: str, written: str) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
        """Return ids of the prompt with the written text, and each id's offsets in the text.

        Control tokens written in steps are spelled out: everything after the prompt's last control
        token is then encoded as plain text.
        """
        tokens = self.tokenizer
        if not any(token in written for token in self._control):
            found = tokens(head + written, add_special_tokens=False, return_offsets_mapping=True)
            return tuple(found["input_ids"]), found["offset_mapping"]
        opening = tokens(head, add_special_tokens=False, return_offsets_mapping=True)
        ids, places = opening["input_ids"], opening["offset_mapping"]
        kept = max((n for n, i in enumerate(ids, 1) if i in tokens.added_tokens_decoder), default=0)
        cut = places[kept - 1][1] if kept else 0
        rest = tokens(
            head[cut:] + written,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,
        )
        after = [(begin + cut, end + cut) for begin, end in rest["offset_mapping"]]
        return (*ids[:kept], *rest["input_ids"]), [*places[:kept], *after]

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """Return the probability of each following token."""
        return self._head.following_logs(hidden, next_ids).exp()


def bind(checkpoint: PrmCheckpoint) -> Likelihood:
    """Bind the family to a checkpoint."""
    return Likelihood(checkpoint.tokenizer, checkpoint.model())
