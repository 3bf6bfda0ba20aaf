"""Compiled loops on state vectors.

A kernel works on a range ``start..stop-1`` so that several threads can share a vector, and frees
the interpreter lock. Each ``..._back`` kernel undoes its gate on ``psi`` and on the adjoint vector
``lam`` and returns its part of ``Im <lam| M |psi>``, half the derivative of the expectation.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.problem import Floats
from solvers.qaoa.simulator.basis import Ints, Masks, first_of, popcount

Complexes = NDArray[np.complex128]


# pi/2 in three parts; the first two end in 30 zero bits, so small multiples of them are exact.
_HALF_PI = (1.570796251296997, 7.549789415861596e-08, 5.390302858158119e-15)
# Adding and subtracting it rounds a double to the next integer, in one vector instruction each.
_ROUND = 1.5 * 2.0**52
# Ratios of successive Taylor terms of the cosine and of the sine, last one first.
_COS = tuple(-1 / ((m - 1) * m) for m in range(16, 0, -2))
_SIN = tuple(-1 / ((m - 1) * m) for m in range(17, 1, -2))
_CHUNK = 256


@njit(cache=True, nogil=True)
def _cos_sin(costs: Floats, gamma: float, start: int, c: Floats, s: Floats, count: int) -> None:
    """Cosine and sine of ``t = gamma costs[start + e]`` to 3e-16 where |t| < 1e6.

    ``t = q pi/2 + x`` with |x| <= pi/4, then Taylor series; no branch, so that it is vectorised.
    """
    for e in range(count):
        t = gamma * costs[start + e]
        q = (t * (2 / np.pi) + _ROUND) - _ROUND
        x = ((t - q * _HALF_PI[0]) - q * _HALF_PI[1]) - q * _HALF_PI[2]
        y = x * x
        even, odd = 1.0, 1.0
        for a in _COS:
            even = 1 + a * y * even
        for a in _SIN:
            odd = 1 + a * y * odd
        odd *= x
        # floor(q/2) and floor((q+1)/2): the quadrant decides which series, and the signs.
        half = (q * 0.5 - 0.25 + _ROUND) - _ROUND
        next_half = (q * 0.5 + 0.25 + _ROUND) - _ROUND
        swap = q - 2 * half
        minus_s = half - 2 * ((half * 0.5 - 0.25 + _ROUND) - _ROUND)
        minus_c = next_half - 2 * ((next_half * 0.5 - 0.25 + _ROUND) - _ROUND)
        c[e] = (1 - 2 * minus_c) * (even * (1 - swap) + odd * swap)
        s[e] = (1 - 2 * minus_s) * (odd * (1 - swap) + even * swap)


@njit(cache=True, nogil=True)
def phase(psi: Complexes, costs: Floats, gamma: float, start: int, stop: int) -> None:
    """``psi <- exp(-i gamma C) psi``."""
    c, s = np.empty(_CHUNK), np.empty(_CHUNK)
    for first in range(start, stop, _CHUNK):
        count = min(_CHUNK, stop - first)
        _cos_sin(costs, gamma, first, c, s, count)
        for e in range(count):
            a = psi[first + e]
            psi[first + e] = complex(a.real * c[e] + a.imag * s[e], a.imag * c[e] - a.real * s[e])


@njit(cache=True, nogil=True)
def phase_back(
    psi: Complexes, lam: Complexes, costs: Floats, gamma: float, start: int, stop: int
) -> float:
    """Undoes `phase` on both vectors; ``Im <lam| C |psi>``."""
    c, s = np.empty(_CHUNK), np.empty(_CHUNK)
    total = 0.0
    for first in range(start, stop, _CHUNK):
        count = min(_CHUNK, stop - first)
        _cos_sin(costs, gamma, first, c, s, count)
        for e in range(count):
            a, b = psi[first + e], lam[first + e]
            total += costs[first + e] * (b.real * a.imag - b.imag * a.real)
            psi[first + e] = complex(a.real * c[e] - a.imag * s[e], a.imag * c[e] + a.real * s[e])
            lam[first + e] = complex(b.real * c[e] - b.imag * s[e], b.imag * c[e] + b.real * s[e])
    return total


@njit(cache=True, nogil=True)
def expectation(psi: Complexes, costs: Floats, start: int, stop: int) -> float:
    """``<psi| C |psi>``."""
    total = 0.0
    for r in range(start, stop):
        total += costs[r] * (psi[r].real ** 2 + psi[r].imag ** 2)
    return total


@njit(cache=True, nogil=True, inline="always")
def _turn(psi: Complexes, a: int, b: int, count: int, c: float, s: float) -> None:
    """``[[c, i s], [i s, c]]`` on the pairs ``(a, b), (a + 1, b + 1), ...``."""
    for e in range(count):
        u, v = psi[a + e], psi[b + e]
        psi[a + e] = complex(c * u.real - s * v.imag, c * u.imag + s * v.real)
        psi[b + e] = complex(c * v.real - s * u.imag, c * v.imag + s * u.real)


@njit(cache=True, nogil=True, inline="always")
def _cross(psi: Complexes, lam: Complexes, a: int, b: int, count: int) -> float:
    """``Im sum lam_a* psi_b + lam_b* psi_a`` over the pairs of `_turn`."""
    total = 0.0
    for e in range(count):
        u, v, x, y = psi[a + e], psi[b + e], lam[a + e], lam[b + e]
        total += x.real * v.imag - x.imag * v.real + y.real * u.imag - y.imag * u.real
    return total


@njit(cache=True, nogil=True)
def flip(psi: Complexes, bit: int, c: float, s: float, start: int, stop: int) -> None:
    """``exp(i beta X)`` on one qubit, pairs start..stop-1 of the 2^(n-1); c, s of beta."""
    stride = 1 << bit
    r = start
    while r < stop:
        count = min(stride - (r & (stride - 1)), stop - r)
        a = r + (r >> bit << bit)
        _turn(psi, a, a + stride, count, c, s)
        r += count


@njit(cache=True, nogil=True)
def overlap_flip(psi: Complexes, lam: Complexes, bit: int, start: int, stop: int) -> float:
    """``Im <lam| -X |psi>`` on one qubit."""
    stride = 1 << bit
    total = 0.0
    r = start
    while r < stop:
        count = min(stride - (r & (stride - 1)), stop - r)
        a = r + (r >> bit << bit)
        total -= _cross(psi, lam, a, a + stride, count)
        r += count
    return total


@njit(cache=True, nogil=True)
def neighbours(
    psi: Complexes, i: int, n: int, k: int, B: Ints, c: float, s: float, start: int, stop: int
) -> None:
    """As `exchange` on the qubits i and i + 1, for blocks start..stop-1 of equal higher bits.

    A block with w ones in its low i + 2 bits holds C(i, w) states with 00 there, then C(i, w - 1)
    with 01 and as many with 10 in the same order.
    """
    at = first_of(start, i + 2, n, k, B)
    for top in range(start, stop):
        w = k - popcount(top)
        if 0 <= w <= i + 2:
            if 0 < w < i + 2:
                a, count = at + B[i, w + 1], B[i, w]
                _turn(psi, a, a + count, count, c, s)
            at += B[i + 2, w + 1]


@njit(cache=True, nogil=True)
def neighbours_back(
    psi: Complexes,
    lam: Complexes,
    i: int,
    n: int,
    k: int,
    B: Ints,
    c: float,
    s: float,
    start: int,
    stop: int,
) -> float:
    """Undoes `neighbours` on both vectors; ``Im <lam| -(XX + YY)/2 |psi>``."""
    total = 0.0
    at = first_of(start, i + 2, n, k, B)
    for top in range(start, stop):
        w = k - popcount(top)
        if 0 <= w <= i + 2:
            if 0 < w < i + 2:
                a, count = at + B[i, w + 1], B[i, w]
                total -= _cross(psi, lam, a, a + count, count)
                _turn(psi, a, a + count, count, c, -s)
                _turn(lam, a, a + count, count, c, -s)
            at += B[i + 2, w + 1]
    return total


@njit(cache=True, nogil=True, inline="always")
def _partner(mask: int, pair: int, split: int, low: Ints, high: Ints) -> int:
    swapped = mask ^ pair
    bottom = swapped & ((1 << split) - 1)
    return low[bottom] + high[popcount(bottom), swapped >> split]


@njit(cache=True, nogil=True)
def exchange(
    psi: Complexes,
    masks: Masks,
    tables: tuple[int, Ints, Ints],
    edge: tuple[int, int],
    c: float,
    s: float,
    start: int,
    stop: int,
) -> None:
    """``exp(i beta (XX + YY)/2)`` on one pair of qubits; c, s of beta."""
    first, second = 1 << edge[0], 1 << edge[1]
    pair = first | second
    split, low, high = tables
    for r in range(start, stop):
        mask = np.int64(masks[r])
        if mask & pair == first:
            q = _partner(mask, pair, split, low, high)
            u, v = psi[r], psi[q]
            psi[r] = complex(c * u.real - s * v.imag, c * u.imag + s * v.real)
            psi[q] = complex(c * v.real - s * u.imag, c * v.imag + s * u.real)


@njit(cache=True, nogil=True)
def exchange_back(
    psi: Complexes,
    lam: Complexes,
    masks: Masks,
    tables: tuple[int, Ints, Ints],
    edge: tuple[int, int],
    c: float,
    s: float,
    start: int,
    stop: int,
) -> float:
    """Undoes `exchange` on both vectors; ``Im <lam| -(XX + YY)/2 |psi>``."""
    first, second = 1 << edge[0], 1 << edge[1]
    pair = first | second
    split, low, high = tables
    total = 0.0
    for r in range(start, stop):
        mask = np.int64(masks[r])
        if mask & pair == first:
            q = _partner(mask, pair, split, low, high)
            u, v, a, b = psi[r], psi[q], lam[r], lam[q]
            total -= a.real * v.imag - a.imag * v.real + b.real * u.imag - b.imag * u.real
            psi[r] = complex(c * u.real + s * v.imag, c * u.imag - s * v.real)
            psi[q] = complex(c * v.real + s * u.imag, c * v.imag - s * u.real)
            lam[r] = complex(c * a.real + s * b.imag, c * a.imag - s * b.real)
            lam[q] = complex(c * b.real + s * a.imag, c * b.imag - s * a.real)
    return total


@njit(cache=True, nogil=True)
def shift(psi: Complexes, by: complex, start: int, stop: int) -> None:
    """Adds one number to every amplitude."""
    for r in range(start, stop):
        psi[r] += by
