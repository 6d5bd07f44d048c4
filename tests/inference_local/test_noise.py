"""The noise: published answers, an independent scalar Philox, the right distribution, no context."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from inference.local.token_choice import gumbel, gumbel_rows, noise_key, philox

WORD = st.integers(0, 2**32 - 1)


def scalar_philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Philox4x32-10 as in the paper, one number at a time, with Python's integers."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def vectorised(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, ...]:
    words = philox(torch.tensor(key), [torch.tensor(word) for word in counter])
    return tuple(int(word) for word in words)


@pytest.mark.parametrize(
    ("key", "counter", "answer"),
    [
        ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(
    key: tuple[int, int], counter: tuple[int, int, int, int], answer: tuple[int, ...]
) -> None:
    assert vectorised(key, counter) == answer


@given(st.tuples(WORD, WORD), st.tuples(WORD, WORD, WORD, WORD))
@settings(max_examples=50, deadline=None)
def test_equals_the_scalar_form(key: tuple[int, int], counter: tuple[int, int, int, int]) -> None:
    assert vectorised(key, counter) == scalar_philox(key, counter)


def test_each_number_comes_from_its_own_counter() -> None:
    key = noise_key(3, "trace")
    rows = gumbel_rows(torch.tensor([key]), torch.tensor([[4, 1]]), torch.tensor([7]), 10)
    blocks = 3
    for token in range(10):
        lane, block = divmod(token, blocks)
        word = scalar_philox(key, (block, 7, 4, 1))[lane]
        expected = -math.log(-math.log1p(-(word + 0.5) / 2**32))
        assert float(rows[0, token]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_row_does_not_depend_on_its_batch() -> None:
    keys = torch.tensor([noise_key(0, f"t{i}") for i in range(400)])
    counters = torch.tensor([[i % 7, i % 3] for i in range(400)])
    positions = torch.arange(400) % 11
    together = gumbel_rows(keys, counters, positions, 750)
    for row in (0, 86, 87, 88, 399):
        one = slice(row, row + 1)
        assert torch.equal(
            together[one], gumbel_rows(keys[one], counters[one], positions[one], 750)
        )


def test_every_part_of_the_address_matters() -> None:
    def row(seed: int, name: str, step: int, index: int, position: int) -> torch.Tensor:
        key = torch.tensor([noise_key(seed, name)])
        return gumbel_rows(key, torch.tensor([[step, index]]), torch.tensor([position]), 64)

    base = row(0, "a", 0, 0, 0)
    changed = [row(1, "a", 0, 0, 0), row(0, "b", 0, 0, 0), row(0, "a", 1, 0, 0)]
    changed += [row(0, "a", 0, 1, 0), row(0, "a", 0, 0, 1)]
    assert all(float((base - other).abs().min()) > 0 for other in changed)


def test_the_distribution_is_gumbel() -> None:
    keys = torch.tensor([noise_key(0, "x")]).expand(50, 2)
    rows = gumbel_rows(keys, torch.zeros(50, 2, dtype=torch.int64), torch.arange(50), 400)
    assert stats.kstest(rows.flatten().double().numpy(), "gumbel_r").pvalue > 0.001


def test_the_ends_of_the_range_are_finite_and_ordered() -> None:
    low, high = gumbel(torch.tensor([2**32 - 1, 0]))
    assert -3.0 < float(low) < -2.8
    assert float(high) == pytest.approx(33 * math.log(2), abs=0.01)
