"""The doubly non-negative relaxation by alternating directions.

With x' = 1 - x and z = (1, x, x'), every feasible x gives a matrix ``Y = zz'`` that is positive
semidefinite, has no negative entry (products of x_i, x'_i with x_j, x'_j: McCormick 1976), and
lies in the range of ``L V``: ``z = L y``, y = (1, x), V a basis of the y with ``v_g'y = 0``. The
relaxation minimises the energy over all such Y. Alternating directions (Oliveira, Wolkowicz and Xu
2018) split Y from ``R = (LV) R_ (LV)'``, R_ positive semidefinite:

    R = projection of Y + (N - C) / beta          one eigendecomposition, of order n
    Y = projection of R - N / beta                entry by entry
    N = beta (Y - (R - N / beta))

so that N, the multiplier of what is asked of Y's entries, is non-negative and complementary to Y.
One matrix ``T = R - N / beta`` holds both: Y is its projection, mostly its positive part, N what
was cut off. R is over-relaxed (Eckstein and Bertsekas 1992), and beta balances the residuals.

Columns of the energy differ by orders of magnitude. Distances are therefore measured with weights
``(d_i d_j)^2``, d near the scale of the columns, which are 1 on the side of x': Y's projection
stays what it is, and R is a projection in the basis D L V, made orthonormal.

N gives a certificate (`solvers.exact.certificate`): what is left of ``C - N`` in the range of V,
its negative part cut off, is ``B'B``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import eigh, qr, solve_triangular

from solvers.arithmetic.convex import row_scales
from solvers.exact.certificate import Floats, Form, Stage
from solvers.exact.projection import orthonormal, positive_part, weighted

OVER_RELAXATION = 1.8
# Weights: power of the columns' scales, and the most that those may differ from their median.
SCALE_POWER = 0.7
SCALE_LEAST, SCALE_MOST = 1e-2, 1e3
# Where beta starts, in units of the energy: too large a start leaves far too large an N.
FIRST_BETA = 0.2
# Iterations between two looks at the residuals; Y - R is to be so many times beta times the change
# of Y, up to a factor that is left alone; and the factor of a change of beta.
BALANCE_EVERY, RESIDUALS, BALANCED, BALANCE_FACTOR = 20, 5.0, 1.2, 1.5
# Cubes of the order that the set-up makes a second, low on purpose; a bound takes about as long.
SETUP_RATE = 1e9

Matrix = NDArray[Any]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def advance(
    R: Matrix, d: Matrix, over: Any, under: Any, XX: Matrix, XO: Matrix, OO: Matrix, x0: Matrix,
    o0: Matrix, corner: Matrix, y: Matrix, A: Matrix,
) -> tuple[float, float]:  # fmt: skip
    """T from R, and what of it goes into the next R.

    Args:
        R: in the terms of (1, x), shape (n + 1, n + 1).
        d: weights of the columns of x, shape (n,).
        over: weight of R.
        under: 1 less that, of the Y before.
        XX: T between x and x, shape (n, n).
        XO: T between x and x'.
        OO: T between x' and x'.
        x0: T between 1 and x, shape (n,).
        o0: T between 1 and x'.
        corner: T between 1 and 1, shape (1,).
        y: Y between 1 and x, shape (n,).
        A: gets ``2Y - T`` in the terms of (1, x), shape (n + 1, n + 1), not symmetric.

    Returns:
        Squares of the norms of Y - R and of Y's change.
    """
    n = len(d)
    zero, one = over - over, over + under
    two = one + one
    primal, dual = 0.0, 0.0
    whole = R[0, 0]
    t = over * whole + under - (one - corner[0])
    corner[0] = t
    A[0, 0] = two - t
    for i in range(n):
        di, ri = d[i], R[0, i + 1]
        row_b, row_c, row_primal, row_dual = zero, zero, zero, zero
        for j in range(n):
            r, dj = R[i + 1, j + 1], d[j]
            w = di * dj
            t = XX[i, j]
            before = t if t > zero else zero
            here = w * r
            t = over * here + under * before + (t - before)
            XX[i, j] = t
            after = t if t > zero else zero
            row_primal += (after - here) * (after - here)
            row_dual += (after - before) * (after - before)
            a = w * abs(t)
            t = XO[i, j]
            before = t if t > zero else zero
            here = di * (ri - r)
            t = over * here + under * before + (t - before)
            XO[i, j] = t
            after = t if t > zero else zero
            row_primal += two * (after - here) * (after - here)
            row_dual += two * (after - before) * (after - before)
            b = di * abs(t)
            t = OO[i, j]
            before = t if t > zero else zero
            here = whole - ri - R[0, j + 1] + r
            t = over * here + under * before + (t - before)
            OO[i, j] = t
            after = t if t > zero else zero
            row_primal += (after - here) * (after - here)
            row_dual += (after - before) * (after - before)
            c = abs(t)
            A[i + 1, j + 1] = a + c - two * b
            row_b += b
            row_c += c
        A[0, i + 1] = row_b - row_c
        A[0, 0] += row_c
        primal += row_primal
        dual += row_dual
    return primal, dual


@njit(cache=True, nogil=True)
def bend(
    R: Matrix, d: Matrix, over: Any, under: Any, diagonals: Matrix, x0: Matrix, o0: Matrix,
    y: Matrix, XX: Matrix, XO: Matrix, OO: Matrix, A: Matrix,
) -> None:  # fmt: skip
    """`advance` on the entries that x_i alone decides: 1 with x and x', and the diagonals.

    Args:
        R: see `advance`.
        d: see `advance`.
        over: see `advance`.
        under: see `advance`.
        diagonals: of T: x with x, x with x', x' with x', shape (3, n); XX, XO and OO do not have
            them, whatever stands there.
        x0: see `advance`.
        o0: see `advance`.
        y: see `advance`.
        XX: see `advance`.
        XO: see `advance`.
        OO: see `advance`.
        A: corrected.
    """
    whole = R[0, 0]
    for i in range(len(d)):
        w, r, rr, was = d[i], R[0, i + 1], R[i + 1, i + 1], y[i]
        v = w * w
        x0[i] += over * w * r + (under - 1) * w * was
        o0[i] += over * (whole - r) + (under - 1) * (1 - was)
        diagonals[0, i] += over * v * rr + (under - 1) * v * was
        diagonals[1, i] += over * w * (r - rr)
        diagonals[2, i] += over * (whole - 2 * r + rr) + (under - 1) * (1 - was)
        a, b, c = diagonals[0, i], diagonals[1, i], diagonals[2, i]
        best = (2 * w * x0[i] + v * a - 2 * (o0[i] - 1) - (c - 1)) / (2 * v + v * v + 3)
        now = min(max(best, 0.0), 1.0)
        y[i] = now
        a, b, c = v * (2 * v * now - a), -w * b, 2 * (1 - now) - c
        # What `advance` has added for the diagonals, which are not its own.
        wrong_b, wrong_c = w * abs(XO[i, i]), abs(OO[i, i])
        p, q = w * (2 * w * now - x0[i]), 2 * (1 - now) - o0[i]
        A[i + 1, i + 1] = a + c - 2 * b
        A[0, i + 1] += b - wrong_b - (c - wrong_c) + p - q
        A[0, 0] += c - wrong_c + 2 * q


class AlternatingDirections:
    """The iteration on one form, from a uniform point or from where another one was.

    Args:
        own: of m variables, at least one of them not decided.
        start: an iteration on more variables, and the places in it of those that are left.

    Attributes:
        own: the form.
        y: the relaxed state, shape (m,) in [0, 1].
        iterations: made so far.
    """

    def __init__(self, own: Form, start: tuple[AlternatingDirections, Any] | None = None) -> None:
        self.own, self.iterations = own, 0
        m = len(own.free)
        v = own.constraints()
        self._normal, self._triangle = qr(v.T, mode="economic", check_finite=False)
        scales = _weights(own) if start is None else start[0]._d[start[1]].astype(np.float64)
        coordinates = weighted(v, scales)
        inner = coordinates.inner(own.C)
        self._unit = float(np.linalg.norm(inner)) / m or 1.0
        self._beta = FIRST_BETA
        single = np.float32
        self.y: Matrix
        self._d: Matrix = scales.astype(single)
        self._coordinates = coordinates.astype(single)
        self._inner = (inner / self._unit).astype(single)
        self._A = np.zeros((m + 1, m + 1), single)
        if start is None:
            self._begin(scales)
        else:
            self._go_on(*start)

    def _begin(self, d: Floats) -> None:
        own, single = self.own, np.float32
        m = len(own.free)
        sizes = np.bincount(own.groups, minlength=len(own.counts))
        share = own.counts / sizes
        y = share[own.groups]
        Y = np.outer(y, y)
        same = own.groups[:, None] == own.groups
        pairs = share * (own.counts - 1) / np.maximum(sizes - 1, 1)
        Y = np.where(same, pairs[own.groups][:, None], Y)
        np.fill_diagonal(Y, y)
        self._R: Matrix = np.ones((m + 1, m + 1), single)
        self._R[0, 1:] = self._R[1:, 0] = y
        self._R[1:, 1:] = Y
        self._XX = (Y * np.outer(d, d)).astype(single)
        self._XO = ((y[:, None] - Y) * d[:, None]).astype(single)
        self._OO = (1 - y[:, None] - y + Y).astype(single)
        self._x0, self._o0 = (d * y).astype(single), (1 - y).astype(single)
        self._diagonals = np.stack([d * d * y, 0 * y, 1 - y]).astype(single)
        self._corner = np.ones(1, single)
        self.y = y.astype(single)

    def _go_on(self, start: AlternatingDirections, keep: Any) -> None:
        grid = np.ix_(keep, keep)
        rows = np.concatenate([[0], 1 + keep])
        self._XX, self._XO, self._OO = start._XX[grid], start._XO[grid], start._OO[grid]
        self._x0, self._o0, self.y = start._x0[keep], start._o0[keep], start.y[keep]
        self._diagonals = np.ascontiguousarray(start._diagonals[:, keep])
        self._corner, self._R = start._corner.copy(), start._R[np.ix_(rows, rows)]
        self._beta = start._beta * start._unit / self._unit

    def step(self) -> None:
        """One iteration."""
        over, under = np.float32(OVER_RELAXATION), np.float32(1 - OVER_RELAXATION)
        T = (self._XX, self._XO, self._OO)
        vectors = (self._x0, self._o0)
        primal, dual = advance(
            self._R, self._d, over, under, *T, *vectors, self._corner, self.y, self._A
        )
        bend(self._R, self._d, over, under, self._diagonals, *vectors, self.y, *T, self._A)
        self._A[1:, 0] = self._A[0, 1:]
        S = self._coordinates.inner(self._A) - self._inner / np.float32(self._beta)
        values, vectors_ = positive_part(S)
        root = self._coordinates.points(vectors_ * np.sqrt(values))
        self._R = root @ root.T
        self.iterations += 1
        if self.iterations % BALANCE_EVERY == 0:
            ratio = np.sqrt(primal) / (RESIDUALS * self._beta * np.sqrt(dual) + 1e-300)
            if ratio > BALANCED:
                self._change_beta(BALANCE_FACTOR)
            elif ratio < 1 / BALANCED:
                self._change_beta(1 / BALANCE_FACTOR)

    def _change_beta(self, factor: float) -> None:
        """Another beta, the same Y and N."""
        self._beta *= factor
        share = np.float32(1 / factor)
        for T in (self._XX, self._XO, self._OO):
            np.multiply(T, share, out=T, where=T < 0)
        d, y = self._d, self.y
        for T, Y in (
            (self._x0, d * y),
            (self._o0, 1 - y),
            (self._diagonals, np.stack([d * d * y, 0 * y, 1 - y])),
            (self._corner, np.ones(1, np.float32)),
        ):
            T[...] = Y + (T - Y) * share

    def stage(self) -> Stage:
        """What N certifies."""
        m = len(self.own.free)
        d, y = self._d.astype(np.float64), self.y.astype(np.float64)
        scale = self._beta * self._unit
        each = np.arange(m)
        N = [np.maximum(-T.astype(np.float64), 0.0) for T in (self._XX, self._XO, self._OO)]
        N[0] *= scale * np.outer(d, d)
        N[1] *= scale * d[:, None]
        N[2] *= scale
        for T in N:
            T[each, each] = 0
        N[0], N[2] = 0.5 * (N[0] + N[0].T), 0.5 * (N[2] + N[2].T)
        a, b, c = self._diagonals.astype(np.float64)
        a, b, c = scale * d * d * (d * d * y - a), -scale * d * b, scale * (1 - y - c)
        p = scale * d * (d * y - self._x0)
        q = scale * (1 - y - self._o0)
        F = np.empty((m + 1, m + 1))
        F[1:, 1:] = N[0] - N[1] - N[1].T + N[2]
        F[1 + each, 1 + each] += a + c - 2 * b
        F[0, 1:] = N[1].sum(axis=1) - N[2].sum(axis=1) + b - c + p - q
        F[1:, 0] = F[0, 1:]
        F[0, 0] = N[2].sum() + c.sum() + 2 * q.sum() + scale * (1 - float(self._corner[0]))
        plain = orthonormal(self._normal)
        rest = self.own.C - F
        S = plain.inner(rest)
        values, vectors = eigh(S, driver="evd", check_finite=False)
        positive = values > 0
        squares = plain.points(vectors[:, positive] * np.sqrt(values[positive])).T
        across = plain.points(plain.points(S).T) - rest
        U = self._normal
        half = across @ U
        half -= 0.5 * U @ (U.T @ half)
        shifts = solve_triangular(self._triangle, half.T, check_finite=False)
        # Y has x with x', and x' with x.
        return Stage(squares, shifts, 2 * N[1], N[2])


def _weights(own: Form) -> Floats:
    """Weights of the columns, near 1 for most."""
    scales = row_scales(own.C[1:, 1:])
    middle = float(np.median(scales[own.C[1:, 1:].any(axis=1)])) if own.C[1:, 1:].any() else 1.0
    return np.asarray(np.clip(scales / middle, SCALE_LEAST, SCALE_MOST) ** SCALE_POWER)
