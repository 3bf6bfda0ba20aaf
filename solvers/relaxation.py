"""Certified lower bound from the continuous relaxation, and the mask it rounds to.

For every vector ``s`` in R^r, ``1/2 ||A x||^2 >= s.(A x) - 1/2 ||s||^2``, hence

    L(s) = offset - 1/2 ||s||^2 + (sum of the k smallest entries of A's + c)  <=  E(x)

for every feasible x. The best ``s`` is ``A x*`` at the optimum ``x*`` of the relaxation
``0 <= x <= 1, sum x = k``, found by `solvers.newton`. ``s`` is the certificate: anyone can evaluate
L(s), and `certified_bound` does so with every rounding error counted against it.

Reduced-cost fixing: forcing a variable against the selection raises L(s) by its distance to the
selection's threshold; where that passes the best known energy the variable is settled. The
variables left are the core.

A dense indefinite ``G`` is made convex first by ``x_i^2 = x_i``: ``G + t I`` and ``c - t / 2``
have the same energies on binary x.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.base import CardinalitySampler, Request, Solution
from solvers.descent import descend_until
from solvers.errors import ProblemError
from solvers.newton import least_sum, relax
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.repair import LocalSearch

MAX_STEPS = 1000
# Newton steps between two looks at the clock.
STEPS_PER_CHECK = 4
# First width of the proximal term, in mean distances of a reduced cost from their median.
FIRST_WIDTH = 0.3
# Energies are sums of n terms; two that agree to this share of the terms' size are equal.
ROUND_OFF = 1e-13


@dataclass(frozen=True)
class Bound:
    """A certified interval around the optimum.

    Attributes:
        lower_bound: ``L(dual)``; no feasible state has less energy.
        dual: the certificate ``s``, shape (r,), of the convexified problem.
        relaxed: optimum of the relaxation, shape (n,) in [0, 1].
        state: the rounded state after descent, shape (n,) of bool.
        upper_bound: its energy.
        tolerance: round-off of both bounds.
        core_size: variables not settled by reduced costs.
        iterations: Newton steps.
        seconds: wall time of all of it.
    """

    lower_bound: float
    dual: Floats
    relaxed: Floats
    state: Bools
    upper_bound: float
    tolerance: float
    core_size: int
    iterations: int
    seconds: float

    @property
    def gap(self) -> float:
        """``upper_bound - lower_bound``, not less than 0."""
        return max(0.0, self.upper_bound - self.lower_bound)

    @property
    def proved_optimal(self) -> bool:
        """Whether `state` is optimal up to round-off, by bound or because no variable is open."""
        return self.gap <= self.tolerance or self.core_size == 0


def convexified(problem: CardinalityProblem) -> CardinalityProblem:
    """An equal problem on binary x with a factor; the problem itself if it has one."""
    if problem.factor is not None:
        return problem
    assert problem.quadratic is not None
    values, vectors = np.linalg.eigh(problem.quadratic)
    shift = max(0.0, -float(values[0])) if len(values) else 0.0
    factor = np.sqrt(np.maximum(values + shift, 0.0))[:, None] * vectors.T
    # The rounding of the factor is put into the linear term, so that energies agree to round-off.
    diagonal = np.einsum("ri,ri->i", factor, factor) - problem.diagonal
    return replace(problem, quadratic=None, factor=factor, linear=problem.linear - diagonal / 2)


def dual_value(problem: CardinalityProblem, s: Floats) -> float:
    """``L(s)``, a lower bound on every feasible energy for any `s` of shape (r,), up to round-off.

    Args:
        problem: with a factor of shape (r, n).
        s: any vector.
    """
    assert problem.factor is not None
    g = s @ problem.factor + problem.linear
    return problem.offset - 0.5 * float(s @ s) + least_sum(g, problem.cardinality)


def certified_bound(problem: CardinalityProblem, s: Floats) -> float:
    """``L(s)`` less all that rounding may have added: no feasible state has less energy.

    Needs nothing but the problem and the certificate. A sum of m products in floating point is off
    by at most ``m u / (1 - m u)`` times the sum of their sizes (Higham 2002, section 3.1); the long
    sums are exact (`math.fsum`).

    Args:
        problem: with a factor of shape (r, n), or dense, where `s` belongs to `convexified`.
        s: any vector of shape (r,).

    Returns:
        A number that is never above the exact ``L(s)``.

    Raises:
        ProblemError: `s` of another shape or not finite.
    """
    convex = convexified(problem)
    A = convex.factor
    assert A is not None
    s = np.asarray(s, dtype=np.float64)
    if s.shape != (len(A),) or not np.isfinite(s).all():
        raise ProblemError(f"certificate has shape {s.shape}, expected ({len(A)},) finite numbers")
    unit = 2.0**-52 * (len(A) + 8)
    size = np.abs(s) @ np.abs(A) + np.abs(convex.linear)
    g = s @ A + convex.linear - unit * size
    k = problem.cardinality
    least = np.partition(g, k - 1)[:k] if k else g[:0]
    square = float(s @ s) * (1 + unit)
    value = math.fsum([problem.offset, -0.5 * square, -_factoring_error(problem, convex), *least])
    return float(np.nextafter(value, -np.inf))


def _factoring_error(problem: CardinalityProblem, convex: CardinalityProblem) -> float:
    """How far energies of the convexified problem can lie above those of a dense one."""
    if problem.quadratic is None:
        return 0.0
    A = convex.factor
    assert A is not None
    unit = 2.0**-52 * (len(A) + 8)
    pairs = np.abs(A.T @ A - problem.quadratic) + unit * (np.abs(A.T) @ np.abs(A))
    np.fill_diagonal(pairs, unit * (convex.diagonal + np.abs(problem.diagonal)))
    return 0.5 * float(pairs.sum()) * (1 + unit) + unit * float(np.abs(convex.linear).sum())


def _relaxed(
    convex: CardinalityProblem, tolerance: float, deadline: float
) -> tuple[float, Floats, Floats, int]:
    """Bound without offset, its ``s``, the relaxed point and the steps made."""
    A, c, k = convex.factor, convex.linear, convex.cardinality
    assert A is not None
    F = np.ascontiguousarray(A.T)
    z = np.zeros(convex.n)
    z[_vertex(c, k)] = 1.0
    s = A @ z
    g = F @ s + c
    eps = FIRST_WIDTH * float(np.abs(g - np.median(g)).mean()) or 1.0
    nothing = np.zeros(len(A))
    lower, dual, steps = -np.inf, s, 0
    chunk = MAX_STEPS if deadline == np.inf else STEPS_PER_CHECK
    while True:
        found, s, primal, eps, made = relax(F, c, k, nothing, s, z, eps, np.inf, tolerance, chunk)
        steps += made
        if found > lower:
            lower, dual = found, s
        late = steps >= MAX_STEPS or time.perf_counter() >= deadline
        if late or made < chunk or primal - lower <= tolerance:
            return lower, dual, np.clip(z, 0.0, 1.0), steps


def bound(problem: CardinalityProblem, deadline: float = np.inf) -> Bound:
    """Solve the relaxation, certify it, round it, descend.

    Args:
        problem: 0 < k < n.
        deadline: `time.perf_counter` value after which the best bound so far is returned.

    Returns:
        The interval; valid whenever the iteration stops.
    """
    start = time.perf_counter()
    convex = convexified(problem)
    A, c, k = convex.factor, convex.linear, convex.cardinality
    assert A is not None
    tolerance = round_off(convex)
    lower, dual, relaxed, steps = _relaxed(convex, tolerance, deadline)
    lower += convex.offset
    g = dual @ A + c
    state = _rounded(problem, relaxed, g, deadline)
    upper = float(problem.energy(state))
    return Bound(
        lower_bound=lower,
        dual=dual,
        relaxed=relaxed,
        state=state,
        upper_bound=upper,
        tolerance=tolerance,
        core_size=int(core(g, k, upper - lower + tolerance).sum()),
        iterations=steps,
        seconds=time.perf_counter() - start,
    )


def round_off(convex: CardinalityProblem) -> float:
    """Energy differences below this are rounding: a share of the size of the terms of E."""
    assert convex.factor is not None
    k = convex.cardinality
    typical = convex.factor @ np.full(convex.n, k / max(convex.n, 1))
    terms = 0.5 * float(typical @ typical) + float(np.abs(convex.linear).sum())
    return ROUND_OFF * (terms + abs(convex.offset)) + 1e-300


def _vertex(g: Floats, k: int) -> NDArray[np.intp]:
    """The places of the k smallest entries."""
    return np.argpartition(g, k - 1)[:k]


def _rounded(problem: CardinalityProblem, x: Floats, g: Floats, deadline: float) -> Bools:
    """The k largest entries of x, ties by reduced cost, then swap descent."""
    order = np.lexsort((g, -np.round(x, 9)))
    state = np.zeros(problem.n, dtype=np.bool_)
    state[order[: problem.cardinality]] = True
    # A handful of swaps is left to make: not worth building G for.
    search = LocalSearch(problem, dense=problem.factor is None)
    return descend_until(search, state, deadline)


def core(g: Floats, k: int, gap: float) -> Bools:
    """Variables that reduced costs leave open, shape (n,) of bool.

    Args:
        g: reduced costs ``A's + c``, shape (n,).
        k: 0 < k < n.
        gap: best known energy less ``L(s)``.
    """
    order = np.argsort(g, kind="stable")
    inside = np.zeros(len(g), dtype=np.bool_)
    inside[order[:k]] = True
    raise_out = g[order[k]] - g
    raise_in = g - g[order[k - 1]]
    return np.where(inside, raise_out, raise_in) <= gap


class Relaxation(CardinalitySampler):
    """Certified bound by proximal Newton, rounding, descent; one deterministic read."""

    name = "relaxation"
    honours = ("time_limit",)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("execute"):
            found = bound(problem, request.deadline)
        request.report(found.state)
        return Solution(
            found.state[None],
            {
                "lower_bound": found.lower_bound,
                "proved_optimal": found.proved_optimal,
                "certificate": found.dual.tolist(),
                "core_size": found.core_size,
                "iterations": found.iterations,
            },
        )
