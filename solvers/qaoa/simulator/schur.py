"""The complete-graph XY mixer, diagonalised by coupling spins one by one.

``M = -1/2 sum_{i<j} (X_i X_j + Y_i Y_j) = -(S^2 - S_z^2 - n/2)`` depends on the total spin only, so
the Gelfand-Tsetlin basis (the Schur transform, Bacon, Chuang and Harrow, PRL 97, 170502, 2006)
diagonalises it. Coupling spin i + 1 to the i before it is one sweep of real 2x2 rotations, the
Clebsch-Gordan coefficients of S x 1/2; n - 1 sweeps give the transform. The layout is that of
`solvers.qaoa.simulator.coupling`.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.problem import Floats
from solvers.qaoa.simulator.basis import Ints, binomials, popcount
from solvers.qaoa.simulator.coupling import CHUNK, rotations, sweep

Complexes = NDArray[np.complex128]

# Spins whose blocks stay in the first-level cache: C(13, 6) amplitudes are 27 kB.
CACHED = 13
# Spins coupled at once by a dense matrix of at most C(6, 3) = 20 rows: groups of one or two
# amplitudes are not worth a loop.
DENSE = 6


def eigenvalues(n: int, k: int) -> Floats:
    """Those of M at weight k for ``j = n/2 - S = 0 .. min(k, n - k)``."""
    S = n / 2 - np.arange(min(k, n - k) + 1)
    m = k - n / 2
    return -(S * (S + 1) - m * m - n / 2)


@njit(cache=True, nogil=True)
def _multiply(v: Floats, at: int, T: Floats, size: int, x: Floats, y: Floats) -> None:
    """``block <- T' block`` for `size` amplitudes from ``v[at]`` on."""
    for b in range(size):
        x[0, b] = v[at + 2 * b]
        x[1, b] = v[at + 2 * b + 1]
    y[:, :size] = 0
    for b in range(size):
        real, imag = x[0, b], x[1, b]
        for a in range(size):
            y[0, a] += T[b, a] * real
            y[1, a] += T[b, a] * imag
    for a in range(size):
        v[at + 2 * a] = y[0, a]
        v[at + 2 * a + 1] = y[1, a]


def _coupled(n: int, B: Ints, cs: Floats) -> Floats:
    """The transform of n spins as matrices: row b of ``[w]`` is the image of unit vector b."""
    width = B[n, n // 2 + 1]
    T = np.zeros((n + 1, width, width))
    R, small = np.empty(2 * width), np.empty(CHUNK)
    v = np.empty(2 * width)
    for w in range(n + 1):
        size = int(B[n, w + 1])
        for b in range(size):
            v[:] = 0
            v[2 * b] = 1
            for i in range(1, n):
                sweep(v, 0, n, w, i, False, B, cs, R, small)
            T[w, b, :size] = v[: 2 * size : 2]
    return T


def tables(n: int) -> tuple[Ints, Floats, Floats, Floats]:
    """Binomials, rotations, small transforms and their inverses, for n spins in quarters."""
    B, cs = binomials(n), rotations(n)
    T = _coupled(min(max(n - 2, 0), DENSE), B, cs)
    return B, cs, T, np.ascontiguousarray(T.transpose(0, 2, 1))


def scratch_size(n: int) -> tuple[int, int]:
    """Floats of scratch to couple n spins: for a quarter, and for a half."""
    quarter, half = max(n - 3, 0), max(n - 2, 0)
    return 2 * comb(quarter, quarter // 2), 2 * comb(half, half // 2)


@njit(cache=True, nogil=True)
def transform(
    v: Floats,
    at: int,
    n: int,
    k: int,
    back: bool,
    tables: tuple[Ints, Floats, Floats, Floats],
    R: Floats,
) -> None:
    """Couples n spins at weight k in place, or undoes it.

    Args:
        v: the vector's real and imaginary parts in turn; C(n, k) amplitudes from ``v[at]`` on.
        at: even.
        n: number of spins.
        k: their weight, 0 <= k <= n.
        back: whether to undo.
        tables: `tables` of n + 2, of which this is a quarter.
        R: scratch, see `scratch_size`.
    """
    if k <= 0 or k >= n:
        return
    B, cs, forth, undo = tables
    dense, inner = min(n, DENSE), min(n, CACHED)
    small = np.empty(CHUNK)
    if back:
        for i in range(n - 1, inner - 1, -1):
            sweep(v, at, n, k, i, back, B, cs, R, small)
    block = at
    for top in range(1 << (n - inner)):
        w = k - popcount(top)
        if w < 0 or w > inner:
            continue
        if back:
            for i in range(inner - 1, dense - 1, -1):
                sweep(v, block, inner, w, i, back, B, cs, R, small)
        _multiply_all(v, block, inner, w, dense, B, undo if back else forth)
        if not back:
            for i in range(dense, inner):
                sweep(v, block, inner, w, i, back, B, cs, R, small)
        block += 2 * B[inner, w + 1]
    if not back:
        for i in range(inner, n):
            sweep(v, at, n, k, i, back, B, cs, R, small)


@njit(cache=True, nogil=True)
def halve(
    v: Floats,
    at: int,
    n: int,
    k: int,
    back: bool,
    tables: tuple[Ints, Floats, Floats, Floats],
    R: Floats,
) -> None:
    """Couples the last of n spins, or undoes it; the two halves are transformed already."""
    if 0 < k < n:
        B, cs, _, _ = tables
        sweep(v, at, n, k, n - 1, back, B, cs, R, np.empty(CHUNK))


@njit(cache=True, nogil=True)
def _multiply_all(v: Floats, at: int, n: int, k: int, dense: int, B: Ints, T: Floats) -> None:
    x, y = np.empty((2, T.shape[1])), np.empty((2, T.shape[1]))
    for top in range(1 << (n - dense)):
        w = k - popcount(top)
        if 0 <= w <= dense:
            size = B[dense, w + 1]
            if size > 1:
                _multiply(v, at, T[w], size, x, y)
            at += 2 * size


@njit(cache=True, nogil=True)
def rotate_top(v: Complexes, n: int, k: int, B: Ints, cs: Floats, factors: Complexes) -> None:
    """Couples the last spin, multiplies group j by ``factors[j]``, uncouples it.

    The two halves of `v` are coupled already. Nothing is moved, so no scratch is needed.
    """
    i, w = n - 1, k
    middle = B[i, w + 1]
    a, b = min(w, i - w), min(w - 1, i - w + 1)
    for j in range(max(a, b) + 1):
        for e in range(B[i, j], B[i, j + 1]):
            if j > a:
                v[middle + e] *= factors[j]
            elif j > b:
                v[e] *= factors[j]
            else:
                c, s = cs[i, w, j, 0], cs[i, w, j, 1]
                L, R = v[e], v[middle + e]
                U, D = (c * R + s * L) * factors[j], (c * L - s * R) * factors[j + 1]
                v[e] = s * U + c * D
                v[middle + e] = c * U - s * D


@njit(cache=True, nogil=True)
def overlap_top(
    psi: Complexes, lam: Complexes, n: int, k: int, B: Ints, cs: Floats, values: Floats
) -> float:
    """``Im <lam| M |psi>`` for `values`, the eigenvalue of each group; halves coupled already."""
    i, w = n - 1, k
    middle = B[i, w + 1]
    a, b = min(w, i - w), min(w - 1, i - w + 1)
    total = 0.0
    for j in range(max(a, b) + 1):
        for e in range(B[i, j], B[i, j + 1]):
            if j > a:
                total += values[j] * (lam[middle + e].conjugate() * psi[middle + e]).imag
            elif j > b:
                total += values[j] * (lam[e].conjugate() * psi[e]).imag
            else:
                c, s = cs[i, w, j, 0], cs[i, w, j, 1]
                L, R = psi[e], psi[middle + e]
                M, N = lam[e], lam[middle + e]
                up = (c * N + s * M).conjugate() * (c * R + s * L)
                down = (c * M - s * N).conjugate() * (c * L - s * R)
                total += values[j] * up.imag + values[j + 1] * down.imag
    return total
