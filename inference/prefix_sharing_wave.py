"""A wave: rows that are written together, one token of each at a time, finished ones dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference.cache_argument import kept_in
from inference.prefix_sharing import OwnCache, SharedPrefix
from inference.prefix_sharing_choice import NoiseRows, SamplingRule, choose_tokens
from inference.prefix_sharing_kept import Prefilled
from inference.stop_strings import StopStrings

_LIVE_SHARE = 0.8
"""Finished rows are dropped from the batch when fewer than this share are still writing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One continuation to be written."""

    cut: int
    """How many of the trace's tokens it shares."""
    tail: tuple[int, ...]
    """The prefix's tokens behind the cut, at least one."""
    key: tuple[int, int]
    """Its noise key."""
    counter: tuple[int, int]
    """Step index and continuation index, for the noise."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written for one row."""

    text: str
    """The new text, up to a stop string, without it."""
    finish_reason: str
    """`stop` or `length`."""
    tokens: int
    """Tokens generated, the ending one included."""
    near_ties: int = field(default=0, compare=False)
    """Choices in which the two best lay within `NEAR_TIE`; what was written is the same without."""


class Wave:
    """Rows written together, one token of each at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        prefilled: Prefilled,
        rows: Sequence[tuple[int, Row]],
        rule: SamplingRule,
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
        # Forced tokens first (the tail of the prefix), then what is chosen, one column a step.
        self.tokens = torch.zeros(
            (len(rows), longest + max_new_tokens), dtype=torch.int64, device=device
        )
        for number, tail in enumerate(tails):
            self.tokens[number, : len(tail)] = torch.tensor(tail, device=device)
        self.ends = torch.zeros(len(rows), dtype=torch.int64, device=device)
        """Column behind the last token of each finished row; 0 while it is being written."""
        self.ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
        """Whether the row's last token ends a turn."""
        self.stopped = torch.zeros_like(self.ended)
        """Whether the row ended with a stop string."""
        self.near_ties = torch.zeros_like(self.ends)
        """Near ties of each row."""
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
        """Write until every row has ended or reached its limit."""
        step = 0
        while len(self._live):
            self._write_column(step + 1, self._forward(step), end_ids, stops)
            writing = self.ends[self._live] == 0
            if int(writing.sum()) < _LIVE_SHARE * len(self._live):
                self._keep(writing.nonzero().squeeze(1))
            step += 1

    def written(self, stops: StopStrings) -> Iterator[Written]:
        """What was written for each row, in order."""
        columns = (
            self.tokens,
            self.tail_lengths,
            self.ends,
            self.ended,
            self.stopped,
            self.near_ties,
        )
        for tokens, tail, end, ended, stopped, near in zip(
            *map(Tensor.tolist, columns), strict=True
        ):
            text, _ = stops.text(tokens[tail - 1], tokens[tail : end - ended])
            yield Written(text, "stop" if ended or stopped else "length", end - tail, near)

    def _forward(self, step: int) -> Tensor:
        """Feed column `step` of every live row; give the logits of the next one."""
        live = self._live
        logits: Tensor = self._model(
            input_ids=self.tokens[live, step].unsqueeze(1),
            position_ids=(self._starts[live] + step).unsqueeze(1),
            shared_prefix=self._shared,
            **kept_in(self._model, self._own),
        ).logits
        return logits[:, -1]

    def _write_column(
        self, column: int, logits: Tensor, end_ids: Tensor, stops: StopStrings
    ) -> None:
        """Choose the next token of every live row, or take it from its tail, and see who ends."""
        live = self._live
        tails = self.tail_lengths[live]
        numbers = column - tails
        writing = (numbers >= 0) & (self.ends[live] == 0)
        chosen, near = choose_tokens(logits, self._rule, self._noise, numbers.clamp(min=0))
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
        """Which live rows have just completed a stop string."""
        found = torch.zeros_like(candidates)
        if stops:
            for place in (candidates & stops.suspects(chosen)).nonzero().squeeze(1).tolist():
                number = int(self._live[place])
                tail = int(self.tail_lengths[number])
                tokens = self.tokens[number, : column + 1].tolist()
                found[place] = stops.text(tokens[tail - 1], tokens[tail:])[1]
        return found

    def _keep(self, rows: Tensor) -> None:
        """Drop all live rows but the given ones from the batch."""
        self._live = self._live[rows]
        if len(rows):
            self._noise = self._noise.select(rows)
            self._shared = self._shared.select(rows)
            self._own.select(rows)
