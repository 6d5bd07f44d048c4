"""Packs requests into jobs under the caps of the service, and says what they may cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

from inference.budget import Purse, input_bound
from inference.keys import request_text
from inference.prices import cost
from inference.protocol import GenerationRequest, TextModel
from inference.specs import ModelSpec
from traces.batches import BatchRow
from traces.errors import BudgetExhausted, InputError
from traces.records import ModelReply, Usage


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that waits for its job."""

    request: GenerationRequest
    """The request."""
    row: BatchRow
    """Its row in the store."""
    size: int
    """Bytes of its line in the file."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the next job may hold."""

    tokens: int
    """Input tokens."""
    size: int
    """Bytes of the file."""
    requests: int
    """Requests."""
    usd: float
    """US dollars at most; infinite without a budget."""


def next_wave(pending: Iterable[PendingRequest], room: Room) -> list[PendingRequest]:
    """The first of `pending` that fit into one job, in their order; the first that does not ends it.

    Filling up with later, smaller ones would let a large request wait for ever.
    """
    wave: list[PendingRequest] = []
    tokens, size, usd = room.tokens, room.size, room.usd
    for each in pending:
        tokens -= each.row.tokens
        size -= each.size
        usd -= each.row.usd or 0.0
        if min(tokens, size, usd) < 0 or len(wave) == room.requests:
            break
        wave.append(each)
    return wave


class BatchBudget:
    """What a run of batch jobs may spend, and what a request costs at most."""

    def __init__(
        self,
        limit_usd: float | Purse | None,
        model: TextModel,
        *,
        today: Callable[[], date] = date.today,
    ) -> None:
        """Nothing is spent yet.

        Args:
            limit_usd: most US dollars, or a purse that is shared; None for no limit.
            model: who answers.
            today: the day whose prices hold.

        Raises:
            InputError: a limit for a model without a known price: it could not be kept.
        """
        self._purse = limit_usd if isinstance(limit_usd, Purse) else Purse(limit_usd)
        self._name = ModelSpec.parse(model.spec).name
        self._today = today
        self.input_factor = 1.0
        """How many tokens the service has counted for one of our estimate, at most; at least 1."""
        if self._purse.limit_usd is not None and self._most(Usage()) is None:
            raise InputError(
                f'No price is known for "{model.spec}": a budget cannot be kept.',
                remedy="leave --budget out, or take a model of the price table",
            )

    def row(self, key: str, request: GenerationRequest) -> BatchRow:
        """The row of a request: its tokens from above, its whole output limit used."""
        tokens = input_bound(request)
        counted = math.ceil(tokens * self.input_factor)
        usd = self._most(Usage(input_tokens=counted, output_tokens=request.max_tokens))
        return BatchRow(key, request_text(request), tokens, usd, request.meta)

    def settle(self, row: BatchRow, reply: ModelReply) -> None:
        """Count a reply that was bought, and take from it how the service counts the input."""
        self._purse.spent_usd += (row.usd or 0.0) if reply.usd is None else reply.usd
        counted = reply.usage.input_tokens / max(1, row.tokens)
        self.input_factor = max(self.input_factor, counted)

    def left(self, committed_usd: float) -> float:
        """What is left beside the requests on their way; infinite without a limit."""
        purse = self._purse
        purse.held_usd[id(self)] = committed_usd
        if purse.limit_usd is None:
            return math.inf
        return purse.limit_usd - purse.spent_usd - sum(purse.held_usd.values())

    def exhausted(self) -> BudgetExhausted:
        """The error that ends the run."""
        return BudgetExhausted(
            f"The next batch job could pass the budget of {self._purse.limit_usd:g} USD "
            f"({self._purse.spent_usd:.4f} USD spent).",
            remedy="run the same command again with a larger --budget: what is done is kept",
        )

    def _most(self, usage: Usage) -> float | None:
        return cost(usage, self._name, "batch", on=self._today())
