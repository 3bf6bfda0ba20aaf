"""Compiled loops on state vectors.

A kernel works on a range ``start..stop-1`` so that several threads can share a vector, and frees
the interpreter lock. Each ``..._back`` kernel undoes its gate on ``psi`` and on the adjoint vector
``lam`` and returns its part of ``Im <lam| M |psi>``, half the derivative of the expectation.
"""

from __future__ import annotations

from math import cos, sin

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.problem import Floats
from solvers.qaoa.basis import Ints, Masks

Complexes = NDArray[np.complex128]


@njit(cache=True, nogil=True)
def phase(psi: Complexes, costs: Floats, gamma: float, start: int, stop: int) -> None:
    """``psi <- exp(-i gamma C) psi``."""
    for r in range(start, stop):
        t = gamma * costs[r]
        psi[r] *= complex(cos(t), -sin(t))


@njit(cache=True, nogil=True)
def phase_back(
    psi: Complexes, lam: Complexes, costs: Floats, gamma: float, start: int, stop: int
) -> float:
    """Undoes `phase` on both vectors; ``Im <lam| C |psi>``."""
    total = 0.0
    for r in range(start, stop):
        a, b = psi[r], lam[r]
        total += costs[r] * (b.real * a.imag - b.imag * a.real)
        t = gamma * costs[r]
        z = complex(cos(t), sin(t))
        psi[r] = a * z
        lam[r] = b * z
    return total


@njit(cache=True, nogil=True)
def expectation(psi: Complexes, costs: Floats, start: int, stop: int) -> float:
    """``<psi| C |psi>``."""
    total = 0.0
    for r in range(start, stop):
        total += costs[r] * (psi[r].real ** 2 + psi[r].imag ** 2)
    return total


@njit(cache=True, nogil=True)
def flip(psi: Complexes, bit: int, c: float, s: float, start: int, stop: int) -> None:
    """``exp(i beta X)`` on one qubit, pairs start..stop-1 of the 2^(n-1); c, s of beta."""
    stride = 1 << bit
    for r in range(start, stop):
        a = ((r >> bit) << (bit + 1)) | (r & (stride - 1))
        b = a + stride
        u, v = psi[a], psi[b]
        psi[a] = complex(c * u.real - s * v.imag, c * u.imag + s * v.real)
        psi[b] = complex(c * v.real - s * u.imag, c * v.imag + s * u.real)


@njit(cache=True, nogil=True)
def overlap_flip(psi: Complexes, lam: Complexes, bit: int, start: int, stop: int) -> float:
    """``Im <lam| -X |psi>`` on one qubit."""
    stride = 1 << bit
    total = 0.0
    for r in range(start, stop):
        a = ((r >> bit) << (bit + 1)) | (r & (stride - 1))
        b = a + stride
        total -= (lam[a].conjugate() * psi[b] + lam[b].conjugate() * psi[a]).imag
    return total


@njit(cache=True, nogil=True, inline="always")
def _partner(mask: int, pair: int, split: int, low: Ints, high: Ints) -> int:
    swapped = mask ^ pair
    bottom = swapped & ((1 << split) - 1)
    ones = 0
    rest = bottom
    while rest:
        rest &= rest - 1
        ones += 1
    return low[bottom] + high[ones, swapped >> split]


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
