"""Continues many prefixes of many traces at once from one prefill per trace.

Before an engine is used, its logits are compared with the plain model's, for the model at hand.

Beginnings with images are prefilled once per problem by the model's own forward pass, so whatever
an architecture does with images there (merged features, tokens of an image that see each other,
features added to deeper layers, positions in rows and columns) is its own code. The text after them
sees all of it, one position after the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.local.checkpoints import cache_keywords, free_cached_memory, is_out_of_memory
from inference.local.shared_attention import (
    ATTENTION,
    Beginning,
    Ids,
    OwnCache,
    PrefilledGroup,
    PrefilledPrefix,
    PrefixCache,
    PrefixLayer,
    SharedPrefix,
)
from inference.local.token_choice import (
    NoiseRows,
    SamplingRule,
    StopStrings,
    best_candidates,
    choose_tokens,
)
from inference.local.vision import (
    ImageHead,
    VisionReader,
    inner_text_model,
    positions_of,
    run_model,
    watched,
)
from traces import ModelRefused

FAULTS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""Exceptions of models that cannot be run this way."""
_IDS = 12
_CUTS = (8, 5)
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits, as a share of the largest; 0.05 for half precision."""


def assert_sharing_works(model: PreTrainedModel) -> None:
    """Compare a few shared steps with the plain forward pass.

    Args:
        model: a model whose text model has the attention `ATTENTION`.

    Raises:
        ModelRefused: the logits differ, or the model cannot be run this way.
    """
    ids = _spread(model)
    try:
        wanted, got = _plain(model, ids), shared_logits(model, ids, _CUTS)
    except FAULTS as fault:
        raise refusal(f"{type(fault).__name__}: {fault}") from fault
    found = difference(wanted, got, model.dtype)
    if found is not None:
        raise refusal(found)


def difference(wanted: Tensor, got: Tensor, dtype: torch.dtype) -> str | None:
    """How much logits differ, as text; None if that is within the rounding of the data type."""
    size = float(wanted.abs().max())
    apart = float((wanted - got).abs().max())
    if apart <= _TOLERANCE.get(dtype, 0.05) * max(size, 1.0):
        return None
    return f"logits differ by {apart:.2g}"


@torch.inference_mode()
def shared_logits(
    model: PreTrainedModel, ids: Ids, cuts: Sequence[int], beginning: Beginning | None = None
) -> Tensor:
    """Logits of rows that share a prefix, which is prefilled in parts.

    Args:
        model: a model whose text model has the attention `ATTENTION`.
        ids: the token ids of one trace.
        cuts: where each row continues; each is fed as many tokens as follow the longest cut.
        beginning: the beginning of the trace if it has images; cuts come after it.

    Returns:
        float32 `[rows, tokens fed, vocabulary]`.
    """
    kept = PrefixCache(max(cuts))
    for cut in sorted(cuts):
        made = kept.prefill(model, [("", ids[:cut])], [beginning])
    places = torch.tensor(cuts, device=model.device)
    shared = SharedPrefix(made.layers, torch.zeros_like(places), places)
    fed = torch.tensor(ids, device=model.device)
    steps = len(ids) - max(cuts)
    own, logits = OwnCache(len(made.layers), steps), []
    for step in range(steps):
        here = (places + step).unsqueeze(1)
        output = model(
            input_ids=fed[here],
            position_ids=here + made.shifts[0],
            shared_prefix=shared,
            **cache_keywords(model, own),
        )
        logits.append(output.logits[:, -1])
    return torch.stack(logits, dim=1).float()


def refusal(reason: str) -> ModelRefused:
    """The error of a model that the local engine cannot run."""
    return ModelRefused(
        f"The local engine does not support this model's attention ({reason[:200]}).",
        remedy="serve it with an OpenAI-compatible server and use openai:MODEL",
    )


def _spread(model: PreTrainedModel) -> Ids:
    """Fixed token ids spread over the vocabulary, so that the proof is deterministic."""
    size = int(model.config.get_text_config().vocab_size)
    return tuple(i * 7919 % size for i in range(1, _IDS + 1))


@torch.inference_mode()
def _plain(model: PreTrainedModel, ids: Ids) -> Tensor:
    """Logits `[rows, steps, vocabulary]` of the tokens that the rows feed, by eager attention."""
    alone = model.config.get_text_config() is model.config
    inner = model if alone else inner_text_model(model)
    inner.set_attn_implementation("eager")
    try:
        fed = torch.tensor([ids], device=model.device)
        logits = model(input_ids=fed, use_cache=False).logits[0]
    finally:
        inner.set_attn_implementation(ATTENTION)
    steps = _IDS - max(_CUTS)
    return torch.stack([logits[cut : cut + steps] for cut in _CUTS]).float()


class ImageHeads:
    """Prefilled heads of one image-text model; those used last are cached within the budget."""

    def __init__(self, model: PreTrainedModel, reader: VisionReader) -> None:
        """Switch the inner text model to the shared-prefix attention; heads use its own.

        Raises:
            ModelRefused: it has no separate text model.
        """
        self._model, self._reader, self._inner = model, reader, inner_text_model(model)
        self._own: str = self._inner.config._attn_implementation or "eager"
        self._inner.set_attn_implementation(ATTENTION)
        self._kept: OrderedDict[ImageHead, PrefilledPrefix] = OrderedDict()
        self.budget = 0
        """Maximum key-value positions cached; the head used last always stays."""

    def close(self) -> None:
        """Clear the cache, and restore the model's own attention."""
        self._kept.clear()
        self._inner.set_attn_implementation(self._own)

    def of(self, head: ImageHead) -> tuple[PrefilledPrefix, int]:
        """A head's keys and values, and the number of tokens computed for it: all or none."""
        computed = 0
        if head not in self._kept:
            self._kept[head] = self._prefill(head)
            computed = len(head.ids)
        self._kept.move_to_end(head)
        while len(self._kept) > 1 and sum(map(_tokens, self._kept)) > self.budget:
            self._kept.popitem(last=False)
        return self._kept[head], computed

    @contextmanager
    def native(self) -> Iterator[None]:
        """Restore the text model's own attention within the block."""
        self._inner.set_attn_implementation(self._own)
        try:
            yield
        finally:
            self._inner.set_attn_implementation(ATTENTION)

    @torch.inference_mode()
    def _prefill(self, head: ImageHead) -> PrefilledPrefix:
        cache = DynamicCache()
        with self.native(), watched(self._inner) as given:
            inputs = self._reader.inputs(head)
            run_model(self._model, inputs, **cache_keywords(self._model.base_model, cache))
        positions = positions_of(given, len(head.ids), self._model.device)
        layers: list[Any] = cache.layers
        whole = tuple(PrefixLayer(one.keys.contiguous(), one.values.contiguous()) for one in layers)
        return PrefilledPrefix(head.ids, whole, int(positions.max()) + 1 - len(head.ids))


def _tokens(head: ImageHead) -> int:
    return len(head.ids)


_LIVE_SHARE = 0.8
"""Finished rows are dropped from the batch once fewer than this share are unfinished."""


@dataclass(frozen=True, slots=True)
class PrefixRow:
    """One continuation to compute."""

    cut: int
    """Number of the trace's tokens that it shares."""
    tail: tuple[int, ...]
    """The prefix's tokens after the cut, at least one."""
    key: tuple[int, int]
    """Its noise key."""
    counter: tuple[int, int]
    """Step index and continuation index, for the noise."""


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """The result of one row."""

    text: str
    """The new text, up to but excluding a stop string."""
    finish_reason: str
    """`stop` or `length`."""
    tokens: int
    """Tokens generated, including the one that ends the turn."""
    near_ties: int = field(default=0, compare=False)
    """Nearly tied token choices; equal texts count as equal whatever it is."""
    listed: tuple[tuple[int, float], ...] = ()
    """Ids and log-probabilities of the first token's best candidates, if the rule lists any."""


class RowBatch:
    """Rows computed together, one token of each at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        prefilled: PrefilledGroup,
        rows: Sequence[tuple[int, PrefixRow]],
        rule: SamplingRule,
        *,
        max_new_tokens: int,
    ) -> None:
        device = model.device
        self._model, self._rule, self._max_new = model, rule, max_new_tokens
        tails = [row.tail for _, row in rows]
        longest = max(map(len, tails))
        self.tail_lengths = torch.tensor([len(tail) for tail in tails], device=device)
        self.cuts = torch.tensor([row.cut for _, row in rows], device=device)
        self._starts = self.cuts + torch.tensor(
            [prefilled.shifts[trace] for trace, _ in rows], device=device
        )
        """The position of each row's first own token."""
        # Forced tokens first (the tail of the prefix), then chosen ones, one column per step.
        self.tokens = torch.zeros(
            (len(rows), longest + max_new_tokens), dtype=torch.int64, device=device
        )
        for number, tail in enumerate(tails):
            self.tokens[number, : len(tail)] = torch.tensor(tail, device=device)
        self.ends = torch.zeros(len(rows), dtype=torch.int64, device=device)
        """Column after the last token of each finished row; 0 while it is unfinished."""
        self.ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
        """Whether the row's last token ends a turn."""
        self.stopped = torch.zeros_like(self.ended)
        """Whether the row ended with a stop string."""
        self.near_ties = torch.zeros_like(self.ends)
        self._listed: dict[int, tuple[tuple[int, float], ...]] = {}
        self._noise = NoiseRows(
            torch.tensor([row.key for _, row in rows], device=device),
            torch.tensor([row.counter for _, row in rows], device=device),
        )
        self._live = torch.arange(len(rows), device=device)
        trace_of = torch.tensor([trace for trace, _ in rows], device=device)
        self._shared = SharedPrefix(prefilled.layers, trace_of, self.cuts).select(self._live)
        self._own = OwnCache(len(prefilled.layers), longest + max_new_tokens - 1)

    @torch.inference_mode()
    def run(self, end_ids: Tensor, stops: StopStrings) -> None:
        """Compute until every row has ended or reached its limit."""
        step = 0
        while len(self._live):
            self._write_column(step + 1, self._forward(step), end_ids, stops)
            writing = self.ends[self._live] == 0
            if int(writing.sum()) < _LIVE_SHARE * len(self._live):
                self._keep(writing.nonzero().squeeze(1))
            step += 1

    def written(self, stops: StopStrings) -> Iterator[WrittenRow]:
        """The result of each row, in order."""
        columns = (
            self.tokens,
            self.tail_lengths,
            self.ends,
            self.ended,
            self.stopped,
            self.near_ties,
        )
        rows = zip(*map(Tensor.tolist, columns), strict=True)
        for number, (tokens, tail, end, ended, stopped, near) in enumerate(rows):
            text, _ = stops.text(tokens[tail - 1], tokens[tail : end - ended])
            reason = "stop" if ended or stopped else "length"
            listed = self._listed.get(number, ())
            yield WrittenRow(text, reason, end - tail, near, listed=listed)

    def _forward(self, step: int) -> Tensor:
        """Feed column `step` of every live row; return the logits of the next column."""
        live = self._live
        logits: Tensor = self._model(
            input_ids=self.tokens[live, step].unsqueeze(1),
            position_ids=(self._starts[live] + step).unsqueeze(1),
            shared_prefix=self._shared,
            **cache_keywords(self._model, self._own),
        ).logits
        return logits[:, -1]

    def _write_column(
        self, column: int, logits: Tensor, end_ids: Tensor, stops: StopStrings
    ) -> None:
        """Choose each live row's next token, or take it from its tail; note which rows end."""
        live = self._live
        tails = self.tail_lengths[live]
        numbers = column - tails
        writing = (numbers >= 0) & (self.ends[live] == 0)
        chosen, near = choose_tokens(logits, self._rule, self._noise, numbers.clamp(min=0))
        if self._rule.listed:
            for place in (writing & (numbers == 0)).nonzero().squeeze(1).tolist():
                self._listed[int(live[place])] = best_candidates(logits[place], self._rule.listed)
        self.near_ties[live] += near & writing
        self.tokens[live, column] = torch.where(writing, chosen, self.tokens[live, column])
        ended = writing & torch.isin(chosen, end_ids)
        stopped = writing & self._at_stop(column, chosen, writing & ~ended, stops)
        full = writing & (numbers + 1 == self._max_new)
        self.ended[live] |= ended
        self.stopped[live] |= stopped
        self.ends[live] += (ended | stopped | full) * (column + 1)

    def _at_stop(
        self, column: int, chosen: Tensor, candidates: Tensor, stops: StopStrings
    ) -> Tensor:
        """Which live rows just completed a stop string."""
        found = torch.zeros_like(candidates)
        if stops:
            for place in (candidates & stops.suspects(chosen)).nonzero().squeeze(1).tolist():
                number = int(self._live[place])
                tail = int(self.tail_lengths[number])
                tokens = self.tokens[number, : column + 1].tolist()
                found[place] = stops.text(tokens[tail - 1], tokens[tail:])[1]
        return found

    def _keep(self, rows: Tensor) -> None:
        """Drop all but the given live rows from the batch."""
        self._live = self._live[rows]
        if len(rows):
            self._noise = self._noise.select(rows)
            self._shared = self._shared.select(rows)
            self._own.select(rows)


_Made = TypeVar("_Made")
_CACHE_BYTES = 1 << 30
"""Key-value bytes cached at once on a CPU."""
_GPU_SHARE = 0.4
"""Share of a GPU's free memory used for key-value caches."""
_LOGITS_NUMBERS = 1 << 26
"""Maximum number of logits (rows times vocabulary) computed at once."""


@dataclass(frozen=True, slots=True)
class SharedTrace:
    """A trace's tokens and what continues from them."""

    ids: tuple[int, ...]
    """All of the trace's tokens."""
    rows: tuple[PrefixRow, ...]
    """The continuations to compute."""
    name: Hashable | None = None
    """Name under which its prefilled tokens are cached until released; None caches nothing."""
    head: ImageHead | None = None
    """Its beginning with images, before every cut; None without images."""


@dataclass(frozen=True, slots=True)
class WrittenTrace:
    """The results of one trace, and their cost."""

    rows: tuple[WrittenRow, ...]
    """One per row, in order."""
    prefilled_tokens: int
    """Positions computed before any token was chosen: the trace's tokens that were not cached, and
    all but the last token of each row's tail. Together with the generated tokens these are all
    positions that went through the model."""


class PrefixEngine:
    """Computes continuations with one model from shared prefixes."""

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
            cache_tokens: key-value positions in memory at once: half for the rows' own tokens, half
                for prefixes, of which up to half are cached between calls (up to a quarter are
                heads). None uses about 1 GiB (CPU) or 40% of the free memory (GPU).
            batch_rows: maximum continuations per batch; None for what fits in memory.

        Raises:
            ModelRefused: sharing does not work with the model's attention.
        """
        assert_sharing_works(model)
        self._model, self._heads = model, heads
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.int64, device=model.device)
        self._cache_tokens = cache_tokens or _cache_tokens(model)
        self._kept = PrefixCache(self._cache_tokens // 4)
        if heads is not None:
            heads.budget = self._cache_tokens // 8
        most = max(1, _LOGITS_NUMBERS // int(model.config.get_text_config().vocab_size))
        self._most_rows = min(most, batch_rows or most)
        self.near_ties = 0
        """Nearly tied token choices so far."""
        self.slow_because: str | None = None
        """None, because prefixes are shared."""

    def continue_all(
        self,
        traces: Sequence[SharedTrace],
        rule: SamplingRule,
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[WrittenTrace]:
        """Yield the continuations of each trace's rows, trace by trace, in the order given.

        Put traces of similar length next to each other, because they share a batch. If memory runs
        out, the batch is halved and computed again, with the same results.

        Raises:
            RuntimeError: not even one row of one trace fits in memory.
        """
        stops = StopStrings(stop, tokenizer)
        named = any(trace.name is not None for trace in traces)
        budget = self._cache_tokens // 2 - (self._kept.budget if named else 0)
        budget -= 0 if self._heads is None else self._heads.budget
        for group in _groups(traces, budget):
            yield from self._continue_group(group, rule, max_new_tokens, stops)

    def release(self, names: Iterable[Hashable]) -> None:
        """Free what is cached under these names."""
        self._kept.release(names)

    def _continue_group(
        self, group: Sequence[SharedTrace], rule: SamplingRule, max_new: int, stops: StopStrings
    ) -> Iterator[WrittenTrace]:
        """Prefill the group and compute its rows; half of the group first if it does not fit."""
        prefilled = _unless_full(lambda: self._prefill(group), may_halve=len(group) > 1)
        if prefilled is None:
            free_cached_memory(self._model.device)
            middle = len(group) // 2
            for half in (group[:middle], group[middle:]):
                yield from self._continue_group(half, rule, max_new, stops)
            return
        rows = [(number, row) for number, trace in enumerate(group) for row in trace.rows]
        written = self._write(prefilled, rows, rule, max_new_tokens=max_new, stops=stops)
        for trace, new in zip(group, prefilled.computed, strict=True):
            tails = sum(len(row.tail) - 1 for row in trace.rows)
            yield WrittenTrace(tuple(next(written) for _ in trace.rows), new + tails)

    def _prefill(self, group: Sequence[SharedTrace]) -> PrefilledGroup:
        of_heads = [0] * len(group)

        def beginning(row: int, head: ImageHead | None) -> Beginning | None:
            if head is None:
                return None

            def prefilled() -> PrefilledPrefix:
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
        """Prefills beginnings with images.

        Raises:
            ModelRefused: this engine runs a text model.
        """
        if self._heads is None:
            raise ModelRefused("A text model cannot see the images of a problem.")
        return self._heads

    def _write(
        self,
        prefilled: PrefilledGroup,
        rows: Sequence[tuple[int, PrefixRow]],
        rule: SamplingRule,
        *,
        max_new_tokens: int,
        stops: StopStrings,
    ) -> Iterator[WrittenRow]:
        """Compute rows after their prefilled traces, as many at a time as memory allows."""
        own = max((len(row.tail) for _, row in rows), default=1) + max_new_tokens - 1
        start = 0
        while start < len(rows):
            size = max(1, min(self._cache_tokens // 2 // own, self._most_rows, len(rows) - start))
            some = rows[start : start + size]

            def compute(some: Sequence[tuple[int, PrefixRow]] = some) -> RowBatch:
                made = RowBatch(self._model, prefilled, some, rule, max_new_tokens=max_new_tokens)
                made.run(self._end_ids, stops)
                return made

            done = _unless_full(compute, may_halve=size > 1)
            if done is None:
                self._most_rows = size // 2
                free_cached_memory(self._model.device)
                continue
            self.near_ties += int(done.near_ties.sum())
            yield from done.written(stops)
            start += size


def _unless_full(work: Callable[[], _Made], *, may_halve: bool) -> _Made | None:
    """The result of the work; None if memory ran out, after freeing what it held.

    Raises:
        RuntimeError: another fault, or memory ran out and the work cannot be halved.
    """
    try:
        return work()
    except RuntimeError as fault:
        if not may_halve or not is_out_of_memory(fault):
            raise
        return None


def _shared(trace: SharedTrace) -> tuple[int, ...]:
    """The part of a trace to prefill: up to its longest cut, at least one token."""
    return trace.ids[: max((row.cut for row in trace.rows), default=0)] or trace.ids[:1]


def _groups(traces: Sequence[SharedTrace], budget: int) -> Iterator[list[SharedTrace]]:
    """Groups of at least one trace whose padded length stays within the budget."""
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
    """Number of key-value positions that fit in the memory reserved for them."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    one: int = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    if model.device.type != "cuda":
        return _CACHE_BYTES // one
    free: int = torch.cuda.mem_get_info(model.device)[0]
    return int(free * _GPU_SHARE) // one
