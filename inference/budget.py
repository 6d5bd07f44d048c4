"""A budget that is never exceeded and still nearly used up.

The most that a call can cost is its input plus its whole output limit. That limit is wide (a judge
may think), so reserving it for every call would leave a fifth of a small budget unused, or run one
call at a time. Once replies show how long they really are, a call that does not fit at its full
limit is sent with a lower limit that should be long enough. A model does not know its limit, so a
reply that ends by itself is the one that the full limit would have brought. A reply that our limit
cut does not answer the request: it is paid for, stored under its own key, and the request is sent
again with a wider limit while there is money.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from inference.images import image_tokens
from inference.prices import Price, Service, price_of
from inference.protocol import GenerationRequest, ResponseStore, TextModel, key_for
from inference.specs import ModelSpec
from traces import BudgetExhausted, InputError, ModelError, ModelRefused, ModelReply, Usage

ROOM, TIGHT_ROOM = 2.0, 1.25
"""Factors by which the next reply may exceed the longest one so far: preferred, and minimum."""
LEAST_CAP = 1024
"""Minimum for a lowered limit, if there is money for it: one short reply says little, and before
the first reply nothing is known."""


@dataclass(slots=True)
class Purse:
    """A spending limit and what was spent; may be shared (by a judge and a second judge)."""

    limit_usd: float | None = None
    """Maximum US dollars; None for no limit."""
    spent_usd: float = 0.0
    """US dollars so far; a reply of unknown price counts at its upper bound."""
    held_usd: dict[int, float] = field(default_factory=dict)
    """US dollars reserved for calls in flight, by spender."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The part of the budget reserved for one call."""

    input_tokens: int
    """Estimate of its input, before correction by the counts in replies."""
    output_tokens: int
    """Its output limit, including thinking."""
    capped: bool = False
    """Whether that limit is lower than the request's own."""


class Budget:
    """Reserves, settles and limits the cost of calls. Used by one thread."""

    def __init__(
        self,
        limit_usd: float | Purse | None,
        model: TextModel,
        service: Service = "standard",
        *,
        today: Callable[[], date] = date.today,
    ) -> None:
        """Nothing is spent yet.

        Args:
            limit_usd: maximum US dollars, or a shared purse; None for no limit.
            model: the model that answers; one that is not hosted costs nothing.
            service: the service tier whose prices apply.
            today: the day whose prices apply.

        Raises:
            InputError: a limit for a hosted model without a known price.
        """
        self._purse = limit_usd if isinstance(limit_usd, Purse) else Purse(limit_usd)
        self._service = service
        self._today = today
        self._name = ModelSpec.parse(model.spec).name if model.hosted else None
        self._longest_output = 0
        self._input_factor = 1.0
        self._has_seen = False
        if self._purse.limit_usd is not None and self._name is not None and self._price() is None:
            raise InputError(
                f'No price is known for "{model.spec}", so a budget cannot be enforced.',
                remedy="leave --budget out, or use a model with a known price",
            )

    def reserve(
        self, request: GenerationRequest, in_flight: Iterable[Reservation]
    ) -> Reservation | None:
        """Reserve the request's cost beside that of the calls in flight; None if it has to wait.

        Until a first reply shows how the service counts, only one call is in flight.
        """
        price, purse = self._price(), self._purse
        if purse.limit_usd is None or price is None:
            return Reservation(0, request.max_tokens)  # nothing to enforce
        full = Reservation(input_bound(request), request.max_tokens)
        held = list(in_flight)
        if held and not self._has_seen:
            return None
        purse.held_usd[id(self)] = sum(self._most(each, price) for each in held)
        left = purse.limit_usd - purse.spent_usd - sum(purse.held_usd.values())
        chosen: Reservation | None = full
        if self._most(full, price) > left:
            chosen = self._capped(full, left, price)
        if chosen is not None:
            purse.held_usd[id(self)] += self._most(chosen, price)
        return chosen

    def settle(self, reservation: Reservation, reply: ModelReply) -> None:
        """Count a reply that was paid for."""
        price = self._price()
        if reply.usd is not None:
            self._purse.spent_usd += reply.usd
        elif price is not None:  # another model answered: count the upper bound
            self._purse.spent_usd += self._most(reservation, price)
        self.release(reservation)
        self._learn(reservation.input_tokens, reply)

    def seen(self, request: GenerationRequest, reply: ModelReply) -> None:
        """Learn from a stored reply."""
        if self._purse.limit_usd is not None:
            self._learn(input_bound(request), reply)

    def release(self, reservation: Reservation) -> None:
        """Release the reservation of a call that is no longer in flight."""
        price, held = self._price(), self._purse.held_usd
        if price is not None and id(self) in held:
            held[id(self)] = max(0.0, held[id(self)] - self._most(reservation, price))

    def _learn(self, input_tokens: int, reply: ModelReply) -> None:
        """Learn from a reply how long replies are and how the service counts input."""
        usage = reply.usage
        self._has_seen = True
        self._longest_output = max(
            self._longest_output, usage.output_tokens + usage.thinking_tokens
        )
        self._input_factor = max(self._input_factor, usage.input_tokens / max(1, input_tokens))

    def exhausted(self) -> BudgetExhausted:
        """The error that ends the run."""
        return BudgetExhausted(
            f"The next call could exceed the budget of {self._purse.limit_usd:g} USD "
            f"({self._purse.spent_usd:.4f} USD spent).",
            remedy="run the same command again with a larger --budget; what is done is kept",
        )

    def _capped(self, full: Reservation, left: float, price: Price) -> Reservation | None:
        """The widest output limit that is useful and affordable; None if it is too small."""
        input_usd = self._input_usd(full.input_tokens, price)
        payable = math.floor((left - input_usd) * 1e6 / price.output)
        wanted = max(LEAST_CAP, math.ceil(ROOM * self._longest_output))
        least = math.ceil(TIGHT_ROOM * self._longest_output) if self._has_seen else LEAST_CAP
        limit = min(full.output_tokens, wanted, payable)
        if limit < max(1, min(least, full.output_tokens)):
            return None
        return Reservation(full.input_tokens, limit, capped=limit < full.output_tokens)

    def _most(self, reservation: Reservation, price: Price) -> float:
        output_usd = reservation.output_tokens * price.output / 1e6
        return self._input_usd(reservation.input_tokens, price) + output_usd

    def _input_usd(self, input_tokens: int, price: Price) -> float:
        return math.ceil(input_tokens * self._input_factor) * price.input / 1e6

    def _price(self) -> Price | None:
        if self._name is None:
            return None
        return price_of(self._name, self._service, on=self._today())


_DIGITS = re.compile(rb"[0-9]")


def input_bound(request: GenerationRequest) -> int:
    """Upper estimate of the input tokens, including schema and images.

    In Gemini's vocabulary a digit is one token. In other text a token covers at least three UTF-8
    bytes in prose, and a CJK character has three bytes.
    """
    texts = [message.text for message in request.messages]
    if request.response_json_schema is not None:
        texts.append(json.dumps(request.response_json_schema))
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    digits = sum(len(_DIGITS.findall(text)) for text in encoded)
    others = sum(map(len, encoded)) - digits
    shown = sum(
        image_tokens(image.width, image.height)
        for message in request.messages
        for image in message.images
    )
    return digits + math.ceil(others / 3) + 8 * len(request.messages) + shown


@dataclass(slots=True)
class DryCounts:
    """Totals of a dry run."""

    calls: int = 0
    """Requests that would be sent."""
    input_tokens: int = 0
    """Their input tokens, as counted offline."""
    output_limit: int = 0
    """The sum of their output limits, in tokens."""
    stored: int = 0
    """Requests whose reply is stored, or that equal one already counted."""
    stored_usage: Usage = field(default_factory=Usage)
    """Tokens of the stored replies, as billed."""
    stored_estimate: int = 0
    """Input tokens of the stored replies by the offline count, which shows its error."""


class UnaskedModel:
    """A placeholder for a model in a dry run: it has a name and never answers."""

    concurrency = 1

    def __init__(self, spec: str, *, hosted: bool) -> None:
        """Name the model that would be asked; `hosted`: whether texts would leave this machine."""
        self.spec = spec
        self.hosted = hosted
        self.options: Mapping[str, Any] = {}
        """Fields that the user adds to every request."""

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Refuse: a dry run sends nothing."""
        raise ModelRefused(f'"{self.spec}" is not asked in a dry run.')

    async def aclose(self) -> None:
        """Nothing is open."""


class DryRun:
    """Replaces a `Dispatcher`: same requests, placeholder replies, nothing sent or written."""

    def __init__(
        self,
        model: UnaskedModel,
        responses: ResponseStore,
        *,
        count_tokens: Callable[[str], int],
        answer: Callable[[GenerationRequest], str],
    ) -> None:
        """Nothing is counted yet.

        Args:
            model: the model that would be asked.
            responses: where replies are looked up; nothing is written.
            count_tokens: counts a text's tokens offline.
            answer: a plausible reply, so that stages that depend on replies can go on.
        """
        self._model = model
        self._responses = responses
        self._count_tokens = count_tokens
        self._answer = answer
        self._seen: set[str] = set()
        self.counts = DryCounts()
        """Totals over all runs."""

    @property
    def model(self) -> UnaskedModel:
        """The model that would be asked."""
        return self._model

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, ModelReply | ModelError]]:
        """Yield each request with its stored reply, or with a placeholder."""
        for request in requests:
            key = key_for(self._model, request)
            stored = self._responses.get(key)
            tokens = self._tokens(request)
            if stored is not None:
                self._note_stored(stored, tokens)
                yield request, stored
                continue
            if key in self._seen:
                self.counts.stored += 1
            else:
                self._seen.add(key)
                self.counts.calls += 1
                self.counts.input_tokens += tokens
                self.counts.output_limit += request.max_tokens
            yield request, ModelReply(self._answer(request), "stop", self._model.spec, None)

    def _note_stored(self, reply: ModelReply, tokens: int) -> None:
        was, now = self.counts.stored_usage, reply.usage
        self.counts.stored += 1
        self.counts.stored_estimate += tokens
        self.counts.stored_usage = Usage(
            was.input_tokens + now.input_tokens,
            was.cached_tokens + now.cached_tokens,
            was.output_tokens + now.output_tokens,
            was.thinking_tokens + now.thinking_tokens,
        )

    def _tokens(self, request: GenerationRequest) -> int:
        texts = [message.text for message in request.messages]
        if request.response_json_schema is not None:
            texts.append(json.dumps(request.response_json_schema))
        images = sum(
            image_tokens(image.width, image.height)
            for message in request.messages
            for image in message.images
        )
        return sum(map(self._count_tokens, texts)) + images
