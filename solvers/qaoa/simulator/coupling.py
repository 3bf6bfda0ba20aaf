"""Coupling one more spin 1/2 to many: the sweeps of `solvers.qaoa.simulator.schur`, in place.

Layout. With i spins coupled, the block of fixed high bits and w ones in the low i bits has C(i, w)
amplitudes in a row, grouped by ``j = i/2 - S = 0 .. min(w, i - w)``. Group j starts at
``C(i, j - 1)`` and its ``f(i, j) = C(i, j) - C(i, j - 1)`` entries, one a coupling path, have the
same order for every w. Spin i joins the block L (its bit 0, w ones) with the block R (bit 1, w - 1
ones) right behind it. With ``c^2 = (w - j) / (i + 1 - 2j)`` and ``s^2 = 1 - c^2``

    U_j = c R_j + s L_j   (total spin up, j stays),    D_j = c L_j - s R_j   (j becomes j + 1)

and the new group j is U_j, then D_{j-1}.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.problem import Floats
from solvers.qaoa.simulator.basis import Ints, popcount

# Amplitudes copied at a time so that a merge can work in place and still be vectorised.
CHUNK = 256


def rotations(n: int) -> Floats:
    """``(c, s)`` of the module's docstring at ``[i, w, j]``, shape (n, n + 1, n // 2 + 1, 2)."""
    i, w, j = np.ogrid[:n, : n + 1, : n // 2 + 1]
    wide = np.maximum(i + 1 - 2 * j, 1)
    squared = np.stack([(w - j) / wide, (i + 1 - w - j) / wide], axis=-1)
    return np.sqrt(np.clip(squared, 0, 1))


@njit(cache=True, nogil=True)
def _join(v: Floats, at: int, i: int, w: int, B: Ints, cs: Floats, R: Floats, L: Floats) -> None:
    """L (w ones) and R (w - 1 ones) of i spins become a block of i + 1; two floats an amplitude.

    From the last group to the first every target lies at or behind what is still to be read.
    """
    left, right = B[i, w + 1], B[i, w]
    middle = at + 2 * left
    for e in range(2 * right):
        R[e] = v[middle + e]
    a, b = min(w, i - w), min(w - 1, i - w + 1)
    for j in range(max(a, b), -1, -1):
        source = 2 * B[i, j]
        size = 2 * B[i, j + 1] - source
        up = at + 2 * B[i + 1, j]
        if j > a:
            for e in range(size):
                v[up + e] = R[source + e]
            continue
        c, s = cs[i, w, j, 0], cs[i, w, j, 1]
        down = at + 2 * (B[i + 1, j + 1] + B[i, j + 2] - B[i, j + 1])
        begin = (size - 1) // CHUNK * CHUNK
        for first in range(begin, -1, -CHUNK):
            count = min(CHUNK, size - first)
            for e in range(count):
                L[e] = v[at + source + first + e]
            if j > b:
                for e in range(count):
                    v[up + first + e] = L[e]
            else:
                for e in range(count):
                    v[up + first + e] = c * R[source + first + e] + s * L[e]
                for e in range(count):
                    v[down + first + e] = c * L[e] - s * R[source + first + e]


@njit(cache=True, nogil=True)
def _part(v: Floats, at: int, i: int, w: int, B: Ints, cs: Floats, R: Floats, U: Floats) -> None:
    """Undoes `_join`, from the first group to the last."""
    left, right = B[i, w + 1], B[i, w]
    a, b = min(w, i - w), min(w - 1, i - w + 1)
    for j in range(max(a, b) + 1):
        target = 2 * B[i, j]
        size = 2 * B[i, j + 1] - target
        up = at + 2 * B[i + 1, j]
        if j > a:
            for e in range(size):
                R[target + e] = v[up + e]
            continue
        c, s = cs[i, w, j, 0], cs[i, w, j, 1]
        down = at + 2 * (B[i + 1, j + 1] + B[i, j + 2] - B[i, j + 1])
        for first in range(0, size, CHUNK):
            count = min(CHUNK, size - first)
            for e in range(count):
                U[e] = v[up + first + e]
            if j > b:
                for e in range(count):
                    v[at + target + first + e] = U[e]
            else:
                for e in range(count):
                    R[target + first + e] = c * U[e] - s * v[down + first + e]
                for e in range(count):
                    v[at + target + first + e] = s * U[e] + c * v[down + first + e]
    middle = at + 2 * left
    for e in range(2 * right):
        v[middle + e] = R[e]


@njit(cache=True, nogil=True)
def sweep(
    v: Floats,
    at: int,
    n: int,
    k: int,
    i: int,
    back: bool,
    B: Ints,
    cs: Floats,
    R: Floats,
    small: Floats,
) -> None:
    """Joins (or parts) spin i in every block of the n low spins at `at`."""
    for top in range(1 << (n - 1 - i)):
        w = k - popcount(top)
        if w < 0 or w > i + 1:
            continue
        if 0 < w < i + 1:
            if back:
                _part(v, at, i, w, B, cs, R, small)
            else:
                _join(v, at, i, w, B, cs, R, small)
        at += 2 * B[i + 1, w + 1]
