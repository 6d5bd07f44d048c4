"""A budget that is never passed and still nearly used up.

What a call costs at most is its input and its whole output limit. That limit is wide (a judge may
think), so holding it back for every call would strand a fifth of a small budget, or run one call at
a time. Once replies show how long they really are, a call that does not fit at its full limit is
sent with a lower one, one that surely fits: a model does not know its limit, so a reply that ends
by itself is the reply that the full limit would have brought. One that was cut by our limit is no
answer to the request; it is paid, kept under its own key, and the request is sent again with a
wider one while there is money.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date

from inference.images import image_tokens
from inference.prices import Price, Service, price_of
from inference.protocol import GenerationRequest, TextModel
from inference.specs import ModelSpec
from traces import BudgetExhausted, InputError, ModelReply

ROOM, TIGHT_ROOM = 2.0, 1.25
"""How much longer than the longest reply so far the next one may be: wanted, and at the very least."""
LEAST_CAP = 1024
"""Where there is money for it, a limit of ours is not below this: one short reply says little, and
before the first reply nothing is known at all."""


@dataclass(slots=True)
class Purse:
    """What may be spent and what was: shared by all who spend from it (judge and second judge)."""

    limit_usd: float | None = None
    """Most US dollars; None for no limit."""
    spent_usd: float = 0.0
    """US dollars so far; a reply of unknown price counts at its most."""
    held_usd: dict[int, float] = field(default_factory=dict)
    """US dollars held for calls on the wire, by spender."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one call may use of the budget."""

    input_tokens: int
    """Estimate of its input, before correction by what replies have shown."""
    output_tokens: int
    """Its output limit, thinking included."""
    capped: bool = False
    """Whether that limit is ours and lower than the request's own."""


class Budget:
    """What may be spent, what was, and what a call may cost at most. Used by one thread."""

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
            limit_usd: most US dollars, or a purse that is shared; None for no limit.
            model: who answers; a model that is not hosted costs nothing.
            service: whose prices hold.
            today: the day whose prices hold.

        Raises:
            InputError: a limit for a hosted model without a known price: it could not be kept.
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
                f'No price is known for "{model.spec}": a budget cannot be kept.',
                remedy="leave --budget out, or take a model of the price table",
            )

    def reserve(
        self, request: GenerationRequest, flying: Iterable[Reservation]
    ) -> Reservation | None:
        """What the request may use beside the calls on the wire; None if it has to wait for them.

        Until a first reply has shown what the service counts, one call is on the wire at a time.
        """
        price, purse = self._price(), self._purse
        if purse.limit_usd is None or price is None:
            return Reservation(0, request.max_tokens)  # nothing is counted against it
        full = Reservation(input_bound(request), request.max_tokens)
        held = list(flying)
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
        """Count a reply that was bought."""
        price = self._price()
        if reply.usd is not None:
            self._purse.spent_usd += reply.usd
        elif price is not None:  # another model answered: held at its most
            self._purse.spent_usd += self._most(reservation, price)
        self.release(reservation)
        self._learn(reservation.input_tokens, reply)

    def seen(self, request: GenerationRequest, reply: ModelReply) -> None:
        """Learn from a reply that was found in the store."""
        if self._purse.limit_usd is not None:
            self._learn(input_bound(request), reply)

    def release(self, reservation: Reservation) -> None:
        """Hold no more for a call that is not on the wire any more."""
        price, held = self._price(), self._purse.held_usd
        if price is not None and id(self) in held:
            held[id(self)] = max(0.0, held[id(self)] - self._most(reservation, price))

    def _learn(self, input_tokens: int, reply: ModelReply) -> None:
        """Take from a reply how long replies are and how the service counts the input."""
        usage = reply.usage
        self._has_seen = True
        self._longest_output = max(
            self._longest_output, usage.output_tokens + usage.thinking_tokens
        )
        self._input_factor = max(self._input_factor, usage.input_tokens / max(1, input_tokens))

    def exhausted(self) -> BudgetExhausted:
        """The error that ends the run."""
        return BudgetExhausted(
            f"The next call could pass the budget of {self._purse.limit_usd:g} USD "
            f"({self._purse.spent_usd:.4f} USD spent).",
            remedy="run the same command again with a larger --budget: what is done is kept",
        )

    def _capped(self, full: Reservation, left: float, price: Price) -> Reservation | None:
        """The widest limit that is wanted and can be paid."""
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
    """Tokens of the input, estimated from above, schema and images included.

    A digit is a token of its own in Gemini's vocabulary; of everything else, three UTF-8 bytes are
    one at the very most in prose, and CJK signs have three bytes.
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
