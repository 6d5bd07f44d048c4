"""Packs requests into jobs under the caps of the service, and says what they may cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

from inference.budget import input_bound
from inference.keys import request_text
from inference.prices import cost, price_of
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
        limit_usd: float | None,
        model: TextModel,
        *,
        today: Callable[[], date] = date.today,
    ) -> None:
        """Nothing is spent yet.

        Args:
            limit_usd: most US dollars; None for no limit.
            model: who answers.
            today: the day whose prices hold.

        Raises:
            InputError: a limit for a model without a known price: it could not be kept.
        """
        self._limit = limit_usd
        self._name = ModelSpec.parse(model.spec).name
        self._today = today
        self.spent = 0.0
        """US dollars so far; a reply of unknown price counts at its most."""
        if limit_usd is not None and price_of(self._name, "batch", on=today()) is None:
            raise InputError(
                f'No price is known for "{model.spec}": a budget cannot be kept.',
                remedy="leave --budget out, or take a model of the price table",
            )

    def row(self, key: str, request: GenerationRequest) -> BatchRow:
        """The row of a request: its tokens from above, its whole output limit used."""
        tokens = input_bound(request)
        usage = Usage(input_tokens=tokens, output_tokens=request.max_tokens)
        usd = cost(usage, self._name, "batch", on=self._today())
        return BatchRow(key, request_text(request), tokens, usd, request.meta)

    def settle(self, row: BatchRow, reply: ModelReply) -> None:
        """Count a reply that was bought."""
        self.spent += (row.usd or 0.0) if reply.usd is None else reply.usd

    def left(self, committed_usd: float) -> float:
        """What is left beside the requests on their way; infinite without a limit."""
        return math.inf if self._limit is None else self._limit - self.spent - committed_usd

    def exhausted(self) -> BudgetExhausted:
        """The error that ends the run."""
        return BudgetExhausted(
            f"The next batch job could pass the budget of {self._limit:g} USD "
            f"({self.spent:.4f} USD spent).",
            remedy="run the same command again with a larger --budget: what is done is kept",
        )
