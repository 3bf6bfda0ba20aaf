"""Certified lower bound from the continuous relaxation, and the mask it rounds to.

For every vector ``s`` in R^r, ``1/2 ||A x||^2 >= s.(A x) - 1/2 ||s||^2``, hence

    L(s) = offset - 1/2 ||s||^2 + (sum of the k smallest entries of A's + c)  <=  E(x)

for every feasible x. The best ``s`` is ``A x*`` at the optimum ``x*`` of the relaxation
``0 <= x <= 1, sum x = k``. Fully-corrective Frank-Wolfe (Holloway 1974; Jaggi 2013) finds it where
few vertices suffice: the linear subproblem is a selection of the k smallest reduced costs, the
corrective step a small quadratic program over the vertices found so far. Where it does not,
`solvers.newton` takes over. ``s`` is the certificate: anyone can evaluate L(s).

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
from solvers.errors import ProblemError
from solvers.newton import Relaxed, least_sum, relax_until
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.repair import LocalSearch

# Frank-Wolfe settles an easy block in a few steps of one product each; where it does not, the
# Newton method takes over.
FRANK_WOLFE_STEPS = 12
MAX_STEPS = 1000
# First width of the proximal term, in mean distances of a reduced cost from their median.
FIRST_WIDTH = 0.3
# Ones, and zeros, that the descent of a large problem considers at a time.
NEAREST = 4096
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
        iterations: Frank-Wolfe and Newton steps.
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
    g = s @ A + convex.linear
    for row, weight in zip(A, s, strict=True):
        g -= unit * np.abs(weight * row)
    g -= unit * (1 + unit) * (np.abs(convex.linear) + np.abs(g))
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


def round_off(convex: CardinalityProblem) -> float:
    """Energy differences below this are rounding: a share of the size of the terms of E."""
    assert convex.factor is not None
    k = convex.cardinality
    typical = convex.factor @ np.full(convex.n, k / max(convex.n, 1))
    terms = 0.5 * float(typical @ typical) + float(np.abs(convex.linear).sum())
    return ROUND_OFF * (terms + abs(convex.offset)) + 1e-300


def _vertex(g: Floats, k: int) -> NDArray[np.intp]:
    """The places of the k smallest entries, sorted: the vertex that a linear objective g picks."""
    return np.sort(np.argpartition(g, k - 1)[:k])


def _indicator(places: NDArray[np.intp], n: int) -> Floats:
    x = np.zeros(n)
    x[places] = 1.0
    return x


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
    tolerance = round_off(convex)
    found = _frank_wolfe(convex, tolerance, deadline)
    if not found.solved and time.perf_counter() < deadline:
        found = _newton(convex, found, tolerance, deadline)
    assert convex.factor is not None
    g = found.dual @ convex.factor + convex.linear
    state = _rounded(problem, found.relaxed, g, deadline)
    upper = float(problem.energy(state))
    lower = found.value + convex.offset
    return Bound(
        lower_bound=lower,
        dual=found.dual,
        relaxed=np.clip(found.relaxed, 0.0, 1.0),
        state=state,
        upper_bound=upper,
        tolerance=tolerance,
        core_size=int(core(g, problem.cardinality, upper - lower + tolerance).sum()),
        iterations=found.steps,
        seconds=time.perf_counter() - start,
    )


def _frank_wolfe(convex: CardinalityProblem, tolerance: float, deadline: float) -> Relaxed:
    """Fully-corrective Frank-Wolfe, `FRANK_WOLFE_STEPS` at the most."""
    A, c, k = convex.factor, convex.linear, convex.cardinality
    assert A is not None
    s = np.zeros(len(A))
    vertices: list[NDArray[np.intp]] = []
    P = np.empty((len(A), 0))
    costs = np.empty(0)
    weights = np.empty(0)
    lower, dual = -np.inf, s
    iterations, solved = 0, False
    while True:
        iterations += 1
        g = s @ A + c
        picked = _vertex(g, k)
        value = -0.5 * float(s @ s) + float(g[picked].sum())
        if value > lower:
            lower, dual = value, s
        if vertices:
            primal = 0.5 * float(s @ s) + float(costs @ weights)
            solved = primal - lower <= tolerance
            solved = solved or any(np.array_equal(picked, known) for known in vertices)
            late = iterations > FRANK_WOLFE_STEPS or time.perf_counter() >= deadline
            if solved or late:
                break
        vertices.append(picked)
        P = np.column_stack([P, A @ _indicator(picked, convex.n)])
        costs = np.append(costs, c[picked].sum())
        weights = np.append(weights, 1.0 if len(vertices) == 1 else 0.0)
        weights = simplex_minimum(P, costs, weights)
        keep = weights > 0
        vertices = [v for v, kept in zip(vertices, keep, strict=True) if kept]
        P, costs, weights = P[:, keep], costs[keep], weights[keep]
        s = P @ weights
    relaxed = np.zeros(convex.n)
    for picked, weight in zip(vertices, weights, strict=True):
        relaxed[picked] += weight
    return Relaxed(lower, dual, relaxed, iterations, solved)


def _newton(
    convex: CardinalityProblem, start: Relaxed, tolerance: float, deadline: float
) -> Relaxed:
    """`solvers.newton` from where Frank-Wolfe stopped, until the deadline."""
    A, c, k = convex.factor, convex.linear, convex.cardinality
    assert A is not None
    lower, dual, s = start.value, start.dual, start.dual.copy()
    z = np.clip(start.relaxed, 0.0, 1.0)
    g = s @ A + c
    eps = FIRST_WIDTH * float(np.abs(g - np.median(g)).mean()) or 1.0
    # The view of A costs no memory: a whole layer's factor is held once.
    found = relax_until(
        A.T, c, k, np.zeros(len(A)), s, z, eps, np.inf, tolerance, MAX_STEPS, deadline
    )
    if found.value > lower:
        lower, dual = found.value, found.dual
    return found._replace(value=lower, dual=dual, steps=start.steps + found.steps)


def simplex_minimum(P: Floats, costs: Floats, weights: Floats) -> Floats:
    """Minimises ``1/2 ||P w||^2 + costs.w`` over the simplex, from a feasible `weights`.

    Active set (Wolfe 1976): the minimum over the affine hull of the active columns; where it leaves
    the simplex, the step is cut and the blocking column dropped.

    Args:
        P: shape (r, m).
        costs: shape (m,).
        weights: shape (m,), >= 0, sum 1; the last column is the one just added.

    Returns:
        Optimal weights over the columns that stay active, shape (m,).
    """
    m = len(costs)
    active = weights > 0
    active[-1] = True
    weights = weights.copy()
    for _ in range(10 * m):
        chosen = np.flatnonzero(active)
        direction = np.zeros(m)
        direction[chosen], longest = _affine_step(P[:, chosen], costs[chosen], weights[chosen])
        falling = np.flatnonzero(direction < 0)
        ratios = -weights[falling] / direction[falling]
        step = min(longest, float(ratios.min(initial=np.inf)))
        if not np.isfinite(step):
            break
        weights = np.maximum(weights + step * direction, 0.0)
        if step == longest:
            break
        blocking = falling[int(np.argmin(ratios))]
        weights[blocking] = 0.0
        active[blocking] = False
    return weights / weights.sum()


def _affine_step(P: Floats, costs: Floats, weights: Floats) -> tuple[Floats, float]:
    """From `weights` towards the minimum over ``sum w = 1``.

    Returns:
        A direction, shape (m,), and how far along it the minimum lies: 1 for a Newton step, inf
        where the columns are affinely dependent and the energy falls for ever.
    """
    # In the differences to the first column the constraint disappears.
    D = P[:, 1:] - P[:, :1]
    q = D.T @ (P @ weights) + (costs[1:] - costs[0])
    _, sigma, V = np.linalg.svd(D, full_matrices=False)
    V = V[sigma > 1e-11 * sigma.max(initial=0.0)]
    sigma = sigma[: len(V)]
    coordinates = V @ q
    free = q - V.T @ coordinates
    if np.linalg.norm(free) > 1e-9 * np.linalg.norm(q):
        y, longest = -free, np.inf
    else:
        y, longest = -V.T @ (coordinates / sigma**2), 1.0
    return np.concatenate([[-y.sum()], y]), longest


def _rounded(problem: CardinalityProblem, x: Floats, g: Floats, deadline: float) -> Bools:
    """The k largest entries of x, ties by reduced cost, then swap descent."""
    order = np.lexsort((g, -np.round(x, 9)))
    state = np.zeros(problem.n, dtype=np.bool_)
    state[order[: problem.cardinality]] = True
    return _descended(problem, state, deadline)


def _descended(problem: CardinalityProblem, state: Bools, deadline: float) -> Bools:
    """Swap descent; of a large problem among the ones and zeros that are cheapest to flip.

    Those are chosen anew after each descent, until none of their swaps helps: two products with A a
    round, and no second copy of it.
    """
    if problem.n <= 2 * NEAREST:
        # A handful of swaps is left to make: not worth building G for.
        return LocalSearch(problem).descend(state, deadline)
    half = 0.5 * problem.diagonal
    while time.perf_counter() < deadline:
        f = problem.fields(state)
        pool = np.concatenate(
            [
                side[np.argsort((half + sign * f)[side], kind="stable")[:NEAREST]]
                for side, sign in ((np.flatnonzero(state), -1), (np.flatnonzero(~state), 1))
            ]
        )
        some = problem.restricted(pool, at=state)
        before = state[pool]
        after = LocalSearch(some).descend(before, deadline)
        if np.array_equal(after, before):
            break
        state = state.copy()
        state[pool] = after
    return state


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
    """Certified bound, rounding, descent; one deterministic read."""

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
