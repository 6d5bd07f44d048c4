"""The engine: traces in, step scores out; all steps of a trace in one forward pass.

`fit` lays out traces within the window, `forward` finds their common prefixes and runs packs of
tokens; packs are cut to the memory here. Only the hidden states that are read go through the output
head.

Most families have one model: a step's score is the lowest probability read for it. A family scored
by several models implements `SeveralModels`; the engine then runs every pack through each of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference import free_cached_memory, is_out_of_memory, model_window
from scoring.engine.cost import LayerWork, expected_work, forward_tokens
from scoring.engine.fit import FitRules, Fitted, Overflow, fit, refuse_over_length
from scoring.engine.forward import Forward, Node, plant, prepare
from scoring.family import Family, LaidOutTrace
from traces import (
    AbstentionReason,
    StepLabel,
    TraceInContext,
    TraceLabel,
    abstained,
    problem_windows,
)

_NOTED = 1_000
"""Packs whose operations and time are kept."""

ReadOut = Callable[[Tensor, Sequence[Node]], list[float]]
"""Maps hidden states of a pack's reading positions, and its nodes, to one value per position."""


@dataclass(frozen=True, slots=True)
class Read:
    """A trace that was run."""

    trace: int
    """Its number."""
    values: tuple[tuple[float, ...], ...] | None
    """For each model one value per reading position, in order; None if not even the trace alone
    fits into memory."""


class Batches:
    """Runs trees of nodes pack by pack, with smaller packs after running out of memory."""

    def __init__(
        self,
        forwards: Sequence[Forward],
        device: torch.device,
        budget: int,
        work: LayerWork,
    ) -> None:
        """Take the forward passes of one model or several.

        Args:
            forwards: run packs; every pack goes through each of them.
            device: of the models.
            budget: tokens of one pack, padding included; a longer node goes alone.
            work: what a token costs the models together.
        """
        self._forwards, self._device, self._work = forwards, device, work
        self.passes: list[tuple[float, float]] = []
        """Operations and seconds of each pack, for the last thousand."""
        self.budget = budget
        """Tokens of one pack; halved whenever the memory runs out."""

    def run(self, nodes: Sequence[Node], read_outs: Sequence[ReadOut]) -> Iterator[list[Read]]:
        """Run all nodes; yield the traces of each pack as it is done, every trace once.

        Args:
            nodes: in the order of the tree.
            read_outs: for each of the models.
        """
        waiting = deque(nodes)
        while waiting:
            pack = self._take(waiting)
            started = time.perf_counter()
            values = self._values(pack, waiting[0] if waiting else None, read_outs)
            if values is not None:
                self._note(pack, time.perf_counter() - started)
                yield list(_by_trace(pack, values))
            elif len(pack) > 1:
                self.budget = max(1, self._tokens(pack) // 2)
                waiting.extendleft(reversed(pack))
            else:
                yield list(_lost(pack[0], waiting))

    def _take(self, waiting: deque[Node]) -> list[Node]:
        """Return the next nodes within the budget, at least one."""
        pack = [waiting.popleft()]
        while waiting and self._tokens([*pack, waiting[0]]) <= self.budget:
            pack.append(waiting.popleft())
        return pack

    def _tokens(self, pack: Sequence[Node]) -> int:
        """Return the tokens of the model that pads most."""
        return max(forward.tokens(pack) for forward in self._forwards)

    def _keep_for(self, following: Node | None) -> None:
        for forward in self._forwards:
            forward.keep_for(following)

    def _note(self, pack: Sequence[Node], seconds: float) -> None:
        done = sum(self._work.tokens(len(node.ids), node.start) for node in pack)
        self.passes.append((done, seconds))
        del self.passes[:-_NOTED]

    def _values(
        self, pack: Sequence[Node], following: Node | None, read_outs: Sequence[ReadOut]
    ) -> list[list[float]] | None:
        """Return each model's values for the pack; None if the memory ran out."""
        try:
            values = [
                read_out(forward.hidden(pack, following), pack)
                for forward, read_out in zip(self._forwards, read_outs, strict=True)
            ]
        except (RuntimeError, MemoryError) as fault:
            if not is_out_of_memory(fault):
                raise
        else:
            self._keep_for(following)
            return values
        # Outside the handler, where the exception would keep the failed pass's tensors alive.
        self._keep_for(pack[0])
        free_cached_memory(self._device)
        return None


def _by_trace(pack: Sequence[Node], values: Sequence[Sequence[float]]) -> Iterator[Read]:
    """Distribute the values of each model to the traces that end in the pack."""
    following = [iter(of_model) for of_model in values]
    for node in pack:
        if node.trace is not None:
            count = len(node.read_at)
            yield Read(node.trace, tuple(tuple(islice(each, count)) for each in following))


def _lost(node: Node, waiting: deque[Node]) -> Iterator[Read]:
    """Yield the traces that depend on a node too large for the memory."""
    if node.trace is not None:
        yield Read(node.trace, None)
    while waiting and node in waiting[0].above():
        below = waiting.popleft()
        if below.trace is not None:
            yield Read(below.trace, None)


ByStep = Sequence[Sequence[float]]
"""For each step the values read for it, in the order of its reading positions."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A model, and what is computed from its hidden states."""

    backbone: PreTrainedModel
    """Gives hidden states, without its output head."""
    read: Callable[[Tensor, Tensor], Tensor]
    """Maps hidden states `[positions, width]` and the ids that follow, int64 `[positions]`, to
    float32 `[positions]`."""


@dataclass(frozen=True, slots=True)
class StepScores:
    """The scores of a trace's steps."""

    scores: Sequence[float]
    """For each step, in [0, 1]."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Stored with them (strict JSON)."""


@runtime_checkable
class SeveralModels(Protocol):
    """What a family adds whose steps are scored by more than one model."""

    @property
    def readers(self) -> Sequence[Reader]:
        """The models, that of the PRM first; all take the same token ids."""

    def step_scores(self, read: Sequence[ByStep]) -> StepScores:
        """Return the scores that follow from each model's values, in the order of `readers`."""


def readers_of(family: Family) -> Sequence[Reader]:
    """Return the models of a family, the PRM's first."""
    if isinstance(family, SeveralModels):
        return family.readers
    return (Reader(family.backbone, family.probabilities),)


def label_of(family: Family, trace: Fitted, values: Sequence[Sequence[float]]) -> TraceLabel:
    """Return the label of a trace that was run.

    Args:
        family: its family.
        trace: as it was run.
        values: for each model one value per reading position, in the order of `read_at`.
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
    """Return the longest sequence, in tokens, that every model of a family accepts."""
    return min(
        model_window(reader.backbone.config, family.tokenizer) for reader in readers_of(family)
    )


class Scorer:
    """Scores steps with one PRM."""

    def __init__(
        self,
        family: Family,
        *,
        max_tokens: int,
        weights: str | None = None,
        overflow: Overflow = Overflow.DROP_DOCUMENTS,
        reserve: int = 0,
        packing: str = "fit",
        batch_tokens: int | None = None,
    ) -> None:
        """Take a family that is bound to a checkpoint.

        Args:
            family: prompt, markers and read-out.
            max_tokens: window for a trace with its documents.
            weights: fingerprint of the checkpoint's weights; None if unknown.
            overflow, reserve, packing: see `FitRules`.
            batch_tokens: tokens of one forward pass, halved whenever the memory runs out; None for
                what suits the device.

        Raises:
            InputError: the reserve leaves no room.
        """
        self._family = family
        self._weights = weights
        self._rules = FitRules(max_tokens, overflow, reserve, packing)
        self._readers = readers_of(family)
        models = [reader.backbone for reader in self._readers]
        self._forwards = [prepare(model) for model in models]
        budget = batch_tokens or min(map(forward_tokens, models))
        self._work = LayerWork.of(*models)
        self._batches = Batches(self._forwards, family.backbone.device, budget, self._work)

    @property
    def family(self) -> Family:
        return self._family

    @property
    def rules(self) -> FitRules:
        """How traces are made to fit."""
        return self._rules

    @property
    def resolved_model(self) -> str | None:
        """Fingerprint of the weights; None if unknown."""
        return self._weights

    @property
    def batch_tokens(self) -> int:
        """Tokens of one forward pass, reduced where the memory ran out."""
        return self._batches.budget

    @property
    def shares(self) -> bool:
        """Whether common prefixes are computed once."""
        return all(forward.shares for forward in self._forwards)

    @property
    def not_shared(self) -> str | None:
        """Why common prefixes are not computed once with these models; None if they are."""
        return next((forward.why for forward in self._forwards if not forward.shares), None)

    @property
    def work(self) -> LayerWork:
        """What a token costs the family's models."""
        return self._work

    @property
    def window(self) -> int:
        """Longest sequence that the model accepts, in tokens."""
        return window_of(self._family)

    @property
    def passes(self) -> list[tuple[float, float]]:
        """Operations and seconds of the last forward passes; may be cleared."""
        return self._batches.passes

    def config(self) -> dict[str, Any]:
        """Return the configuration that is stored with the labels (strict JSON)."""
        return {
            "family": self._family.name,
            "mode": "strict",
            **self._family.settings,
            **self._rules.as_dict(),
            "prefix": "shared" if self.shares else "full forwards",
            "dtype": str(self._family.backbone.dtype).removeprefix("torch."),
            "weights": self._weights,
        }

    def expected_work(self, contexts: Iterable[TraceInContext]) -> Mapping[str, float]:
        """Return the expected operations of each trace, by its id, from the length of its texts."""
        return expected_work(contexts, self.work, documents=self._family.takes_documents)

    def refuse_over_length(self, contexts: Iterable[TraceInContext]) -> None:
        """With `--overflow error`, check all traces before any is scored.

        Raises:
            InputError: some do not fit with all their documents; names the first ones.
        """
        refuse_over_length(self._family, contexts, self._rules)

    def score(self, contexts: Iterable[TraceInContext]) -> Iterator[TraceLabel]:
        """Score every step of every trace; yield traces as they are done, in any order.

        Candidates of one problem should come together: their common prefix is then computed once.
        Documents that do not fit are left out and counted in `meta["documents_dropped"]`. A trace
        that does not fit into the window is an abstention (`over_length`), one that does not fit
        into memory another (`model_error`). Nothing is truncated.
        """
        for batch in self.score_batches(contexts):
            yield from batch

    def score_batches(self, contexts: Iterable[TraceInContext]) -> Iterator[list[TraceLabel]]:
        """As `score`, with the traces of each forward pass together; no batch is empty."""
        for window in problem_windows(contexts, lambda context: context.problem.id):
            fitted, done = [], []
            for context in window:
                found = fit(self._family, context, self._rules)
                if isinstance(found, TraceLabel):
                    done.append(found)
                elif any(found.laid_out.read_at):
                    fitted.append(found)
                else:
                    done.append(found.label(()))
            if done:
                yield done
            yield from filter(None, self._score(fitted))

    def _score(self, fitted: Sequence[Fitted]) -> Iterator[list[TraceLabel]]:
        """Run traces that fit, each with something to read."""
        following = [_following(trace.laid_out) for trace in fitted]
        read_outs = [_read_out(reader, following) for reader in self._readers]
        nodes = plant([trace.laid_out for trace in fitted], share=self.shares)
        for batch in self._batches.run(nodes, read_outs):
            yield [self._label(fitted[read.trace], read) for read in batch]

    def _label(self, trace: Fitted, read: Read) -> TraceLabel:
        """Return the label of a trace that was run."""
        if read.values is not None:
            return label_of(self._family, trace, read.values)
        detail = f"Out of memory for a trace of {len(trace.laid_out.ids)} tokens."
        return abstained(trace.laid_out.trace_id, AbstentionReason.MODEL_ERROR, detail)


def _read_out(reader: Reader, following: Sequence[Sequence[int]]) -> ReadOut:
    """Return a function that gives a model's values at the reading positions of a pack.

    Args:
        reader: the model.
        following: for each trace the ids after its reading positions.
    """

    @torch.inference_mode()
    def read(hidden: Tensor, pack: Sequence[Node]) -> list[float]:
        ids = [i for node in pack if node.trace is not None for i in following[node.trace]]
        if not ids:
            return []
        next_ids = torch.tensor(ids, dtype=torch.int64, device=hidden.device)
        values: list[float] = reader.read(hidden, next_ids).tolist()
        return values

    return read


def _following(trace: LaidOutTrace) -> list[int]:
    """Return the id after each reading position, 0 at the end of the sequence."""
    places = (place for positions in trace.read_at for place in positions)
    return [trace.ids[place + 1] if place + 1 < len(trace.ids) else 0 for place in places]
