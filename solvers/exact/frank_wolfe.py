"""Fully-corrective Frank-Wolfe (Holloway 1974; Jaggi 2013) on the relaxation.

The linear subproblem is a selection of the k smallest reduced costs, the corrective step a small
quadratic program over the vertices found so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.arithmetic.convex import EQUAL, Convex
from solvers.clock.deadline import Deadline
from solvers.exact.newton import Relaxed
from solvers.problem import Floats

# Frank-Wolfe settles an easy block in a few steps of one product each; where it does not, the
# Newton method takes over.
FRANK_WOLFE_STEPS = 12
# Share of the terms' size to which the relaxation is solved.
PRECISION = 0.25 * EQUAL


Vertex = Callable[[Floats], NDArray[np.intp]]


class Vertices(NamedTuple):
    """Where Frank-Wolfe stopped.

    Attributes:
        found: the best bound and the relaxed point.
        s: ``A x`` at the relaxed point, shape (r,).
        tolerance: energies closer than this are equal there.
    """

    found: Relaxed
    s: Floats
    tolerance: float


def frank_wolfe(
    own: Convex,
    deadline: Deadline,
    *,
    vertex: Vertex | None = None,
    most: int = FRANK_WOLFE_STEPS,
) -> Vertices:
    """Fully-corrective Frank-Wolfe.

    Args:
        own: n variables, 0 < k < n.
        deadline: when the best so far is returned.
        vertex: the ones of the feasible state of least costs, sorted; when None the k least.
        most: steps.
    """
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
        picked = _vertex(g, k) if vertex is None else vertex(g)
        half = 0.5 * float(s @ s)
        value = -half + float(g[picked].sum())
        if value > lower:
            lower, dual = value, s
        if vertices:
            tolerance = PRECISION * (half + float(sizes @ weights))
            solved = half + float(costs @ weights) - lower <= tolerance
            repeated = any(np.array_equal(picked, known) for known in vertices)
            if solved or repeated or iterations > most or deadline.over:
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
    return Vertices(Relaxed(lower, dual, relaxed, iterations, solved), s, tolerance)


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


def _vertex(g: Floats, k: int) -> NDArray[np.intp]:
    """The places of the k smallest entries, sorted: the vertex that a linear objective g picks."""
    return np.sort(np.argpartition(g, k - 1)[:k])


def _indicator(places: NDArray[np.intp], n: int) -> Floats:
    x = np.zeros(n)
    x[places] = 1.0
    return x
