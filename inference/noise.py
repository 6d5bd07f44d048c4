"""Counter-based noise: the same number for the same (seed, trace, step, continuation, token), anywhere.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a key
and a counter into four 32-bit words without any state. The key says whose noise it is (seed and
trace id), the counter says which number: (vocabulary block of four tokens, token position, step
index, continuation index). So a continuation does not depend on what else is in its batch.

>>> import torch
>>> [hex(int(word)) for word in philox(torch.zeros(2, dtype=torch.int64), *[torch.tensor(0)] * 4)]
['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_CACHED_WORDS = 1 << 16
"""Words worked on at once on a processor: all temporaries stay in its cache."""
_GPU_WORDS = 1 << 26
"""Words worked on at once on a GPU: bounds the temporaries to a few GB."""


def noise_key(seed: int, name: str) -> tuple[int, int]:
    """The two 32-bit words of the key for `name` (a trace id) under `seed`.

    >>> noise_key(0, "a") == noise_key(0, "a"), noise_key(0, "a") == noise_key(1, "a")
    (True, False)
    """
    digest = blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def philox(
    key: Tensor, word0: Tensor, word1: Tensor, word2: Tensor, word3: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 on broadcastable int64 tensors that hold unsigned 32-bit words.

    Args:
        key: int64 `[..., 2]`, the two key words on the last axis.
        word0: the counter's words, broadcastable with `key[..., 0]` and with each other.
        word1: as `word0`.
        word2: as `word0`.
        word3: as `word0`.

    Returns:
        The four output words, int64 in [0, 2**32).
    """
    key0, key1 = key[..., 0], key[..., 1]
    for round_ in range(_ROUNDS):
        if round_:
            key0, key1 = (key0 + _WEYL[0]) & _MASK, (key1 + _WEYL[1]) & _MASK
        # A 32x32-bit product overflows the sign of int64, but its bits are right. Low halves are
        # masked only when they have been mixed into a word that is multiplied again.
        product0, product1 = word0 * _MULTIPLIERS[0], word2 * _MULTIPLIERS[1]
        word0 = (product1 >> 32).bitwise_xor(word1).bitwise_xor(key0).bitwise_and_(_MASK)
        word2 = (product0 >> 32).bitwise_xor(word3).bitwise_xor(key1).bitwise_and_(_MASK)
        word1, word3 = product1, product0
    return word0, word1 & _MASK, word2, word3 & _MASK


def gumbel(words: Tensor) -> Tensor:
    """Standard Gumbel noise in float32 from uniform 32-bit words (int64 tensor of any shape).

    Finite everywhere, in about [-2.9, 22.9]. The uniform number is read from its small end, where
    float32 is finest: that is where improbable tokens win.
    """
    uniform = words.to(torch.float32).add_(0.5).mul_(2.0**-32).clamp_(max=1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def gumbel_rows(keys: Tensor, counters: Tensor, positions: Tensor, size: int) -> Tensor:
    """One row of Gumbel noise over the vocabulary for each continuation.

    Token `lane * blocks + block` takes word `lane` of the block's four.

    Args:
        keys: int64 `[rows, 2]`, from `noise_key`.
        counters: int64 `[rows, 2]`: step index and continuation index.
        positions: int64 `[rows]`: 0-based number of the token to be drawn.
        size: the vocabulary's size.

    Returns:
        float32 `[rows, size]`; a row depends on its own key, counter and position alone.
    """
    blocks = torch.arange((size + 3) // 4, device=keys.device)
    words_at_once = _CACHED_WORDS if keys.device.type == "cpu" else _GPU_WORDS
    stride = max(1, words_at_once // (4 * len(blocks)))
    noise = torch.empty((len(keys), 4 * len(blocks)), device=keys.device)
    for start in range(0, len(keys), stride):
        rows = slice(start, start + stride)
        words = philox(
            keys[rows].unsqueeze(1),
            blocks,
            positions[rows].unsqueeze(1),
            counters[rows, :1],
            counters[rows, 1:],
        )
        noise[rows] = gumbel(torch.cat(words, dim=1))
    return noise[:, :size]
