"""The slow and sure engine: each continuation by the model's own `generate`, one after the other.

For image-text models whose attention cannot be shared (`inference.vision_proof`). Tokens are chosen by
the same rule with the same noise, so a continuation is the one that sharing would give.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.prefix_sharing_choice import NoiseRows, SamplingRule, choose_tokens
from inference.prefix_sharing_engine import SharedTrace, WrittenTrace
from inference.prefix_sharing_wave import Row, Written
from inference.stop_strings import StopStrings
from inference.vision import VisionInputs, VisionReader
from inference.vision_embedding import run


class PlainEngine:
    """Writes continuations with one image-text model, sharing nothing."""

    def __init__(
        self,
        model: PreTrainedModel,
        reader: VisionReader,
        end_ids: frozenset[int],
        *,
        slow_because: str,
    ) -> None:
        """Take a model; its own generation defaults (penalties, sampling) are dropped.

        Args:
            model: with the attention that it was loaded with.
            reader: gives the pixels of heads.
            end_ids: tokens that end a continuation.
            slow_because: why nothing is shared.
        """
        model.generation_config = _settings()
        self._generate: Any = model.generate
        self._model, self._reader = model, reader
        self._end_ids = frozenset(end_ids)
        self.slow_because = slow_because
        """Why nothing is shared."""
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
    ) -> Iterator[WrittenTrace]:
        """Yield what was written for each trace's rows, trace by trace, in the order given."""
        stops = StopStrings(stop, tokenizer)
        for trace in traces:
            rows = [self._row(trace, row, rule, max_new_tokens, stops) for row in trace.rows]
            self.near_ties += sum(row.near_ties for row in rows)
            computed = sum(row.cut + len(row.tail) - 1 for row in trace.rows)
            yield WrittenTrace(tuple(rows), computed)

    def release(self, names: Iterable[Hashable]) -> None:
        """Nothing is kept."""

    @torch.inference_mode()
    def _row(
        self, trace: SharedTrace, row: Row, rule: SamplingRule, most: int, stops: StopStrings
    ) -> Written:
        ids = (*trace.ids[: row.cut], *row.tail)
        inputs = VisionInputs(ids, {})
        if trace.head is not None:
            inputs = behind_head(self._reader.inputs(trace.head), ids)
        writer = _Writer(rule, row, len(ids), self._end_ids, stops)
        run(
            self._model,
            inputs,
            self._generate,
            attention_mask=torch.ones((1, len(ids)), dtype=torch.int64, device=self._model.device),
            generation_config=_settings(max_new_tokens=most, do_sample=False, pad_token_id=0),
            logits_processor=[writer],
            stopping_criteria=[writer.is_done],
        )
        return writer.written()


def _settings(**said: Any) -> GenerationConfig:
    return GenerationConfig(**said)  # type: ignore[no-untyped-call]


def behind_head(head: VisionInputs, ids: tuple[int, ...]) -> VisionInputs:
    """What the model takes for a conversation of which the head is the beginning.

    Kinds of tokens are 0 for text; what says more of each token (to which images it attends) goes on
    as it was for the head's last one. `plain_fault` proves it for the model at hand.
    """
    beside = {}
    for name, value in head.beside.items():
        if tuple(value.shape[:2]) == (1, len(head.ids)):
            more = value[:, -1:].expand(1, len(ids) - len(head.ids), *value.shape[2:])
            value = torch.cat([value, torch.zeros_like(more) if value.ndim == 2 else more], dim=1)
        beside[name] = value
    return VisionInputs(ids, beside)


class _Writer:
    """Chooses the tokens of one continuation, in the place of `generate`'s own choice."""

    def __init__(
        self,
        rule: SamplingRule,
        row: Row,
        prompt: int,
        end_ids: frozenset[int],
        stops: StopStrings,
    ) -> None:
        self._rule, self._row, self._prompt = rule, row, prompt
        self._end_ids, self._stops = end_ids, stops
        self._tokens: list[int] = []
        self._near = 0
        self._reason = "length"

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """All tokens but the chosen one are impossible."""
        noise = NoiseRows(
            torch.tensor([self._row.key], device=scores.device),
            torch.tensor([self._row.counter], device=scores.device),
        )
        number = torch.tensor([len(self._tokens)], device=scores.device)
        chosen, near = choose_tokens(scores, self._rule, noise, number)
        self._tokens.append(int(chosen))
        self._near += int(near)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.unsqueeze(1), 0.0)

    def is_done(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether the last token ends the turn or completes a stop string."""
        if self._tokens[-1] in self._end_ids:
            self._reason = "end"
        elif self._stops and self._stops.text(self._row.tail[-1], self._tokens)[1]:
            self._reason = "stop"
        return torch.tensor([self._reason != "length"], device=input_ids.device)

    def written(self) -> Written:
        """What was written."""
        ids = self._tokens[: len(self._tokens) - (self._reason == "end")]
        text, _ = self._stops.text(self._row.tail[-1], ids)
        reason = "length" if self._reason == "length" else "stop"
        return Written(text, reason, len(self._tokens), self._near)
