"""Operations: what a token costs, so that time left and bounds are told in work, not in traces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from torch import nn
from transformers import PreTrainedModel

from traces.context import TraceInContext

_CHARACTERS = 4
"""Characters a token, roughly; it only weighs long traces against short ones."""


@dataclass(frozen=True, slots=True)
class LayerWork:
    """Operations of causal models' layers, output heads apart; a multiply-add counts two."""

    per_token: int
    """Of the linear layers, for one token."""
    per_pair: int
    """Of attention, for one token and one token that it sees (itself included), over all layers."""

    @classmethod
    def of(cls, *models: PreTrainedModel) -> LayerWork:
        """Count them in models that give hidden states, all together."""
        works = [cls._of(model) for model in models]
        return cls(sum(work.per_token for work in works), sum(work.per_pair for work in works))

    @classmethod
    def _of(cls, model: PreTrainedModel) -> LayerWork:
        linear = sum(
            module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear)
        )
        config = model.config.get_text_config()
        heads = int(getattr(config, "num_attention_heads", 1))
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        layers = int(getattr(config, "num_hidden_layers", 1))
        return cls(2 * linear, 4 * layers * heads * int(width))

    def tokens(self, count: float, behind: float = 0) -> float:
        """Operations of `count` tokens that stand behind `behind` others."""
        return self.per_token * count + self.per_pair * (count * behind + count * (count + 1) / 2)


def expected_work(
    contexts: Iterable[TraceInContext], work: LayerWork, *, documents: bool = True
) -> Mapping[str, float]:
    """Operations that each trace will take, by its id, told from the length of its texts.

    What a problem's candidates share is divided among those that come together.

    Args:
        contexts: the traces.
        work: what a token costs.
        documents: whether evidence stands in the prompt.
    """
    expected: dict[str, float] = {}
    for _, together in groupby(contexts, key=lambda context: context.problem.id):
        candidates = list(together)
        shared = _shared_characters(candidates[0], documents) / _CHARACTERS
        part = work.tokens(shared) / len(candidates)
        for context in candidates:
            own = sum(map(len, context.trace.steps)) / _CHARACTERS
            expected[context.trace.id] = part + work.tokens(own, shared)
    return expected


def _shared_characters(context: TraceInContext, documents: bool) -> int:
    """Characters of question, options and, where it is shown, evidence."""
    problem = context.problem
    evidence = context.evidence if documents else ()
    texts = (problem.question, *problem.options, *(each.passage.text for each in evidence))
    return sum(map(len, texts))
