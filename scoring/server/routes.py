"""How a server is asked for a trace's numbers, and what its answer says: one small class a route.

Token ids are sent, so that no server's tokenizer, template or BOS comes in between. Shapes as of

* vLLM, `/pooling`: `vllm/entrypoints/pooling/base/protocol.py` (commit 020638a) and
  `vllm/model_executor/layers/pooler/tokwise/methods.py` (055e47c; pooling types ALL and STEP);
* vLLM, `/v1/completions` with `prompt_logprobs`: `vllm/entrypoints/openai/completion/protocol.py`;
* SGLang, `/generate` with `token_ids_logprob`: `python/sglang/srt/managers/io_struct.py` and
  `scheduler_output_processor_mixin.py` (the first row is always null, the last token's falls away).

The first two were held against vLLM 0.32 on a processor, the third against its source alone. SGLang's own
reward and embedding routes give one number for a whole sequence: no step can be read there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from scoring.family import LaidOutTrace, ServedReadOut
from traces import InputError, ModelRefused

Row = tuple[float, ...]
"""The numbers that a server gave for one reading place."""
LOGITS, ACTIVATED, LOGPROBS = "logits", "activated", "logprobs"
"""How a row becomes a score: of logits or a value, as probabilities already, of two log probabilities."""
_SUM_TOLERANCE: Final = 0.02
"""By how much two probabilities in half precision may miss a sum of 1."""


class Unread(Exception):
    """A well-formed answer that holds no number for some place of this one trace."""


def probabilities(rows: Sequence[Row], reading: str) -> list[float] | None:
    """The score of each row; None if the rows cannot be read so.

    Args:
        rows: as a route gives them.
        reading: LOGITS (wrong, right; or one value), ACTIVATED (the same behind softmax or sigmoid),
            or LOGPROBS (right, wrong).
    """
    if reading == LOGPROBS:
        return [_sigmoid(right - wrong) for right, wrong in rows]
    if reading == LOGITS:
        return [_sigmoid(row[-1] - (row[0] if len(row) == 2 else 0.0)) for row in rows]
    whole = all(len(row) == 1 or abs(sum(row) - 1) <= _SUM_TOLERANCE for row in rows)
    inside = all(0 <= value <= 1 for row in rows for value in row)
    return [row[-1] for row in rows] if whole and inside else None


def _sigmoid(value: float) -> float:
    """Without overflow on either side."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1 + grown)


def numbers_of(trace: LaidOutTrace, rows: int) -> list[int]:
    """The number of the row of each reading place.

    Raises:
        ModelRefused: it is neither a row a token nor a row a step token.
    """
    places = [place for read in trace.read_at for place in read]
    if rows == len(trace.ids):
        return places
    markers = {trace.ids[place] for place in places}
    if len(markers) == 1:
        of_marker = [place for place, token in enumerate(trace.ids) if token in markers]
        if rows == len(of_marker):
            number = {place: row for row, place in enumerate(of_marker)}
            return [number[place] for place in places]
    raise ModelRefused(
        f"The server gave {rows} rows for {len(trace.ids)} tokens with {len(places)} steps to read.",
        remedy="let it pool every token (ALL), or the family's step token (STEP with step_tag_id)",
    )


def same_length(read: int | None, sent: int) -> None:
    """Refuse an answer for more or fewer tokens than were sent; None says nothing.

    Raises:
        ModelRefused: they differ.
    """
    if read is not None and read != sent:
        raise ModelRefused(
            f"The server answers for {read} tokens where {sent} were expected.",
            remedy="it must read the token ids as they are sent, without a BOS of its own, uncut",
        )


def finite(value: Any) -> float:
    """The value as a number.

    Raises:
        Unread: it is none, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unread(f"The server gave {value!r} where a number was expected.")
    return float(value)


def other_shape(wanted: str, reply: Mapping[str, Any]) -> ModelRefused:
    """The refusal of an answer that lacks what was wanted; it names what the answer holds."""
    names = ", ".join(sorted(map(str, reply))[:8])
    return ModelRefused(
        f"The server's answer holds no {wanted}; it holds: {names or 'nothing'}.",
        remedy="name the server's kind with --route",
    )


# --- How a server is asked for a trace's numbers, and what its answer says: one small class a


_TOP: Final = 20
"""Most probable tokens asked for at each place: vLLM's own limit (`--max-logprobs`)."""


class Route(Protocol):
    """One way to ask a server."""

    @property
    def path(self) -> str:
        """Below the server's root."""

    @property
    def spare(self) -> int:
        """Tokens that must fit into the server's window beside the trace."""

    @property
    def readings(self) -> tuple[str, ...]:
        """What the rows may be; which of them it is, the parity gate finds out."""

    @property
    def remedy(self) -> str:
        """How a server is started so that it knows this route."""

    def body(self, model: str, trace: LaidOutTrace) -> dict[str, Any]:
        """The request for one trace with at least one reading place."""

    def rows(self, reply: Mapping[str, Any], trace: LaidOutTrace) -> list[Row]:
        """The row of each reading place, in the order of `trace.read_at`.

        Raises:
            ModelRefused: the answer is of another shape, or for other tokens than those sent.
            Unread: a number is missing or not finite.
        """


@dataclass(frozen=True, slots=True)
class Pooling:
    """vLLM's `/pooling`: a row a token (ALL), or a row a step token (STEP)."""

    served: ServedReadOut
    """The family's read-out."""
    path = "/pooling"
    spare = 0
    readings = (LOGITS, ACTIVATED)
    remedy = "start vLLM with --runner pooling --pooler-config.task token_classify, or take another --route"

    def body(self, model: str, trace: LaidOutTrace) -> dict[str, Any]:
        """Raw outputs are asked for: half precision rounds probabilities near 1 to ties."""
        return {
            "model": model,
            "task": "token_classify",
            "input": list(trace.ids),
            "use_activation": False,
        }

    def rows(self, reply: Mapping[str, Any], trace: LaidOutTrace) -> list[Row]:
        """Rows by position, or by the number of the step token."""
        pooled = reply.get("data")
        if not isinstance(pooled, list) or len(pooled) != 1 or not isinstance(pooled[0], Mapping):
            raise other_shape("one pooled input", reply)
        same_length(_prompt_tokens(reply.get("usage")), len(trace.ids))
        given = pooled[0].get("data")
        if not isinstance(given, list):
            raise other_shape("rows of numbers", reply)
        rows = [row if isinstance(row, list) else [row] for row in given]
        return [self._row(rows[number]) for number in numbers_of(trace, len(rows))]

    def _row(self, row: Sequence[Any]) -> Row:
        if len(row) not in self.served.columns:
            wanted = " or ".join(map(str, self.served.columns))
            raise ModelRefused(
                f"The server gives {len(row)} numbers a token; {wanted} were expected.",
                remedy="serve the PRM with its head, see README, PRM families",
            )
        return tuple(finite(value) for value in row)


@dataclass(frozen=True, slots=True)
class Completions:
    """vLLM's `/v1/completions` with the log probabilities of the prompt."""

    right: int
    """Id of the right sign."""
    wrong: int
    """Id of the wrong sign."""
    path = "/v1/completions"
    spare = 2
    readings = (LOGPROBS,)
    remedy = "serve the PRM as a causal language model with vLLM, or take another --route"

    def body(self, model: str, trace: LaidOutTrace) -> dict[str, Any]:
        """One more token is sent: what stands behind a token tells what was predicted there."""
        return {
            "model": model,
            "prompt": [*trace.ids, trace.ids[-1]],
            "max_tokens": 1,
            "temperature": 1.0,
            "prompt_logprobs": _TOP,
            "return_token_ids": True,
        }

    def rows(self, reply: Mapping[str, Any], trace: LaidOutTrace) -> list[Row]:
        """The two signs' log probabilities behind each place."""
        choices = reply.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise other_shape("one choice", reply)
        said = choices[0].get("prompt_logprobs")
        if not isinstance(said, list):
            raise other_shape('"prompt_logprobs"', choices[0])
        read = choices[0].get("prompt_token_ids")
        if read is not None and read != [*trace.ids, trace.ids[-1]]:
            raise ModelRefused("The server read other tokens than those that were sent.")
        same_length(_prompt_tokens(reply.get("usage")), len(trace.ids) + 1)
        same_length(len(said), len(trace.ids) + 1)
        found = [said[place + 1] for places in trace.read_at for place in places]
        return [(self._of(each, self.right), self._of(each, self.wrong)) for each in found]

    def _of(self, predicted: Any, token: int) -> float:
        if not isinstance(predicted, Mapping):
            raise Unread("The server gave no log probabilities at a step.")
        told = predicted.get(str(token))
        if not isinstance(told, Mapping):
            raise Unread(
                f"Token {token}, one of the two signs, is not among the {_TOP} most probable that the"
                " server names at a step: --route pooling has no such limit."
            )
        return finite(told.get("logprob"))


@dataclass(frozen=True, slots=True)
class Generate:
    """SGLang's `/generate` with the log probabilities of two tokens."""

    right: int
    """Id of the right sign."""
    wrong: int
    """Id of the wrong sign."""
    path = "/generate"
    spare = 2
    readings = (LOGPROBS,)
    remedy = "serve the PRM as a causal language model with SGLang, or take another --route"

    def body(self, model: str, trace: LaidOutTrace) -> dict[str, Any]:
        """From the first reading place on; one more token is sent, as for `Completions`."""
        return {
            "input_ids": [*trace.ids, trace.ids[-1]],
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
            "return_logprob": True,
            "logprob_start_len": _first_place(trace),
            "token_ids_logprob": [self.right, self.wrong],
        }

    def rows(self, reply: Mapping[str, Any], trace: LaidOutTrace) -> list[Row]:
        """Row k is what was predicted for the k-th token from the start on; the 0th is null."""
        told = reply.get("meta_info")
        if not isinstance(told, Mapping):
            raise other_shape('"meta_info"', reply)
        rows, start = told.get("input_token_ids_logprobs"), _first_place(trace)
        if not isinstance(rows, list):
            raise other_shape('"input_token_ids_logprobs"', told)
        same_length(_prompt_tokens(told), len(trace.ids) + 1)
        same_length(len(rows), len(trace.ids) + 1 - start)
        found = [rows[place + 1 - start] for places in trace.read_at for place in places]
        return [(self._of(each, self.right), self._of(each, self.wrong)) for each in found]

    def _of(self, row: Any, token: int) -> float:
        for entry in row if isinstance(row, list) else ():
            if isinstance(entry, list) and len(entry) >= 2 and entry[1] == token:
                return finite(entry[0])
        raise Unread(f"The server gave no log probability of token {token} at a step.")


ROUTES: Final = ("pooling", "completions", "generate")
"""By the name given to `--route`."""


def route_of(name: str | None, served: ServedReadOut, family: str) -> Route:
    """The route of that name; None takes `pooling` for heads and `completions` for signs.

    Raises:
        InputError: no such route, or one that cannot carry what the family reads.
    """
    chosen = name or ("pooling" if served.tokens is None else "completions")
    if chosen not in ROUTES:
        raise InputError(
            f'There is no route "{chosen}".', remedy=f"take one of {', '.join(ROUTES)}"
        )
    if chosen == "pooling":
        return Pooling(served)
    if served.tokens is None:
        raise InputError(
            f'The family {family} reads a head of its own, which the route "{chosen}" does not show.',
            remedy="take --route pooling",
        )
    return (Completions if chosen == "completions" else Generate)(*served.tokens)


def _first_place(trace: LaidOutTrace) -> int:
    return min(place for read in trace.read_at for place in read)


def _prompt_tokens(counts: Any) -> int | None:
    """How many tokens the server says it read; None if it does not."""
    count = counts.get("prompt_tokens") if isinstance(counts, Mapping) else None
    return count if isinstance(count, int) else None
