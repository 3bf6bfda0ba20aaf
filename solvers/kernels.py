"""Compiled inner loops on the fields ``f = G x + c`` of a problem, ``G = A'A``.

Every kernel takes the pair ``(F, G)``: ``F = A'`` with shape (n, r) for a low-rank problem and an
empty ``G``, or an empty ``F`` and the dense ``G`` (n, n). Nothing of size n^2 is built where the
rank is low. States are bool arrays, changed in place.

Flipping i in changes the energy by ``f_i + G_ii / 2``, out by ``-f_i + G_ii / 2``; a swap (i out,
j in) by the sum of both less ``G_ij``.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.problem import Bools, CardinalityProblem, Floats

# Building G costs n^2 r and one pass over n^2 memory, after which a flip costs n instead of n r.
# Measured at n = 256, 1024 and 4096: greedy and descent from a random start gain from r = 48 on,
# annealing loses little; below, G pays only where it is no larger than the factor.
DENSE_RANK = 48
MAX_DENSE_VARIABLES = 8192


def couplings(problem: CardinalityProblem, dense: bool | None = None) -> tuple[Floats, Floats]:
    """The pair ``(F, G)`` of a problem.

    Args:
        problem: n variables.
        dense: whether to build G; None builds it where it is given or saves a search time.
    """
    if dense is None:
        dense = problem.factor is None or (
            problem.n <= MAX_DENSE_VARIABLES and problem.rank >= min(problem.n / 2, DENSE_RANK)
        )
    if dense:
        return np.empty((0, 0)), np.ascontiguousarray(problem.gram())
    assert problem.factor is not None
    return np.ascontiguousarray(problem.factor.T), np.empty((0, 0))


@njit(cache=True, nogil=True, inline="always")
def coupling(F: Floats, G: Floats, i: int, j: int) -> float:
    """``G_ij``."""
    if G.shape[0] > 0:
        return G[i, j]
    total = 0.0
    for r in range(F.shape[1]):
        total += F[i, r] * F[j, r]
    return total


@njit(cache=True, nogil=True)
def add_column(F: Floats, G: Floats, f: Floats, i: int, sign: float) -> None:
    """``f += sign * G[:, i]``: x_i went up (sign 1) or down (sign -1)."""
    if G.shape[0] > 0:
        for j in range(len(f)):
            f[j] += sign * G[i, j]
        return
    for j in range(len(f)):
        total = 0.0
        for r in range(F.shape[1]):
            total += F[i, r] * F[j, r]
        f[j] += sign * total


@njit(cache=True, nogil=True)
def greedy_fill(F: Floats, G: Floats, d: Floats, f: Floats, x: Bools, k: int) -> None:
    """Adds or removes the variable of best energy change until x has k ones.

    Args:
        F: couplings, see the module.
        G: couplings, see the module.
        d: diagonal of G, shape (n,).
        f: fields at x, shape (n,); kept up to date.
        x: state, any weight; changed in place.
        k: ones wanted.
    """
    count = int(x.sum())
    while count != k:
        sign = 1.0 if count < k else -1.0
        best, best_delta = -1, np.inf
        for i in range(len(f)):
            if x[i] == (sign < 0):
                delta = sign * f[i] + 0.5 * d[i]
                if delta < best_delta:
                    best, best_delta = i, delta
        x[best] = sign > 0
        count += int(sign)
        add_column(F, G, f, best, sign)


@njit(cache=True, nogil=True)
def _best_partner(
    F: Floats, G: Floats, d: Floats, b: Floats, f: Floats, x: Bools, i: int, best: float
) -> tuple[int, float]:
    """The j whose swap with i changes the energy by less than `best`, or -1; and that change."""
    sign = 1.0 if not x[i] else -1.0
    own = sign * f[i] + 0.5 * d[i]
    partner = -1
    for j in range(len(f)):
        if x[j] != x[i]:
            bare = own - sign * f[j] + 0.5 * d[j]
            if bare - b[i] * b[j] < best:
                delta = bare - coupling(F, G, i, j)
                if delta < best:
                    partner, best = j, delta
    return partner, best


@njit(cache=True, nogil=True)
def swap_descent(
    F: Floats,
    G: Floats,
    d: Floats,
    b: Floats,
    f: Floats,
    x: Bools,
    tolerance: float,
    max_swaps: int,
) -> tuple[int, bool]:
    """Swaps that lower the energy, until none is left or `max_swaps` were made.

    Each step takes the better of two greedy swaps: the best partner of the one that is cheapest to
    remove, and of the zero that is cheapest to add. When neither helps, every pair is checked, so
    the final state is a true local optimum of the swap neighbourhood. ``|G_ij| <= b_i b_j`` rules
    out most pairs without their inner product.

    Args:
        F: couplings, see the module.
        G: couplings, see the module.
        d: diagonal of G, shape (n,).
        b: coupling bounds, shape (n,).
        f: fields at x, shape (n,); kept up to date.
        x: feasible state; changed in place.
        tolerance: a swap must lower the energy by more than this.
        max_swaps: swaps to make at the most.

    Returns:
        Swaps made, and whether x is a local optimum.
    """
    n = len(f)
    b_max = b.max()
    for swaps in range(max_swaps):
        out, into = -1, -1
        out_delta, into_delta = np.inf, np.inf
        for i in range(n):
            if x[i]:
                if -f[i] + 0.5 * d[i] < out_delta:
                    out, out_delta = i, -f[i] + 0.5 * d[i]
            elif f[i] + 0.5 * d[i] < into_delta:
                into, into_delta = i, f[i] + 0.5 * d[i]
        if out < 0 or into < 0:
            return swaps, True
        j, delta = _best_partner(F, G, d, b, f, x, out, -tolerance)
        i, _ = _best_partner(F, G, d, b, f, x, into, delta)
        if i >= 0:
            out = i
        elif j >= 0:
            into = j
        else:
            partner = -1
            for i in range(n):
                if x[i] and -f[i] + 0.5 * d[i] + into_delta - b[i] * b_max < -tolerance:
                    partner, _ = _best_partner(F, G, d, b, f, x, i, -tolerance)
                    if partner >= 0:
                        out, into = i, partner
                        break
            if partner < 0:
                return swaps, True
        x[out], x[into] = False, True
        add_column(F, G, f, out, -1.0)
        add_column(F, G, f, into, 1.0)
    return max_swaps, False


@njit(cache=True, nogil=True)
def next_random(state: NDArray[np.uint64]) -> np.uint64:
    """SplitMix64 (Steele, Lea and Flood, 2014): 64 random bits; `state` is one word."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def random_below(state: NDArray[np.uint64], n: int) -> int:
    """Uniform whole number in 0..n-1 for n < 2^32 (multiply-shift; bias below 2^-32)."""
    return int(((next_random(state) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@njit(cache=True, nogil=True)
def random_unit(state: NDArray[np.uint64]) -> float:
    """Uniform in [0, 1) with 53 bits."""
    return float(next_random(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
