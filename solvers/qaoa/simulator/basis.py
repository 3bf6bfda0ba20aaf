"""The states of fixed weight, in the order of their numbers ``sum_i x_i 2^i``.

The r-th state of weight k with ones at ``c_1 < ... < c_k`` has rank ``sum_j C(c_j, j)`` (the
combinatorial number system). States that share their high bits are therefore neighbours: the
block with ``w`` ones in the low ``i`` bits has ``C(i, w)`` states in a row.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.problem import Floats

Masks = NDArray[np.uint32]
Ints = NDArray[np.int64]
# Masks are 32 bits wide.
MAX_BITS = 32


def binomials(n: int) -> Ints:
    """``B[i, j + 1] = C(i, j)`` for i, j = 0..n, with a zero column for j = -1; (n+1, n+2)."""
    B = np.zeros((n + 1, n + 2), np.int64)
    for i in range(n + 1):
        B[i, 1:] = [comb(i, j) for j in range(n + 1)]
    return B


@njit(cache=True, nogil=True, inline="always")
def popcount(mask: int) -> int:
    """Ones among 32 bits, added up in parallel."""
    mask = mask - ((mask >> 1) & 0x55555555)
    mask = (mask & 0x33333333) + ((mask >> 2) & 0x33333333)
    mask = (mask + (mask >> 4)) & 0x0F0F0F0F
    return ((mask * 0x01010101) >> 24) & 0xFF


@njit(cache=True, nogil=True)
def unrank(rank: int, n: int, k: int, B: Ints) -> int:
    """The `rank`-th number with k ones among n bits."""
    mask = 0
    for i in range(n - 1, -1, -1):
        if k > 0 and rank >= B[i, k + 1]:
            rank -= B[i, k + 1]
            k -= 1
            mask |= 1 << i
    return mask


@njit(cache=True, nogil=True)
def first_of(top: int, low: int, n: int, k: int, B: Ints) -> int:
    """How many states of weight k lie before those whose bits from `low` on read `top`."""
    rank = 0
    for i in range(n - 1, low - 1, -1):
        if top >> (i - low) & 1:
            if k >= 0:
                rank += B[i, k + 1]
            k -= 1
    return rank


@njit(cache=True, nogil=True)
def successor(mask: int) -> int:
    """The next larger number with as many ones (HAKMEM, item 175)."""
    if mask == 0:
        return 0
    lowest = mask & -mask
    ripple = mask + lowest
    return ripple | (((mask ^ ripple) // lowest) >> 2)


@njit(cache=True, nogil=True)
def fill_masks(masks: Masks, start: int, stop: int, n: int, k: int, B: Ints) -> None:
    """Writes the states of rank start..stop-1; k < 0 means every number counts, of any weight."""
    mask = start if k < 0 else unrank(start, n, k, B)
    for r in range(start, stop):
        masks[r - start] = mask
        mask = mask + 1 if k < 0 else successor(mask)


@njit(cache=True, nogil=True)
def fill_energies(
    energies: Floats, start: int, stop: int, k: int, G: Floats, own: Floats, B: Ints
) -> None:
    """``sum_i own_i + sum_{i<j} G_ij`` over the ones of each state of rank start..stop-1."""
    n = len(own)
    ones = np.empty(n, np.int64)
    mask = start if k < 0 else unrank(start, n, k, B)
    for r in range(start, stop):
        count = 0
        total = 0.0
        for i in range(n):
            if mask >> i & 1:
                total += own[i]
                for a in range(count):
                    total += G[i, ones[a]]
                ones[count] = i
                count += 1
        energies[r] = total
        mask = mask + 1 if k < 0 else successor(mask)


def energies(n: int, k: int, G: Floats, own: Floats) -> Floats:
    """`fill_energies` of every state of n variables and weight k."""
    result = np.empty(comb(n, k))
    fill_energies(result, 0, len(result), k, G, own, binomials(n))
    return result


def states(ranks: Ints, n: int, k: int) -> NDArray[np.int8]:
    """The states of these ranks, shape (len(ranks), n); k = -1 for ranks among all 2^n."""
    B = binomials(n)
    numbers = [int(r) if k < 0 else unrank(int(r), n, k, B) for r in ranks]
    places = np.arange(n)
    return ((np.array(numbers, np.int64)[:, None] >> places) & 1).astype(np.int8)


def rank_tables(n: int, k: int) -> tuple[int, Ints, Ints]:
    """Tables that rank a mask with two look-ups.

    Returns:
        ``(split, low, high)``: a mask's rank is ``low[mask & (2^split - 1)]`` plus
        ``high[w, mask >> split]`` with w the ones of the low part.
    """
    split = n // 2
    B = binomials(n)
    low = np.zeros(1 << split, np.int64)
    high = np.zeros((split + 1, 1 << (n - split)), np.int64)
    for mask in range(len(low)):
        low[mask] = _rank(mask, 0, 0, B)
    for w in range(split + 1):
        for mask in range(high.shape[1]):
            if w + mask.bit_count() <= k:
                high[w, mask] = _rank(mask, split, w, B)
    return split, low, high


@njit(cache=True, nogil=True)
def _rank(mask: int, shift: int, before: int, B: Ints) -> int:
    total = 0
    i = shift
    while mask:
        if mask & 1:
            before += 1
            total += B[i, before + 1]
        mask >>= 1
        i += 1
    return total
