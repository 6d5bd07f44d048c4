"""Choosing tokens: counter-based noise, sampling rules, and stop strings.

The noise is the same for the same (seed, trace, step, continuation, token), wherever it is
computed. Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
turns a key and a counter into four 32-bit words without any state. The key identifies seed and
trace id; the counter is (vocabulary block of four tokens, token position, step index, continuation
index). So a continuation does not depend on what else is in its batch.

>>> import torch
>>> [hex(int(word)) for word in philox(torch.zeros(2, dtype=torch.int64), [torch.tensor(0)] * 4)]
['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from traces import InputError

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_CACHED_WORDS = 1 << 16
"""Words processed at once on a CPU, so that all temporaries stay in its cache."""
_GPU_WORDS = 1 << 26
"""Words processed at once on a GPU, which bounds the temporaries to a few GB."""


def noise_key(seed: int, name: str) -> tuple[int, int]:
    """The two 32-bit words of the key for `name` (a trace id) under `seed`.

    >>> noise_key(0, "a") == noise_key(0, "a"), noise_key(0, "a") == noise_key(1, "a")
    (True, False)
    """
    digest = blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def philox(key: Tensor, counter: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 on broadcastable int64 tensors that hold unsigned 32-bit words.

    Args:
        key: int64 `[..., 2]`, the two key words on the last axis.
        counter: the counter's four words, broadcastable with `key[..., 0]` and with each other.

    Returns:
        The four output words, int64 in [0, 2**32).
    """
    key0, key1 = key[..., 0], key[..., 1]
    word0, word1, word2, word3 = counter
    for round_ in range(_ROUNDS):
        if round_:
            key0, key1 = (key0 + _WEYL[0]) & _MASK, (key1 + _WEYL[1]) & _MASK
        # A 32x32-bit product overflows the sign of int64, but its bits are right. Low halves are
        # masked only once they are mixed into a word that is multiplied again.
        product0, product1 = word0 * _MULTIPLIERS[0], word2 * _MULTIPLIERS[1]
        word0 = (product1 >> 32).bitwise_xor(word1).bitwise_xor(key0).bitwise_and_(_MASK)
        word2 = (product0 >> 32).bitwise_xor(word3).bitwise_xor(key1).bitwise_and_(_MASK)
        word1, word3 = product1, product0
    return word0, word1 & _MASK, word2, word3 & _MASK


def gumbel(words: Tensor) -> Tensor:
    """Standard Gumbel noise in float32 from uniform 32-bit words (int64 tensor of any shape).

    Always finite, in about [-2.9, 22.9]. The uniform number is read from its small end, where
    float32 has the finest resolution, because that is where improbable tokens win.
    """
    uniform = words.to(torch.float32).add_(0.5).mul_(2.0**-32).clamp_(max=1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def gumbel_rows(keys: Tensor, counters: Tensor, positions: Tensor, size: int) -> Tensor:
    """One row of Gumbel noise over the vocabulary for each continuation.

    Token `lane * blocks + block` takes word `lane` of the block's four.

    Args:
        keys: int64 `[rows, 2]`, from `noise_key`.
        counters: int64 `[rows, 2]`: step index and continuation index.
        positions: int64 `[rows]`: 0-based number of the token to sample.
        size: the vocabulary's size.

    Returns:
        float32 `[rows, size]`; a row depends only on its own key, counter and position.
    """
    blocks = torch.arange((size + 3) // 4, device=keys.device)
    words_at_once = _CACHED_WORDS if keys.device.type == "cpu" else _GPU_WORDS
    stride = max(1, words_at_once // (4 * len(blocks)))
    noise = torch.empty((len(keys), 4 * len(blocks)), device=keys.device)
    for start in range(0, len(keys), stride):
        rows = slice(start, start + stride)
        words = philox(
            keys[rows].unsqueeze(1),
            (blocks, positions[rows].unsqueeze(1), counters[rows, :1], counters[rows, 1:]),
        )
        noise[rows] = gumbel(torch.cat(words, dim=1))
    return noise[:, :size]


NEAR_TIE = 1e-4
"""Perturbed logits closer than this may change their order with the shape of the batch."""


@dataclass(frozen=True, slots=True)
class SamplingRule:
    """How the next token is chosen; applied in the order temperature, top_k, top_p."""

    temperature: float = 0.0
    """0 is greedy; otherwise logits are divided by it."""
    top_k: int | None = None
    """Sample from the k most probable tokens; None for all."""
    top_p: float | None = None
    """Sample from the most probable tokens that together have this probability; None for all."""
    listed: int = 0
    """Candidates of each continuation's first token to list, before any sampling."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f'The temperature "{self.temperature}" must be 0 or more.')
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f'top_k is "{self.top_k}", it must be at least 1.')
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f'top_p is "{self.top_p}", it must be above 0 and at most 1.')


@dataclass(frozen=True, slots=True)
class NoiseRows:
    """The noise of each row of a batch."""

    keys: Tensor
    """int64 `[rows, 2]`, from `inference.local.token_choice.noise_key`."""
    counters: Tensor
    """int64 `[rows, 2]`: step index and continuation index."""

    def select(self, rows: Tensor) -> NoiseRows:
        """The given rows, in the given order."""
        return NoiseRows(self.keys[rows], self.counters[rows])


def choose_tokens(
    logits: Tensor, rule: SamplingRule, noise: NoiseRows, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose one token per row.

    Args:
        logits: float `[rows, vocabulary]`.
        rule: how to choose.
        noise: the noise of each row; ignored if the rule is greedy.
        positions: int64 `[rows]`, 0-based number of the token among the row's new tokens.

    Returns:
        The token ids, int64 `[rows]`, and whether the choice was nearly tied, bool `[rows]`: the
        two best are within `NEAR_TIE`, or the winner is at the edge of the top_k or top_p set.
    """
    logits = logits.float()
    if rule.temperature == 0:
        return _best(logits)
    logits = logits / rule.temperature
    perturbed = logits + gumbel_rows(noise.keys, noise.counters, positions, logits.shape[1])
    if rule.top_k is None and (rule.top_p is None or rule.top_p == 1):
        return _best(perturbed)
    edge, outer, inner = _edges(logits, rule)
    tokens, near = _best(perturbed.masked_fill(logits < edge, -torch.inf))
    near |= tokens != perturbed.masked_fill(logits < outer, -torch.inf).argmax(dim=1)
    near |= (logits.gather(1, tokens.unsqueeze(1)) < inner).squeeze(1)
    return tokens, near


def best_candidates(logits: Tensor, listed: int) -> tuple[tuple[int, float], ...]:
    """Ids and log-probabilities of the most probable tokens of one row, best first."""
    best = torch.log_softmax(logits.float(), dim=-1).topk(min(listed, logits.shape[-1]))
    return tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def _best(values: Tensor) -> tuple[Tensor, Tensor]:
    """The best column of each row, and whether the second best is nearly tied."""
    best, tokens = values.max(dim=1)
    second = values.scatter(1, tokens.unsqueeze(1), -torch.inf).amax(dim=1)
    return tokens, best - second < NEAR_TIE


def _edges(logits: Tensor, rule: SamplingRule) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest logit kept by the filters, `[rows, 1]`: exact, and moved outward and inward."""
    size = logits.shape[1]
    kept = min(rule.top_k or size, size)
    ordered = logits.topk(min(kept + 1, size), dim=1).values
    edge = ordered[:, kept - 1 : kept]
    # The last token inside and the first outside may swap if they are close.
    move = NEAR_TIE * (edge - ordered[:, kept : kept + 1] < NEAR_TIE) if kept < size else 0.0
    outer, inner = edge - move, edge + move
    ordered = ordered[:, :kept]
    if rule.top_p is not None:
        share = ordered.softmax(dim=1)
        before = share.cumsum(dim=1) - share
        # A token is inside if the better ones have less than top_p; the best one always is.
        edges = []
        for slack in (0.0, NEAR_TIE, -NEAR_TIE):
            inside = (before < rule.top_p + slack).sum(dim=1, keepdim=True).clamp_(min=1)
            edges.append(torch.where(inside == kept, -torch.inf, ordered.gather(1, inside - 1)))
        edge, outer, inner = (
            torch.maximum(a, b) for a, b in zip((edge, outer, inner), edges, strict=True)
        )
    return edge, outer, torch.minimum(inner, ordered[:, :1])


class StopStrings:
    """Turns new tokens into text and finds where a stop string ends it."""

    def __init__(self, strings: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        """Prepare for a tokenizer.

        Args:
            strings: strings that end a continuation; empty ones are ignored.
            tokenizer: the tokenizer of the model.
        """
        self._strings = tuple(string for string in strings if string)
        self._tokenizer = tokenizer
        self._suspects = self._ending_tokens()

    def __bool__(self) -> bool:
        return bool(self._strings)

    def suspects(self, chosen: Tensor) -> Tensor:
        """Which of the chosen tokens (int64, any shape) may complete a stop string."""
        known = chosen.clamp(max=len(self._suspects) - 1)
        return self._suspects.to(chosen.device)[known] | (known != chosen)

    def text(self, before: int, ids: Sequence[int]) -> tuple[str, bool]:
        """The text of new tokens up to a stop string, and whether there was one.

        Args:
            before: the token before them, because some decoders drop a space at the start.
            ids: the new tokens, without the one that ends a turn.
        """
        anchor, whole = self._decode([before]), self._decode([before, *ids])
        text = whole[len(anchor) :] if whole.startswith(anchor) else self._decode(ids)
        found = [at for at in map(text.find, self._strings) if at >= 0]
        return (text[: min(found)], True) if found else (text, False)

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _ending_tokens(self) -> Tensor:
        """Tokens with the last character of a stop string, or with only part of a character."""
        if not self._strings:
            return torch.zeros(1, dtype=torch.bool)
        marks = {string[-1] for string in self._strings} | {"\N{REPLACEMENT CHARACTER}"}
        pieces = self._tokenizer.batch_decode(
            [[token] for token in range(len(self._tokenizer))], clean_up_tokenization_spaces=False
        )
        return torch.tensor([not marks.isdisjoint(piece) for piece in pieces])
