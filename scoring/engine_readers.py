"""The models of a family, what is read off each, and the step scores that follow from it.

Most families have one model: a step's score is the least probability read for it. One that is scored by
several says so by `SeveralModels`; the engine then runs every pack through each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedModel

from inference.checkpoints import model_window
from scoring.engine_fit import Fitted
from scoring.family import Family
from traces.labels import StepLabel, TraceLabel

ByStep = Sequence[Sequence[float]]
"""For each step the values read for it, in the order of its reading positions."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A model, and what is read off its hidden states."""

    backbone: PreTrainedModel
    """Gives hidden states, without its output head."""
    read: Callable[[Tensor, Tensor], Tensor]
    """Hidden states `[positions, width]` and the ids that follow, int64 `[positions]`, to float32
    `[positions]`."""


@dataclass(frozen=True, slots=True)
class StepScores:
    """What the steps of a trace are worth."""

    scores: Sequence[float]
    """For each step, in [0, 1]."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What is stored beside them (strict JSON)."""


@runtime_checkable
class SeveralModels(Protocol):
    """What a family adds whose steps are scored by more than one model."""

    @property
    def readers(self) -> Sequence[Reader]:
        """The models, that of the PRM itself first; they look at the same token ids."""

    def step_scores(self, read: Sequence[ByStep]) -> StepScores:
        """The scores that follow from what each of the models gave, in the order of `readers`."""


def readers_of(family: Family) -> Sequence[Reader]:
    """The models that a family has read, its own first."""
    if isinstance(family, SeveralModels):
        return family.readers
    return (Reader(family.backbone, family.probabilities),)


def label_of(family: Family, trace: Fitted, values: Sequence[Sequence[float]]) -> TraceLabel:
    """The label of a trace that was run.

    Args:
        family: its family.
        trace: as it was run.
        values: for each model one value a reading place, in the order of `read_at`.
    """
    if not isinstance(family, SeveralModels):
        return trace.label(values[0])
    found = family.step_scores([_by_step(trace, of_model) for of_model in values])
    steps = tuple(StepLabel(score=score) for score in found.scores)
    return TraceLabel(trace.laid_out.trace_id, steps, meta=trace.meta() | found.meta)


def _by_step(trace: Fitted, values: Sequence[float]) -> list[list[float]]:
    following = iter(values)
    return [list(islice(following, len(places))) for places in trace.laid_out.read_at]


def window_of(family: Family) -> int:
    """Most tokens that every model of a family can look at."""
    return min(
        model_window(reader.backbone.config, family.tokenizer) for reader in readers_of(family)
    )
