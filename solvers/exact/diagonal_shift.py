"""A convex quadratic with the same energies on feasible x and a higher relaxation.

``x_i^2 = x_i`` and ``sum x = k`` give room to take the least eigenvalue off the diagonal of a
regular G, which raises the bound and costs no energy (Hammer and Rubin 1970; Billionnet, Elloumi
and Plateau 2009).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from solvers.arithmetic.convex import UNIT, Convex, column_norms, row_scales
from solvers.clock.background import one_thread
from solvers.problem import CardinalityProblem


def diagonally_shifted(problem: CardinalityProblem) -> Convex:
    """The least convex diagonal that one shift can give, energies on feasible x as they are.

    With ``rho (sum x - k)^2 / 2`` added, which is 0 on feasible x, ``G + rho 11'``, its rows scaled
    by d, may lose its least eigenvalue t: ``G + rho 11' - t D^2`` and ``c + t d^2 / 2 - rho k``.

    Args:
        problem: with a factor of shape (r, n), n <= r, or dense; its offset does not count.
    """
    G, k, n = problem.gram(), problem.cardinality, problem.n
    rho = abs(float(np.median(problem.diagonal)))
    scales = row_scales(G + rho)
    C = (G + rho) / scales[:, None] / scales
    with one_thread():
        values, vectors = eigh(C)
    t = float(values[0])
    R = np.sqrt(np.maximum(values - t, 0.0))[:, None] * vectors.T
    shifted = C.copy()
    shifted[np.diag_indices(n)] -= t
    # What R does not explain, and the rounding of G, of C and of that difference.
    largest = float(np.abs(C.diagonal()).max(initial=0.0)) + abs(t)
    off = float(np.abs(R.T @ R - shifted).max(initial=0.0))
    off += 2 * UNIT * (n + problem.rank + 8) * largest
    widest = float(np.sort(scales)[n - k :].sum())
    error = 0.5 * off * widest * scales + UNIT * (abs(t) * scales**2 + 4 * rho * k)
    constant = 0.5 * rho * k * k * (1 - 8 * UNIT)
    A, c = np.ascontiguousarray(R * scales), problem.linear + 0.5 * t * scales**2 - rho * k
    return Convex(A, c, k, column_norms(A), error, constant)
