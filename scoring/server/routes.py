"""How to ask a model server for a trace's numbers and read its reply: one small class per route.

Token ids are sent, so that the server's tokenizer, template and BOS do not matter. Shapes as of

* vLLM, `/pooling`: `vllm/entrypoints/pooling/base/protocol.py` (commit 020638a) and
  `vllm/model_executor/layers/pooler/tokwise/methods.py` (055e47c; pooling types ALL and STEP);
* vLLM, `/v1/completions` with `prompt_logprobs`: `vllm/entrypoints/openai/completion/protocol.py`;
* SGLang, `/generate` with `token_ids_logprob`: `python/sglang/srt/managers/io_struct.py` and
  `scheduler_output_processor_mixin.py` (the first row is always null, the last token's is dropped).

The first two were verified with vLLM 0.32 on a CPU, the third with its source only. SGLang's reward
and embedding routes give one number for a whole sequence, so that no step can be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from scoring.family import LaidOutTrace, ServedReadOut
from traces import InputError, ModelRefused

ServerRow = tuple[float, ...]
"""The numbers that a server gave for one reading position."""
LOGITS, ACTIVATED, LOGPROBS = "logits", "activated", "logprobs"
"""How a row becomes a score: from logits or a value, from probabilities, from two log-
probabilities."""
_SUM_TOLERANCE: Final = 0.02
"""Tolerance for the sum of two probabilities in half precision."""


class Unread(Exception):
    """A well-formed reply without a number for some position of this one trace."""


def row_scores(rows: Sequence[ServerRow], reading: str) -> list[float] | None:
    """Return the score of each row; None if the rows do not fit the reading.

    Args:
        rows: from a route.
        reading: LOGITS (incorrect, correct; or one value), ACTIVATED (the same after softmax or
            sigmoid), or LOGPROBS (correct, incorrect).
    """
    if reading == LOGPROBS:
        return [_sigmoid(right - wrong) for right, wrong in rows]
    if reading == LOGITS:
        return [_sigmoid(row[-1] - (row[0] if len(row) == 2 else 0.0)) for row in rows]
    whole = all(len(row) == 1 or abs(sum(row) - 1) <= _SUM_TOLERANCE for row in rows)
    inside = all(0 <= value <= 1 for row in rows for value in row)
    return [row[-1] for row in rows] if whole and inside else None


def _sigmoid(value: float) -> float:
    """Return the sigmoid without overflow on either side."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1 + grown)


def numbers_of(trace: LaidOutTrace, rows: int) -> list[int]:
    """Return the row number of each reading position.

    Raises:
        ModelRefused: there is neither a row per token nor a row per step token.
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
        f"The server gave {rows} rows for {len(trace.ids)} tokens and {len(places)} steps.",
        remedy="configure it to pool every token (ALL), or the step token (STEP with step_tag_id)",
    )


def same_length(read: int | None, sent: int) -> None:
    """Refuse a reply for more or fewer tokens than were sent; None is accepted.

    Raises:
        ModelRefused: they differ.
    """
    if read is not None and read != sent:
        raise ModelRefused(
            f"The server read {read} tokens, expected {sent}.",
            remedy="configure it to add no BOS and not to truncate prompts",
        )


def finite(value: Any) -> float:
    """Return the value as a number.

    Raises:
        Unread: it is not a finite number.
    """
    with suppress(OverflowError):  # a whole number of 400 digits
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    raise Unread(f"The server gave {str(value)[:40]!r} instead of a number.")


def other_shape(wanted: str, reply: Mapping[str, Any]) -> ModelRefused:
    """Return the error for a reply that lacks what was wanted; it names what the reply holds."""
    names = ", ".join(sorted(map(str, reply))[:8])
    return ModelRefused(
        f"The server's reply has no {wanted}; it has: {names or 'nothing'}.",
        remedy="choose the server's kind with --route",
    )


_TOP: Final = 20
"""Most probable tokens requested at each position: vLLM's own limit (`--max-logprobs`)."""


class Route(Protocol):
    """One way to ask a server."""

    @property
    def path(self) -> str:
        """Path below the server's root."""

    @property
    def spare(self) -> int:
        """Tokens that must fit into the server's window in addition to the trace."""

    @property
    def readings(self) -> tuple[str, ...]:
        """Possible readings of the rows; the parity gate finds the right one."""

    @property
    def remedy(self) -> str:
        """How to start a server so that it has this route."""

    def body(self, model: str, trace: LaidOutTrace) -> dict[str, Any]:
        """Return the request for one trace with at least one reading position."""

    def rows(self, reply: Mapping[str, Any], trace: LaidOutTrace) -> list[ServerRow]:
        """Return the row of each reading position, in the order of `trace.read_at`.

        Raises:
            ModelRefused: the reply has another shape, or is for other tokens than those sent.
            Unread: a number is missing or not finite.
        """


@dataclass(frozen=True, slots=True)
class Pooling:
    """vLLM's `/pooling`: a row per token (ALL), or a row per step token (STEP)."""

    served: ServedReadOut
    path = "/pooling"
    spare = 0
    readings = (LOGITS, ACTIVATED)
    remedy = (
        "start vLLM with --runner pooling --pooler-config.task token_classify, or use another"
        " --route"
    )

    def body(self, model: str, trace: LaidOutTrace) -> dict[str, Any]:
        """Request raw outputs: half precision rounds probabilities near 1 to ties."""
        return {
            "model": model,
            "task": "token_classify",
            "input": list(trace.ids),
            "use_activation": False,
        }

    def rows(self, reply: Mapping[str, Any], trace: LaidOutTrace) -> list[ServerRow]:
        """Read rows by position, or by the number of the step token."""
        pooled = reply.get("data")
        if not isinstance(pooled, list) or len(pooled) != 1 or not isinstance(pooled[0], Mapping):
            raise other_shape("one pooled input", reply)
        same_length(_prompt_tokens(reply.get("usage")), len(trace.ids))
        given = pooled[0].get("data")
        if not isinstance(given, list):
            raise other_shape("rows of numbers", reply)
        rows = [row if isinstance(row, list) else [row] for row in given]
        return [self._row(rows[number]) for number in numbers_of(trace, len(rows))]

    def _row(self, row: Sequence[Any]) -> ServerRow:
        if len(row) not in self.served.columns:
            wanted = " or ".join(map(str, self.served.columns))
            raise ModelRefused(
                f"The server gives {len(row)} numbers per token, expected {wanted}.",
                remedy="serve the PRM with its head, see docs/tutorials/servers.md",
            )
        return tuple(finite(value) for value in row)


@dataclass(frozen=True, slots=True)
class Completions:
    """vLLM's `/v1/completions` with the log-probabilities of the prompt."""

    right: int
    """Id of the token for correct."""
    wrong: int
    """Id of the token for incorrect."""
    path = "/v1/completions"
    spare = 2
    readings = (LOGPROBS,)
    remedy = "serve the PRM as a causal language model with vLLM, or use another --route"

    def body(self, model: str, trace: LaidOutTrace) -> dict[str, Any]:
        """Send one more token: a prediction is reported at the token that follows."""
        return {
            "model": model,
            "prompt": [*trace.ids, trace.ids[-1]],
            "max_tokens": 1,
            "temperature": 1.0,
            "prompt_logprobs": _TOP,
            "return_token_ids": True,
        }

    def rows(self, reply: Mapping[str, Any], trace: LaidOutTrace) -> list[ServerRow]:
        """Return both verdict tokens' log-probabilities after each position."""
        choices = reply.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise other_shape("one choice", reply)
        given = choices[0].get("prompt_logprobs")
        if not isinstance(given, list):
            raise other_shape('"prompt_logprobs"', choices[0])
        read = choices[0].get("prompt_token_ids")
        if read is not None and read != [*trace.ids, trace.ids[-1]]:
            raise ModelRefused("The server read different tokens than those sent.")
        same_length(_prompt_tokens(reply.get("usage")), len(trace.ids) + 1)
        same_length(len(given), len(trace.ids) + 1)
        found = [given[place + 1] for places in trace.read_at for place in places]
        return [(self._of(each, self.right), self._of(each, self.wrong)) for each in found]

    def _of(self, predicted: Any, token: int) -> float:
        if not isinstance(predicted, Mapping):
            raise Unread("The server gave no log-probabilities at a step.")
        found = predicted.get(str(token))
        if not isinstance(found, Mapping):
            raise Unread(
                f"Token {token} is not among the {_TOP} most probable that the server reports at a"
                " step; --route pooling has no such limit."
            )
        return finite(found.get("logprob"))


@dataclass(frozen=True, slots=True)
class Generate:
    """SGLang's `/generate` with the log-probabilities of two tokens."""

    right: int
    """Id of the token for correct."""
    wrong: int
    """Id of the token for incorrect."""
    path = "/generate"
    spare = 2
    readings = (LOGPROBS,)
    remedy = "serve the PRM as a causal language model with SGLang, or use another --route"

    def body(self, model: str, trace: LaidOutTrace) -> dict[str, Any]:
        """Request from the first reading position on, with one more token, as for `Completions`."""
        return {
            "input_ids": [*trace.ids, trace.ids[-1]],
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
            "return_logprob": True,
            "logprob_start_len": _first_place(trace),
            "token_ids_logprob": [self.right, self.wrong],
        }

    def rows(self, reply: Mapping[str, Any], trace: LaidOutTrace) -> list[ServerRow]:
        """Row k predicts the k-th token from the start on; the 0th is null."""
        info = reply.get("meta_info")
        if not isinstance(info, Mapping):
            raise other_shape('"meta_info"', reply)
        rows, start = info.get("input_token_ids_logprobs"), _first_place(trace)
        if not isinstance(rows, list):
            raise other_shape('"input_token_ids_logprobs"', info)
        same_length(_prompt_tokens(info), len(trace.ids) + 1)
        same_length(len(rows), len(trace.ids) + 1 - start)
        found = [rows[place + 1 - start] for places in trace.read_at for place in places]
        return [(self._of(each, self.right), self._of(each, self.wrong)) for each in found]

    def _of(self, row: Any, token: int) -> float:
        for entry in row if isinstance(row, list) else ():
            if isinstance(entry, list) and len(entry) >= 2 and entry[1] == token:
                return finite(entry[0])
        raise Unread(f"The server gave no log-probability of token {token} at a step.")


ROUTES: Final = ("pooling", "completions", "generate")
"""Names given to `--route`."""


def route_of(name: str | None, served: ServedReadOut, family: str) -> Route:
    """Return the route of that name; None for `pooling` with heads and `completions` with tokens.

    Raises:
        InputError: no such route, or one that cannot serve what the family reads.
    """
    chosen = name or ("pooling" if served.tokens is None else "completions")
    if chosen not in ROUTES:
        raise InputError(f'Unknown route "{chosen}".', remedy=f"choose one of {', '.join(ROUTES)}")
    if chosen == "pooling":
        return Pooling(served)
    if served.tokens is None:
        raise InputError(
            f'The family {family} reads a separate head, which the route "{chosen}" cannot serve.',
            remedy="use --route pooling",
        )
    return (Completions if chosen == "completions" else Generate)(*served.tokens)


def _first_place(trace: LaidOutTrace) -> int:
    return min(place for read in trace.read_at for place in read)


def _prompt_tokens(counts: Any) -> int | None:
    """Return the number of tokens the server reports to have read; None if it does not."""
    count = counts.get("prompt_tokens") if isinstance(counts, Mapping) else None
    return count if isinstance(count, int) else None
