"""The engine: traces in, step scores out; all steps of a trace in one forward pass.

Only the hidden states that are read go through the output head. Batches hold traces of like length,
padded on the right: causal models never look there, so no mask is needed and no score depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from retrieval.packing import pack_evidence
from scoring.family import Family, LaidOutTrace
from traces.abstention import Abstention, AbstentionReason
from traces.context import TraceInContext
from traces.labels import StepLabel, TraceLabel, abstained

_BATCH_TOKENS = 1 << 14
"""Tokens of one forward pass, padding included (a longer trace goes alone)."""
_READ_AHEAD = 256
"""Traces sorted by length together."""
_NOTHING_TO_READ = StepLabel(
    abstention=Abstention(AbstentionReason.NOT_MEASURED, "The step has no token of its own.")
)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A trace that fits, with what had to be left out for it."""

    laid_out: LaidOutTrace
    """Its ids and reading positions."""
    documents: int
    """Documents in the prompt."""
    dropped: int
    """Documents that did not fit."""


class Scorer:
    """Scores steps with one PRM."""

    def __init__(
        self,
        family: Family,
        *,
        max_tokens: int,
        weights: str | None = None,
        batch_tokens: int = _BATCH_TOKENS,
    ) -> None:
        """Take a family that is bound to a checkpoint.

        Args:
            family: prompt, markers and read-out.
            max_tokens: the window that a trace with its documents must fit into.
            weights: fingerprint of the checkpoint's weights; None if unknown.
            batch_tokens: tokens of one forward pass, padding included.
        """
        self._family = family
        self._max_tokens = max_tokens
        self._weights = weights
        self._batch_tokens = batch_tokens

    @property
    def family(self) -> Family:
        """The family in use."""
        return self._family

    @property
    def resolved_model(self) -> str | None:
        """Fingerprint of the weights; None if it cannot be told."""
        return self._weights

    def config(self) -> dict[str, Any]:
        """The configuration that is stored with the labels (strict JSON)."""
        return {
            "family": self._family.name,
            "mode": "strict",
            "max_tokens": self._max_tokens,
            "dtype": str(self._family.backbone.dtype).removeprefix("torch."),
            "weights": self._weights,
        }

    def score(self, contexts: Iterable[TraceInContext]) -> Iterator[TraceLabel]:
        """Score every step of every trace; yield traces as they are done, in any order.

        Documents that do not fit are left out and counted in `meta["documents_dropped"]`; a trace
        that does not fit even without documents is an abstention (`over_length`). Nothing is cut.
        """
        rest = iter(contexts)
        while window := list(islice(rest, _READ_AHEAD)):
            fitted = []
            for context in window:
                found = self._fit(context)
                if isinstance(found, _Fitted):
                    fitted.append(found)
                else:
                    yield found
            fitted.sort(key=lambda trace: len(trace.laid_out.ids))
            for batch in _batches(fitted, self._batch_tokens):
                scores = self._step_scores([trace.laid_out for trace in batch])
                for trace, steps in zip(batch, scores, strict=True):
                    yield _label(trace, steps)

    def _fit(self, context: TraceInContext) -> _Fitted | TraceLabel:
        """Lay a trace out with as many of its documents as the window holds."""
        evidence = context.evidence if self._family.takes_documents else ()
        laid_out = self._family.lay_out(context, evidence)
        if len(laid_out.ids) <= self._max_tokens:
            return _Fitted(laid_out, len(evidence), 0)
        bare = self._family.lay_out(context, ())
        if len(bare.ids) > self._max_tokens:
            detail = f"{len(bare.ids)} tokens do not fit into the PRM's {self._max_tokens}."
            return abstained(context.trace.id, AbstentionReason.OVER_LENGTH, detail)
        budget = self._max_tokens - len(bare.ids)
        kept = list(pack_evidence(evidence, budget=budget, count_tokens=self._count).kept)
        laid_out = self._family.lay_out(context, kept)
        # The prompt with documents may be worded at greater length than the one without.
        while len(laid_out.ids) > self._max_tokens:
            kept.pop()
            laid_out = self._family.lay_out(context, kept)
        return _Fitted(laid_out, len(kept), len(evidence) - len(kept))

    def _count(self, text: str) -> int:
        return len(self._family.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.inference_mode()
    def _step_scores(self, batch: Sequence[LaidOutTrace]) -> list[list[float | None]]:
        """The score of each step of each trace; None where there is nothing to read."""
        backbone = self._family.backbone
        ids = torch.zeros(
            (len(batch), 1 + max(len(trace.ids) for trace in batch)), dtype=torch.int64
        )
        for row, trace in enumerate(batch):
            ids[row, : len(trace.ids)] = torch.tensor(trace.ids)
        ids = ids.to(backbone.device)
        places = [
            (row, position)
            for row, trace in enumerate(batch)
            for positions in trace.read_at
            for position in positions
        ]
        if not places:
            return [[None] * len(trace.read_at) for trace in batch]
        rows, columns = torch.tensor(places, device=ids.device).T
        hidden = backbone(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        read = self._family.probabilities(hidden[rows, columns], ids[rows, columns + 1])
        values = iter(read.tolist())
        return [
            [min(islice(values, len(positions)), default=None) for positions in trace.read_at]
            for trace in batch
        ]


def _batches(traces: Sequence[_Fitted], budget: int) -> Iterator[list[_Fitted]]:
    """Cut traces, sorted by length, into batches within the budget; at least one trace each."""
    batch: list[_Fitted] = []
    for trace in traces:
        if batch and len(trace.laid_out.ids) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(trace)
    if batch:
        yield batch


def _label(trace: _Fitted, scores: Sequence[float | None]) -> TraceLabel:
    """The trace's label, one step label a step."""
    steps = tuple(_NOTHING_TO_READ if score is None else StepLabel(score=score) for score in scores)
    meta = {"documents": trace.documents, "documents_dropped": trace.dropped}
    return TraceLabel(trace.laid_out.trace_id, steps, meta=meta)
