"""Which engine drives a local model: the shared-prefix one where it is proven right, else the plain one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Protocol

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.local_model import LocalModel
from inference.plain_engine import PlainEngine
from inference.prefix_sharing_check import refusal
from inference.prefix_sharing_choice import SamplingRule
from inference.prefix_sharing_engine import PrefixEngine, SharedTrace, WrittenTrace
from inference.prefix_sharing_heads import ImageHeads
from inference.vision import VisionReader
from inference.vision_proof import plain_fault, prove_reading, sharing_fault
from traces.errors import ModelRefused


class Engine(Protocol):
    """Writes continuations with one model."""

    @property
    def near_ties(self) -> int:
        """Choices so far in which the two best lay within `NEAR_TIE`."""

    @property
    def slow_because(self) -> str | None:
        """Why nothing is shared; None where prefixes are."""

    def continue_all(
        self,
        traces: Sequence[SharedTrace],
        rule: SamplingRule,
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[WrittenTrace]:
        """Yield what was written for each trace's rows, trace by trace, in the order given."""

    def release(self, names: Iterable[Hashable]) -> None:
        """Let go what is kept under these names."""


def engine_for(
    local: LocalModel, *, cache_tokens: int | None = None, batch_rows: int | None = None
) -> Engine:
    """The fastest engine that is proven right for a model; limits as those of `PrefixEngine`.

    Raises:
        ModelRefused: no engine is.
    """
    if local.vision is None:
        return PrefixEngine(
            local.model, local.end_ids, cache_tokens=cache_tokens, batch_rows=batch_rows
        )
    prove_reading(local.vision)
    shared = _shared_heads(local.model, local.vision)
    if not isinstance(shared, str):
        try:
            return PrefixEngine(
                local.model,
                local.end_ids,
                heads=shared,
                cache_tokens=cache_tokens,
                batch_rows=batch_rows,
            )
        except ModelRefused as fault:  # of text alone
            shared.let_go()
            shared = fault.what
    wrong = plain_fault(local.model, local.vision)
    if wrong is not None:
        raise refusal(wrong)
    return PlainEngine(local.model, local.vision, local.end_ids, slow_because=shared)


def _shared_heads(model: PreTrainedModel, reader: VisionReader) -> ImageHeads | str:
    """What prefills heads for sharing, or why that is not right for this model."""
    try:
        heads = ImageHeads(model, reader)
    except ModelRefused as fault:
        return fault.what
    fault_found = sharing_fault(model, reader, heads)
    if fault_found is None:
        return heads
    heads.let_go()
    return fault_found
