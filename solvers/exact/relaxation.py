"""Certified lower bound from the continuous relaxation, and the mask it rounds to.

The best ``s`` of `solvers.arithmetic.convex` is ``A x*`` at the optimum ``x*`` of the relaxation
``0 <= x <= 1, sum x = k``. Fully-corrective Frank-Wolfe (Holloway 1974; Jaggi 2013) finds it where
few vertices suffice: the linear subproblem is a selection of the k smallest reduced costs, the
corrective step a small quadratic program over the vertices found so far. Where it does not,
`solvers.exact.newton` takes over. ``s`` is the certificate: anyone can evaluate its bound.

Reduced-cost fixing: forcing a variable against the selection raises the bound by its distance to
the selection's threshold; where that passes the best known energy the variable is settled. The
variables left are the core.

What cannot be interrupted (a factorisation, a Newton step) is begun only if it is expected to fit
in the time left; until then a mask by greedy selection and descent is at hand.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.arithmetic.convex import (
    EQUAL,
    UNIT,
    Convex,
    Value,
    convex,
    plus_offset,
    value,
)
from solvers.base import CardinalitySampler, Request, Solution
from solvers.clock.deadline import NEVER, Deadline
from solvers.errors import ProblemError
from solvers.exact.newton import Relaxed, relax_until
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.repair import LocalSearch

# Frank-Wolfe settles an easy block in a few steps of one product each; where it does not, the
# Newton method takes over.
FRANK_WOLFE_STEPS = 12
MAX_STEPS = 1000
# First width of the proximal term, in median distances of a reduced cost from their median.
FIRST_WIDTH = 0.3
# Ones, and zeros, that the descent of a large problem considers at a time.
NEAREST = 4096
# Share of a time limit for the bound, and of it for what cannot be interrupted; the rest is for
# rounding and descent.
BOUND_SHARE = 0.75
# Share of the terms' size to which the relaxation is solved.
PRECISION = 0.25 * EQUAL


@dataclass(frozen=True)
class Bound:
    """A certified interval around the optimum.

    Attributes:
        lower_bound: no feasible state has less energy; rounded down.
        lower: the same without the problem's offset.
        own: the convex quadratic it comes from; None where the time did not suffice to factor a
            dense matrix.
        dual: the certificate ``s``, shape (r,), see `certified_bound`; None without `own`.
        costs: reduced costs, rounded down, shape (n,).
        relaxed: optimum of the relaxation, shape (n,) in [0, 1].
        state: the best state, shape (n,) of bool.
        best: its energy, without the problem's offset.
        upper_bound: its energy.
        gap: the most that `state` may lie above the optimum.
        core_size: variables not settled by reduced costs.
        iterations: Frank-Wolfe and Newton steps.
        seconds: wall time of all of it.
    """

    lower_bound: float
    lower: float
    own: Convex | None
    dual: Floats | None
    costs: Floats
    relaxed: Floats
    state: Bools
    best: Value
    upper_bound: float
    gap: float
    core_size: int
    iterations: int
    seconds: float

    @property
    def proved_optimal(self) -> bool:
        """Whether `state` is optimal, by bound or because no variable is open.

        Energies closer than a share `solvers.arithmetic.convex.EQUAL` of the terms at the state are
        equal.
        """
        return self.gap <= self.best.tolerance or self.core_size == 0


def certified_bound(problem: CardinalityProblem, s: Floats) -> float:
    """The bound of a certificate, less all that rounding may have added to it.

    Needs nothing but the problem and the certificate.

    Args:
        problem: with a factor of shape (r, n), or dense, where `s` belongs to the factor that
            `solvers.arithmetic.convex.convex` finds.
        s: any vector of shape (r,).

    Returns:
        No feasible state has less energy.

    Raises:
        ProblemError: `s` of another shape or not finite.
    """
    own = convex(problem)
    assert own is not None
    s = np.asarray(s, dtype=np.float64)
    if s.shape != (len(own.A),) or not np.isfinite(s).all():
        raise ProblemError(
            f"certificate has shape {s.shape}, expected ({len(own.A)},) finite numbers"
        )
    return plus_offset(own.lower_bound(s), problem)


def _vertex(g: Floats, k: int) -> NDArray[np.intp]:
    """The places of the k smallest entries, sorted: the vertex that a linear objective g picks."""
    return np.sort(np.argpartition(g, k - 1)[:k])


def _indicator(places: NDArray[np.intp], n: int) -> Floats:
    x = np.zeros(n)
    x[places] = 1.0
    return x


def bound(problem: CardinalityProblem, deadline: Deadline = NEVER) -> Bound:
    """Solve the relaxation, certify it, round it, descend.

    Args:
        problem: 0 < k < n.
        deadline: when the best so far is returned.

    Returns:
        The interval; valid whenever the iteration stops.
    """
    start = time.perf_counter()
    states = []
    if problem.factor is None:
        states.append(constructed(problem, deadline.share(0.5)))
    own = convex(problem, deadline)
    if own is None:
        return _without_factor(problem, states[0], start)
    found = relaxed(own, deadline.share(BOUND_SHARE))
    costs = own.reduced_costs(found.dual)
    states.append(_rounded(problem, found.relaxed, costs, deadline))
    if not found.solved and problem.factor is not None:
        states.append(constructed(problem, deadline))
    state = states[0]
    if len(states) > 1:
        state = min(states, key=lambda x: value(problem, x).energy)
    lower = own.lower_bound(found.dual, costs)
    return _certified(problem, state, lower, costs, own, found, start)


def relaxed(own: Convex, deadline: Deadline = NEVER) -> Relaxed:
    """Solve the relaxation of a convex quadratic, as far as the time allows.

    Args:
        own: n variables, 0 < k < n.
        deadline: when the best so far is returned.

    Returns:
        The best dual and relaxed point; `Convex.lower_bound` certifies the former.
    """
    vertices = _frank_wolfe(own, deadline)
    if vertices.found.solved or deadline.over:
        return vertices.found
    return _newton(own, vertices, deadline)


def constructed(problem: CardinalityProblem, deadline: Deadline) -> Bools:
    """Greedy selection, then descent; shape (n,) of bool."""
    search = LocalSearch(problem)
    return search.descend(search.fill(np.zeros(problem.n, dtype=np.bool_), deadline), deadline)


def _certified(
    problem: CardinalityProblem,
    state: Bools,
    lower: float,
    costs: Floats,
    own: Convex | None,
    found: Relaxed | None,
    start: float,
) -> Bound:
    best = value(problem, state)
    gap = float(np.nextafter(max(0.0, best.energy + best.error - lower), np.inf))
    core_size = int(core(costs, problem.cardinality, gap).sum())
    if core_size == 0:
        # Every other state is worse.
        lower = max(lower, best.energy - best.error)
    return Bound(
        lower_bound=plus_offset(lower, problem),
        lower=lower,
        own=own,
        dual=None if found is None else found.dual,
        costs=costs,
        relaxed=_middle(problem) if found is None else np.clip(found.relaxed, 0.0, 1.0),
        state=state,
        best=best,
        upper_bound=float(problem.energy(state)),
        gap=gap,
        core_size=core_size,
        iterations=0 if found is None else found.steps,
        seconds=time.perf_counter() - start,
    )


def _without_factor(problem: CardinalityProblem, state: Bools, start: float) -> Bound:
    """The interval of a dense problem by the least coupling of every row alone.

    Of x'Gx / 2 the row of a one holds half its diagonal and k - 1 more entries, each at least half
    the least off the diagonal.
    """
    G, k, n = problem.quadratic, problem.cardinality, problem.n
    assert G is not None
    lowest = np.empty(n)
    for i, row in enumerate(G):
        lowest[i] = min(row[:i].min(initial=np.inf), row[i + 1 :].min(initial=np.inf))
    terms = (problem.linear, 0.5 * problem.diagonal, 0.5 * (k - 1) * lowest)
    costs = sum(terms) - 4 * UNIT * sum(np.abs(term) for term in terms)
    own = Convex(np.zeros((0, n)), np.asarray(costs), k, np.zeros(n), np.zeros(n))
    lower = own.lower_bound(np.zeros(0))
    return _certified(problem, state, lower, own.reduced_costs(np.zeros(0)), None, None, start)


def _middle(problem: CardinalityProblem) -> Floats:
    return np.full(problem.n, problem.cardinality / problem.n)


class _Vertices(NamedTuple):
    """Where Frank-Wolfe stopped.

    Attributes:
        found: the best bound and the relaxed point.
        s: ``A x`` at the relaxed point, shape (r,).
        tolerance: energies closer than this are equal there.
    """

    found: Relaxed
    s: Floats
    tolerance: float


def _frank_wolfe(own: Convex, deadline: Deadline) -> _Vertices:
    """Fully-corrective Frank-Wolfe, `FRANK_WOLFE_STEPS` at the most."""
    A, c, k = own.A, own.c, own.cardinality
    n = len(c)
    s = np.zeros(len(A))
    vertices: list[NDArray[np.intp]] = []
    P = np.empty((len(A), 0))
    costs, sizes, weights = np.empty((3, 0))
    lower, dual = -np.inf, s
    iterations, solved, tolerance = 0, False, 0.0
    while True:
        iterations += 1
        g = s @ A + c
        picked = _vertex(g, k)
        half = 0.5 * float(s @ s)
        value = -half + float(g[picked].sum())
        if value > lower:
            lower, dual = value, s
        if vertices:
            tolerance = PRECISION * (half + float(sizes @ weights))
            solved = half + float(costs @ weights) - lower <= tolerance
            repeated = any(np.array_equal(picked, known) for known in vertices)
            if solved or repeated or iterations > FRANK_WOLFE_STEPS or deadline.over:
                break
        vertices.append(picked)
        P = np.column_stack([P, A @ _indicator(picked, n)])
        costs = np.append(costs, c[picked].sum())
        sizes = np.append(sizes, np.abs(c[picked]).sum())
        weights = np.append(weights, 1.0 if len(vertices) == 1 else 0.0)
        weights = simplex_minimum(P, costs, weights)
        keep = weights > 0
        vertices = [v for v, kept in zip(vertices, keep, strict=True) if kept]
        P, costs, sizes, weights = P[:, keep], costs[keep], sizes[keep], weights[keep]
        s = P @ weights
    relaxed = np.zeros(n)
    for picked, weight in zip(vertices, weights, strict=True):
        relaxed[picked] += weight
    return _Vertices(Relaxed(lower, dual, relaxed, iterations, solved), s, tolerance)


def _newton(own: Convex, start: _Vertices, deadline: Deadline) -> Relaxed:
    """`solvers.exact.newton` from where Frank-Wolfe stopped, until the deadline."""
    A, c, k = own.A, own.c, own.cardinality
    r, first = len(A), start.found
    z = np.clip(first.relaxed, 0.0, 1.0)
    g = start.s @ A + c
    eps = FIRST_WIDTH * float(np.median(np.abs(g - np.median(g)))) or 1.0
    # The view of A costs no memory: a whole layer's factor is held once.
    found = relax_until(
        A.T, c, k, np.zeros(r), start.s.copy(), z, eps, np.inf, start.tolerance, MAX_STEPS, deadline
    )
    steps = first.steps + found.steps
    if found.value > first.value:
        return found._replace(steps=steps)
    return first._replace(steps=steps, solved=found.solved)


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


def _rounded(problem: CardinalityProblem, x: Floats, g: Floats, deadline: Deadline) -> Bools:
    """The k largest entries of x, ties by reduced cost, then swap descent."""
    order = np.lexsort((g, -np.round(x, 9)))
    state = np.zeros(problem.n, dtype=np.bool_)
    state[order[: problem.cardinality]] = True
    return _descended(problem, state, deadline)


def _descended(problem: CardinalityProblem, state: Bools, deadline: Deadline) -> Bools:
    """Swap descent; of a large problem among the ones and zeros that are cheapest to flip.

    Those are chosen anew after each descent, until none of their swaps helps: two products with A a
    round, and no second copy of it.
    """
    if problem.n <= 2 * NEAREST:
        # A handful of swaps is left to make: not worth building G for.
        return LocalSearch(problem).descend(state, deadline)
    half = 0.5 * problem.diagonal
    while not deadline.over:
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


def core(costs: Floats, k: int, gap: float) -> Bools:
    """Variables that reduced costs leave open, shape (n,) of bool.

    Args:
        costs: reduced costs, see `solvers.arithmetic.convex.Convex.reduced_costs`, shape (n,).
        k: 0 < k < n.
        gap: best known energy less the bound of these costs.
    """
    order = np.argsort(costs, kind="stable")
    last, following = costs[order[k - 1]], costs[order[k]]
    inside = np.zeros(len(costs), dtype=np.bool_)
    inside[order[:k]] = True
    threshold = np.where(inside, following, last)
    distance = np.where(inside, following - costs, costs - last)
    return distance - 2 * UNIT * (np.abs(threshold) + np.abs(costs)) <= gap


class Relaxation(CardinalitySampler):
    """Certified bound, rounding, descent; one deterministic read.

    ``info["tolerance"]`` is the difference below which two energies are equal. ``certificate`` is
    None where the time did not suffice to factor a dense matrix.
    """

    name = "relaxation"
    compiles = True
    honours = ("time_limit",)

    def _compile(self, tiny: CardinalityProblem) -> None:
        super()._compile(tiny)
        # What is done where the relaxation is not solved in time.
        constructed(tiny, NEVER)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("execute"):
            found = bound(problem, request.deadline)
        request.report(found.state)
        return Solution(
            found.state[None],
            {
                "lower_bound": found.lower_bound,
                "proved_optimal": found.proved_optimal,
                "tolerance": found.best.tolerance,
                "certificate": None if found.dual is None else found.dual.tolist(),
                "core_size": found.core_size,
                "iterations": found.iterations,
            },
        )
