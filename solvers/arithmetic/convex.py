"""A convex quadratic below the energy, and what rounding may do to either.

For every vector ``s`` in R^r, ``1/2 ||A x||^2 >= s.(A x) - 1/2 ||s||^2``, hence for feasible x

    E(x) >= -1/2 ||s||^2 + h.x,   h = A's + c

and the k smallest entries of h give a bound on the optimum. In floating point h is taken too small
by all that rounding may have added (`Convex.reduced_costs`), so that whatever is concluded from it
holds for the numbers of the problem as they stand, however far apart their scales.

A dense ``G`` has no factor. It is scaled to entries of at most about 1, by powers of two, so that a
column of large numbers spoils no other; then factored by Cholesky with pivots. Where it is
indefinite it is made convex first by ``x_i^2 = x_i``: ``G + t D^2`` and ``c - t d^2 / 2`` have the
same energies on binary x (Hammer and Rubin 1970), t the least eigenvalue of the scaled matrix.
The factor's backward error is at most ``(n + 1) u`` of each entry's scale (Higham 2002, theorem
10.3), which counts as rounding does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, eigh
from scipy.linalg.lapack import dpstrf

from solvers.clock.background import computed, fits, one_thread
from solvers.clock.deadline import NEVER, Deadline
from solvers.problem import Bools, CardinalityProblem, Floats

Places = NDArray[np.intp]

EQUAL = 1e-10
"""Energies closer than this share of the terms at the best state are equal, see `Value.terms`."""
UNIT = 2.0**-52
LONG_UNIT = float(np.finfo(np.longdouble).eps)
# Passes that bring the largest entry of every row near 1.
SCALING_PASSES = 5
# What sums may lose to underflow; nothing smaller is ever proved.
UNDERFLOW = 1e-300
# Entries of the scaled matrix left unexplained by a factor: beyond this share it is indefinite.
INDEFINITE = 1e-10
# Cubes of the order that one core makes a second, low on purpose: a factor, the least eigenvalue,
# all of them with their vectors.
CHOLESKY_RATE = 2e10
LEAST_RATE = 5e9
EIGEN_RATE = 1.5e9


@dataclass(frozen=True)
class Value:
    """The energy of a state, without the problem's offset.

    Attributes:
        energy: E(x) - offset, rounded.
        error: how far it may be from the exact one.
        terms: ``|1/2 x'G x| + sum |c_i|`` over the ones: what a relative difference refers to.
            Where that is 0, the least coefficient of the problem that is not.
    """

    energy: float
    error: float
    terms: float

    @property
    def tolerance(self) -> float:
        """Energy differences below this are no differences."""
        return EQUAL * self.terms


def value(problem: CardinalityProblem, x: Bools) -> Value:
    """The energy of a state, sums in extended precision where double precision does not suffice.

    Args:
        problem: its offset does not count.
        x: shape (n,) of bool.
    """
    ones = np.flatnonzero(x)
    linear = problem.linear[ones]
    costs, size = float(linear.sum()), float(np.abs(linear).sum())
    k = len(ones)
    unit = UNIT * (k + problem.rank + 8)
    if problem.factor is not None:
        s = problem.factor @ np.asarray(x, dtype=np.float64)
        spread = float(np.sqrt(problem.diagonal[ones]).sum())
        half = 0.5 * float(s @ s)
        error = unit * (float(np.linalg.norm(s)) * spread * (1 + UNIT * k) + half + size)
        error += (unit * spread) ** 2
    else:
        assert problem.quadratic is not None
        chosen = problem.quadratic[np.ix_(ones, ones)]
        half = 0.5 * float(chosen.sum())
        error = unit * (0.5 * float(np.abs(chosen).sum()) + size)
    error += UNDERFLOW
    found = Value(half + costs, error, abs(half) + size or _least_coefficient(problem))
    return found if found.error <= 0.1 * found.tolerance else _long_value(problem, ones)


def _long_value(problem: CardinalityProblem, ones: Places) -> Value:
    """`value` by sums in extended precision, of the places of the ones."""
    linear = problem.linear[ones]
    costs = linear.sum(dtype=np.longdouble)
    size = float(np.abs(linear).sum())
    unit = LONG_UNIT * (len(ones) + problem.rank + 8)
    half, error = np.longdouble(0.0), unit * size + UNDERFLOW
    if problem.factor is not None:
        for row in problem.factor:
            entries = row[ones]
            s = entries.sum(dtype=np.longdouble)
            half += 0.5 * s * s
            off = unit * float(np.abs(entries).sum())
            error += off * (abs(float(s)) + off)
    else:
        assert problem.quadratic is not None
        for place in ones:
            entries = problem.quadratic[place, ones]
            half += 0.5 * entries.sum(dtype=np.longdouble)
            error += unit * float(np.abs(entries).sum())
    energy = half + costs
    error += unit * float(abs(half)) + UNIT * float(abs(energy))
    terms = float(abs(half)) + size or _least_coefficient(problem)
    return Value(float(energy), error * (1 + 1e-9), terms)


def _least_coefficient(problem: CardinalityProblem) -> float:
    """The least ``|c_i|``, ``|G_ii|`` or, of a dense problem, ``|G_ij|`` that is not 0; or 1."""
    sizes = [problem.linear, problem.diagonal]
    if problem.quadratic is not None:
        sizes.append(problem.quadratic.ravel())
    every = np.abs(np.concatenate(sizes))
    return float(every[every > 0].min(initial=np.inf)) if every.any() else 1.0


@dataclass(frozen=True)
class Convex:
    """A convex quadratic, at most the energy less the offset on feasible x.

    Up to the rounding of c, which `reduced_costs` takes off with that of its own sums.

        E(x) - offset >= 1/2 ||A x||^2 + (c - error).x + constant

    Attributes:
        A: factor, shape (r, n).
        c: linear term, shape (n,).
        cardinality: k.
        norms: of the columns of A, shape (n,).
        error: >= 0, shape (n,).
        constant: energy of what is fixed, less what rounding may have added to it.
    """

    A: Floats
    c: Floats
    cardinality: int
    norms: Floats
    error: Floats
    constant: float = 0.0

    def reduced_costs(self, s: Floats) -> Floats:
        """``A's + c``, less all that rounding may have added, shape (n,).

        A sum of m products in floating point is off by at most ``m u / (1 - m u)`` times the sum of
        their sizes (Higham 2002, section 3.1), here at most ``||A_i|| ||s||``.

        Args:
            s: shape (r,).
        """
        g = s @ self.A
        lost = UNIT * (len(self.A) + 8) * float(np.linalg.norm(s)) * self.norms
        lost += 2 * UNIT * (np.abs(g) + np.abs(self.c) + self.error) + self.error
        return np.asarray(g + self.c - lost)

    def lower_bound(self, s: Floats, costs: Floats | None = None) -> float:
        """No feasible state has less energy, the problem's offset apart.

        Args:
            s: any vector, shape (r,).
            costs: its reduced costs, if they are at hand.
        """
        h = self.reduced_costs(s) if costs is None else costs
        return self.below(s, least(h, self.cardinality))

    def below(self, s: Floats, chosen: Floats) -> float:
        """``-1/2 ||s||^2 + sum chosen + constant``, rounded down.

        Args:
            s: shape (r,).
            chosen: reduced costs.
        """
        half = 0.5 * float(s @ s)
        total = chosen.sum(dtype=np.longdouble) - half + self.constant
        size = float(np.abs(chosen).sum()) + abs(self.constant)
        lost = UNIT * (len(s) + 8) * half + LONG_UNIT * (len(chosen) + 8) * size + UNDERFLOW
        return float(np.nextafter(float(total - lost), -np.inf))


def column_norms(A: Floats) -> Floats:
    """Norm of each column, shape (n,)."""
    return np.sqrt(np.einsum("ri,ri->i", A, A))


def least(h: Floats, k: int) -> Floats:
    """The k smallest entries, in any order."""
    return np.partition(h, k - 1)[:k] if k else h[:0]


def plus_offset(lower: float, problem: CardinalityProblem) -> float:
    """A bound without the problem's offset as one with it, rounded down."""
    if problem.offset == 0:
        return lower
    return float(np.nextafter(lower + problem.offset, -np.inf))


def convex(problem: CardinalityProblem, deadline: Deadline = NEVER) -> Convex | None:
    """The problem's own factor, or one of its dense matrix.

    Args:
        problem: n variables, k ones; its offset does not count.
        deadline: when nobody waits for a factor any more.

    Returns:
        None where the time does not suffice to factor a dense matrix.
    """
    k, c = problem.cardinality, problem.linear
    if problem.factor is not None:
        return Convex(problem.factor, c, k, np.sqrt(problem.diagonal), np.zeros(problem.n))
    assert problem.quadratic is not None
    cubes = float(problem.n) ** 3
    if not fits(cubes / CHOLESKY_RATE, deadline):
        return None
    scales = row_scales(problem.quadratic)
    C = problem.quadratic / scales[:, None] / scales
    found = computed(lambda: _pivoted_cholesky(C), cubes / CHOLESKY_RATE, deadline)
    if found is not None and found[1] > INDEFINITE:
        seconds = cubes / LEAST_RATE + cubes / CHOLESKY_RATE
        found = computed(lambda: _shifted_cholesky(C), seconds, deadline)
    if found is None:
        return None
    R, unexplained, shift = found
    # Backward error of a factor in scaled entries, then of x'(G - A'A)x / 2 over k ones.
    largest = float(C.diagonal().max(initial=0.0)) + shift
    off = unexplained + UNIT * (problem.n + 8) * largest
    widest = float(np.sort(scales)[problem.n - k :].sum())
    error = 0.5 * off * widest * scales + UNIT * shift * scales**2
    A = np.ascontiguousarray(R * scales)
    return Convex(A, c - 0.5 * shift * scales**2, k, column_norms(A), error)


def row_scales(G: Floats) -> Floats:
    """Powers of two d, shape (n,), with the largest ``|G_ij| / (d_i d_j)`` of every row near 1.

    Ruiz 2001: a row is divided by the square root of its largest entry, some passes over.

    Args:
        G: symmetric, shape (n, n).
    """
    d = np.ones(len(G))
    for _ in range(SCALING_PASSES):
        largest = np.array([np.abs(row / d).max(initial=0.0) for row in G]) / d
        d *= np.sqrt(np.where(largest > 0, largest, 1.0))
    return np.asarray(2.0 ** np.round(np.log2(d)))


def _pivoted_cholesky(C: Floats) -> tuple[Floats, float, float]:
    """``R`` with ``R'R = C``, shape (rank, n), and the largest entry of C that it does not explain.

    The latter is 0 where C is positive definite, and large where it is indefinite. The third is 0:
    C was not shifted.
    """
    n = len(C)
    if n == 0:
        return np.empty((0, 0)), 0.0, 0.0
    tolerance = UNIT * n * float(np.abs(C.diagonal()).max(initial=1.0))
    with one_thread():
        factor, pivots, rank, _ = dpstrf(C, tol=tolerance)
        R = np.empty((n, n))
        R[:, np.asarray(pivots) - 1] = np.triu(factor)
        if rank == n:
            return R, 0.0, 0.0
        R = np.ascontiguousarray(R[:rank])
        return R, float(np.abs(R.T @ R - C).max()), 0.0


def _shifted_cholesky(C: Floats) -> tuple[Floats, float, float]:
    """``R`` with ``R'R = C + t I``, of which it explains all (0), and the least t, roughly."""
    with one_thread():
        return _shifted(C)


def _shifted(C: Floats) -> tuple[Floats, float, float]:
    n = len(C)
    least_value = float(eigh(C, eigvals_only=True, subset_by_index=(0, 0))[0])
    slack = UNIT * n * float(np.abs(C).sum(axis=1).max())
    shift = max(0.0, -least_value)
    while True:
        shift += slack
        shifted = C.copy()
        shifted[np.diag_indices(n)] += shift
        try:
            return cholesky(shifted, overwrite_a=True, check_finite=False), 0.0, shift
        except LinAlgError:
            slack *= 10


@dataclass(frozen=True)
class Part:
    """A problem over some variables, the others fixed.

    Attributes:
        problem: over the free variables, without its constant part.
        error: what rounding may have done to its linear term, shape (m,).
        constant: energy of what is fixed, less what rounding may have added.
    """

    problem: CardinalityProblem
    error: Floats
    constant: float

    def below(self, own: Convex) -> Convex:
        """A convex quadratic below the part's energy, as one below the whole problem's."""
        constant = float(np.nextafter(own.constant + self.constant, -np.inf))
        return replace(own, error=own.error + self.error, constant=constant)


def part(problem: CardinalityProblem, free: Places, at: Bools) -> Part:
    """`CardinalityProblem.restricted` with its rounding errors.

    Args:
        problem: n variables.
        free: places of the m variables that stay free.
        at: feasible state that fixes the others, shape (n,).
    """
    rest = at.copy()
    rest[free] = False
    ones = np.flatnonzero(rest)
    fixed = value(problem, rest)
    sub = replace(problem.restricted(free, at=at), offset=0.0)
    unit = UNIT * (len(ones) + problem.rank + 8)
    if problem.factor is not None:
        norms = np.sqrt(problem.diagonal)
        sizes = float(norms[ones].sum()) * norms[free]
    else:
        assert problem.quadratic is not None
        sizes = np.abs(problem.quadratic[np.ix_(free, ones)]).sum(axis=1)
    error = unit * sizes + UNIT * (np.abs(problem.linear[free]) + np.abs(sub.linear))
    return Part(sub, error, fixed.energy - fixed.error)
