"""Continue many prefixes of many traces at once: prefill each trace once, fork its cache, sample."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.device_memory import is_out_of_memory, let_go
from inference.prefix_sharing_check import assert_sharing_works
from inference.prefix_sharing_choice import SamplingRule
from inference.prefix_sharing_heads import ImageHeads
from inference.prefix_sharing_kept import Beginning, Kept, KeptPrefixes, Prefilled
from inference.prefix_sharing_wave import Row, Wave, Written
from inference.stop_strings import StopStrings
from inference.vision import ImageHead
from traces.errors import ModelRefused

_Made = TypeVar("_Made")
_CACHE_BYTES = 1 << 30
"""Key-value bytes kept at once on a processor."""
_GPU_SHARE = 0.4
"""Share of a GPU's free memory given to key-value caches."""
_LOGITS_NUMBERS = 1 << 26
"""Most logits (rows times vocabulary) computed at once."""


@dataclass(frozen=True, slots=True)
class SharedTrace:
    """A trace's tokens and what continues from them."""

    ids: tuple[int, ...]
    """All of the trace's tokens."""
    rows: tuple[Row, ...]
    """The continuations wanted."""
    name: Hashable | None = None
    """Under which its prefilled tokens are kept until they are released; None keeps nothing."""
    head: ImageHead | None = None
    """What it begins with where it shows images; every cut lies behind it. None for text alone."""


@dataclass(frozen=True, slots=True)
class WrittenTrace:
    """What was written for one trace, and what it took."""

    rows: tuple[Written, ...]
    """One per row asked for, in order."""
    prefilled_tokens: int
    """Positions computed before anything was written: what was not kept of the trace's own tokens, and
    the tokens of a tail but its last one, row by row. With the tokens generated it makes up all
    positions that went through the model."""


class PrefixEngine:
    """Writes continuations with one model."""

    def __init__(
        self,
        model: PreTrainedModel,
        end_ids: frozenset[int],
        *,
        heads: ImageHeads | None = None,
        cache_tokens: int | None = None,
        batch_rows: int | None = None,
    ) -> None:
        """Take a model and prove that sharing works with it.

        Args:
            model: loaded with the shared-prefix attention.
            end_ids: tokens that end a continuation.
            heads: prefills beginnings with images; None for a text model.
            cache_tokens: key-value positions held at once: half for the rows' own tokens, half for
                prefixes, of which up to half are kept between calls (and up to a quarter are heads).
                None takes what about 1 GiB (a processor) or 40% of the free memory (a GPU) holds.
            batch_rows: continuations written together at most; None for what the memory holds.

        Raises:
            ModelRefused: the model's attention is of a kind that sharing does not cover.
        """
        assert_sharing_works(model)
        self._model, self._heads = model, heads
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.int64, device=model.device)
        self._cache_tokens = cache_tokens or _cache_tokens(model)
        self._kept = KeptPrefixes(self._cache_tokens // 4)
        if heads is not None:
            heads.budget = self._cache_tokens // 8
        most = max(1, _LOGITS_NUMBERS // int(model.config.get_text_config().vocab_size))
        self._most_rows = min(most, batch_rows or most)
        self.near_ties = 0
        """Choices so far in which the two best lay within `NEAR_TIE`."""
        self.slow_because: str | None = None
        """Why nothing is shared: it is."""

    def continue_all(
        self,
        traces: Sequence[SharedTrace],
        rule: SamplingRule,
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[WrittenTrace]:
        """Yield what was written for each trace's rows, trace by trace, in the order given.

        Traces of like length should stand together: they share a batch. Where memory runs out the
        batch is halved; what was written is written again then, and is the same.

        Raises:
            RuntimeError: not even one row of one trace fits into the memory.
        """
        stops = StopStrings(stop, tokenizer)
        named = any(trace.name is not None for trace in traces)
        budget = self._cache_tokens // 2 - (self._kept.budget if named else 0)
        budget -= 0 if self._heads is None else self._heads.budget
        for group in _groups(traces, budget):
            yield from self._continue_group(group, rule, max_new_tokens, stops)

    def release(self, names: Iterable[Hashable]) -> None:
        """Let go what is kept under these names."""
        self._kept.release(names)

    def _continue_group(
        self, group: Sequence[SharedTrace], rule: SamplingRule, max_new: int, stops: StopStrings
    ) -> Iterator[WrittenTrace]:
        """Prefill the group and write its rows; half of the group first if it does not fit."""
        prefilled = _unless_full(lambda: self._prefill(group), may_halve=len(group) > 1)
        if prefilled is None:
            let_go(self._model.device)
            middle = len(group) // 2
            for half in (group[:middle], group[middle:]):
                yield from self._continue_group(half, rule, max_new, stops)
            return
        rows = [(number, row) for number, trace in enumerate(group) for row in trace.rows]
        written = self._write(prefilled, rows, rule, max_new, stops)
        for trace, new in zip(group, prefilled.computed, strict=True):
            tails = sum(len(row.tail) - 1 for row in trace.rows)
            yield WrittenTrace(tuple(next(written) for _ in trace.rows), new + tails)

    def _prefill(self, group: Sequence[SharedTrace]) -> Prefilled:
        of_heads = [0] * len(group)

        def beginning(row: int, head: ImageHead | None) -> Beginning | None:
            if head is None:
                return None

            def prefilled() -> Kept:
                kept, of_heads[row] = self._images().of(head)
                return kept

            return Beginning(len(head.ids), prefilled)

        made = self._kept.prefill(
            self._model,
            [(trace.name, _shared(trace)) for trace in group],
            [beginning(row, trace.head) for row, trace in enumerate(group)],
        )
        computed = [sum(pair) for pair in zip(made.computed, of_heads, strict=True)]
        return replace(made, computed=computed)

    def _images(self) -> ImageHeads:
        """What prefills beginnings with images.

        Raises:
            ModelRefused: this engine drives a text model.
        """
        if self._heads is None:
            raise ModelRefused("A text model cannot see the images of a problem.")
        return self._heads

    def _write(
        self,
        prefilled: Prefilled,
        rows: Sequence[tuple[int, Row]],
        rule: SamplingRule,
        max_new_tokens: int,
        stops: StopStrings,
    ) -> Iterator[Written]:
        """Write rows behind their prefilled traces, as many at a time as the memory allows."""
        own = max((len(row.tail) for _, row in rows), default=1) + max_new_tokens - 1
        start = 0
        while start < len(rows):
            size = max(1, min(self._cache_tokens // 2 // own, self._most_rows, len(rows) - start))
            some = rows[start : start + size]

            def wave(some: Sequence[tuple[int, Row]] = some) -> Wave:
                made = Wave(self._model, prefilled, some, rule, max_new_tokens)
                made.run(self._end_ids, stops)
                return made

            done = _unless_full(wave, may_halve=size > 1)
            if done is None:
                self._most_rows = size // 2
                let_go(self._model.device)
                continue
            self.near_ties += int(done.near_ties.sum())
            yield from done.written(stops)
            start += size


def _unless_full(work: Callable[[], _Made], *, may_halve: bool) -> _Made | None:
    """What the work gives; None if memory ran out. Then nothing of it is held any more.

    Raises:
        RuntimeError: another fault, or memory ran out for work that cannot be halved.
    """
    try:
        return work()
    except RuntimeError as fault:
        if not may_halve or not is_out_of_memory(fault):
            raise
        return None


def _shared(trace: SharedTrace) -> tuple[int, ...]:
    """What is prefilled of a trace: as far as its farthest cut, at least one token."""
    return trace.ids[: max((row.cut for row in trace.rows), default=0)] or trace.ids[:1]


def _groups(traces: Sequence[SharedTrace], budget: int) -> Iterator[list[SharedTrace]]:
    """Cut traces into groups whose padded length stays within the budget, at least one a group."""
    group: list[SharedTrace] = []
    longest = 0
    for trace in traces:
        longest = max(longest, len(trace.ids))
        if group and longest * (len(group) + 1) > budget:
            yield group
            group, longest = [], len(trace.ids)
        group.append(trace)
    if group:
        yield group


def _cache_tokens(model: PreTrainedModel) -> int:
    """How many key-value positions fit into the memory set aside for them."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    one: int = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    if model.device.type != "cuda":
        return _CACHE_BYTES // one
    free: int = torch.cuda.mem_get_info(model.device)[0]
    return int(free * _GPU_SHARE) // one
