"""Continue many prefixes of many traces at once: prefill each trace once, fork its cache, sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.prefix_sharing import prefill
from inference.prefix_sharing_check import assert_sharing_works
from inference.prefix_sharing_choice import SamplingRule
from inference.prefix_sharing_wave import Row, Wave, Written
from inference.stop_strings import StopStrings

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


class PrefixEngine:
    """Writes continuations with one model."""

    def __init__(
        self, model: PreTrainedModel, end_ids: frozenset[int], *, cache_tokens: int | None = None
    ) -> None:
        """Take a model and prove that sharing works with it.

        Args:
            model: loaded with the shared-prefix attention.
            end_ids: tokens that end a continuation.
            cache_tokens: key-value positions kept at once, prefixes and own tokens together; None
                takes what about 1 GiB (a processor) or 40% of the free memory (a GPU) holds.

        Raises:
            ModelRefused: the model's attention is of a kind that sharing does not cover.
        """
        assert_sharing_works(model)
        self._model = model
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.int64, device=model.device)
        self._cache_tokens = cache_tokens or _cache_tokens(model)
        self.near_ties = 0
        """Choices so far in which the two best lay within `NEAR_TIE`."""

    def continue_all(
        self,
        traces: Sequence[SharedTrace],
        rule: SamplingRule,
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[list[Written]]:
        """Yield what was written for each trace's rows, trace by trace, in the order given.

        Traces of like length should stand together: they share a batch.
        """
        stops = StopStrings(stop, tokenizer)
        for group in _groups(traces, self._cache_tokens // 2):
            rows = [(number, row) for number, trace in enumerate(group) for row in trace.rows]
            written = self._continue_group(group, rows, rule, max_new_tokens, stops)
            for trace in group:
                yield [next(written) for _ in trace.rows]

    def _continue_group(
        self,
        group: Sequence[SharedTrace],
        rows: Sequence[tuple[int, Row]],
        rule: SamplingRule,
        max_new_tokens: int,
        stops: StopStrings,
    ) -> Iterator[Written]:
        """Prefill the group once and write its rows, as many at a time as the budget allows."""
        shared = [
            trace.ids[: max((row.cut for row in trace.rows), default=0)] or trace.ids[:1]
            for trace in group
        ]
        layers = prefill(self._model, shared)
        own = max((len(row.tail) for _, row in rows), default=1) + max_new_tokens - 1
        size = max(1, min(self._cache_tokens // 2 // own, _LOGITS_NUMBERS // self._vocabulary()))
        for start in range(0, len(rows), size):
            wave = Wave(self._model, layers, rows[start : start + size], rule, max_new_tokens)
            wave.run(self._end_ids, stops)
            self.near_ties += wave.near_ties
            yield from wave.written(stops)

    def _vocabulary(self) -> int:
        return int(self._model.config.vocab_size)


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
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    one: int = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    if model.device.type != "cuda":
        return _CACHE_BYTES // one
    free: int = torch.cuda.mem_get_info(model.device)[0]
    return int(free * _GPU_SHARE) // one
