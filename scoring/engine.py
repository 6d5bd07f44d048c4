"""The engine: traces in, step scores out; all steps of a trace in one forward pass.

`engine_fit` lays traces out within the window, `engine_tree` finds what they begin with in common,
`engine_batches` cuts packs within the memory, `engine_forward` and `engine_attention` run them. Only
the hidden states that are read go through the output head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scoring.engine_batches import Batches, Read, ReadOut
from scoring.engine_fit import FitRules, Fitted, Overflow, fit, refuse_over_length
from scoring.engine_forward import prepare
from scoring.engine_memory import forward_tokens
from scoring.engine_readers import Reader, label_of, readers_of, window_of
from scoring.engine_tree import Node, plant
from scoring.engine_work import LayerWork, expected_work
from scoring.family import Family, LaidOutTrace
from traces.abstention import AbstentionReason
from traces.context import TraceInContext
from traces.labels import TraceLabel, abstained

_READ_AHEAD = 256
"""Traces that go through the model together, and then to the end of the last one's problem."""
_READ_AHEAD_MOST = 2048
"""Traces read ahead at most, however many candidates a problem has."""


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
            max_tokens: the window that a trace with its documents must fit into.
            weights: fingerprint of the checkpoint's weights; None if unknown.
            overflow: what happens to a trace that does not fit with all its documents.
            reserve: tokens kept free for question and solution, see `FitRules`.
            packing: which documents a prompt shows, see `FitRules`.
            batch_tokens: tokens of one forward pass; None takes what suits the device. Halved
                whenever the memory runs out.

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
        """The family in use."""
        return self._family

    @property
    def rules(self) -> FitRules:
        """How traces are made to fit."""
        return self._rules

    @property
    def resolved_model(self) -> str | None:
        """Fingerprint of the weights; None if it cannot be told."""
        return self._weights

    @property
    def batch_tokens(self) -> int:
        """Tokens of one forward pass, as far as the memory has let it."""
        return self._batches.budget

    @property
    def shares(self) -> bool:
        """Whether common beginnings are computed once."""
        return all(forward.shares for forward in self._forwards)

    @property
    def not_shared(self) -> str | None:
        """Why common beginnings are not computed once with these models; None if they are."""
        return next((forward.why for forward in self._forwards if not forward.shares), None)

    @property
    def work(self) -> LayerWork:
        """What a token costs the family's models."""
        return self._work

    @property
    def window(self) -> int:
        """Most tokens that the model can look at."""
        return window_of(self._family)

    @property
    def passes(self) -> list[tuple[float, float]]:
        """Operations and seconds of the last forward passes; may be cleared."""
        return self._batches.passes

    def config(self) -> dict[str, Any]:
        """The configuration that is stored with the labels (strict JSON)."""
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
        """Operations that each trace will take, by its id, told from the length of its texts."""
        return expected_work(contexts, self.work, documents=self._family.takes_documents)

    def refuse_over_length(self, contexts: Iterable[TraceInContext]) -> None:
        """With `--overflow error`: look at all traces before any is scored.

        Raises:
            InputError: some do not fit with all their documents; the first ones are named.
        """
        refuse_over_length(self._family, contexts, self._rules)

    def score(self, contexts: Iterable[TraceInContext]) -> Iterator[TraceLabel]:
        """Score every step of every trace; yield traces as they are done, in any order.

        Candidates of one problem should come together: what they begin with is then computed once.
        Documents that do not fit are left out and counted in `meta["documents_dropped"]`; a trace
        that does not fit is an abstention (`over_length`), one for which the memory does not
        suffice another (`model_error`). Nothing is cut.
        """
        for batch in self.score_batches(contexts):
            yield from batch

    def score_batches(self, contexts: Iterable[TraceInContext]) -> Iterator[list[TraceLabel]]:
        """As `score`; the traces of each forward pass together, none empty."""
        for window in _windows(contexts):
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
            yield [self._word(fitted[read.trace], read) for read in batch]

    def _word(self, trace: Fitted, read: Read) -> TraceLabel:
        """The label of a trace that was run."""
        if read.values is not None:
            return label_of(self._family, trace, read.values)
        detail = f"The memory does not hold a trace of {len(trace.laid_out.ids)} tokens."
        return abstained(trace.laid_out.trace_id, AbstentionReason.MODEL_ERROR, detail)


def _windows(contexts: Iterable[TraceInContext]) -> Iterator[list[TraceInContext]]:
    """Traces some hundred at a time; a problem's candidates that come together stay together."""
    window: list[TraceInContext] = []
    for context in contexts:
        ends = bool(window) and window[-1].problem.id != context.problem.id
        if len(window) >= (_READ_AHEAD if ends else _READ_AHEAD_MOST):
            yield window
            window = []
        window.append(context)
    if window:
        yield window


def _read_out(reader: Reader, following: Sequence[Sequence[int]]) -> ReadOut:
    """What a model gives at the reading places of a pack.

    Args:
        reader: the model.
        following: for each trace the ids behind its reading positions.
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
    """The id behind each reading position, 0 at the end of the sequence."""
    places = (place for positions in trace.read_at for place in positions)
    return [trace.ids[place + 1] if place + 1 < len(trace.ids) else 0 for place in places]
