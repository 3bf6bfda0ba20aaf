"""A problem with its constraint as a penalty, and how much of the objective that leaves in float64.

The terms of ``P (sum x - k)^2`` cancel on feasible states, and what is left of them is rounding, of
the size of P's last digits. A P that is large beside the objective's differences therefore changes
which feasible state is best.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from solvers.errors import ProblemError

if TYPE_CHECKING:
    from solvers.problem import CardinalityProblem

# Of the differences between feasible energies this much may be lost.
SHARE = 1e-6
# Feasible states that are looked at.
STATES = 16
Floats = NDArray[np.float64]
_EPSILON = float(np.finfo(np.float64).eps)


def penalised(problem: CardinalityProblem, penalty: float) -> tuple[Floats, Floats, float]:
    """``E(x) + P (sum x - k)^2`` as ``sum_(i<j) Q_ij x_i x_j + linear.x + offset``.

    Args:
        problem: n variables; with groups there is one penalty term a group.
        penalty: weight P; 0 leaves the constraint out.

    Returns:
        ``(Q, linear, offset)``: Q symmetric, shape (n, n), its diagonal 0; linear of shape (n,).

    Raises:
        ProblemError: P or a coefficient is not finite, or the energies of random feasible states,
            in float64 as any reader of the model computes them, are off by more than `SHARE` of the
            difference between the largest and the least of them.
    """
    if not math.isfinite(penalty):
        raise ProblemError(f"penalty is {penalty}, expected a finite number")
    squares = int((problem.group_ones**2).sum())
    with np.errstate(over="ignore", invalid="ignore"):
        Q = problem.gram()
        if problem.groups is None:
            Q += 2 * penalty
        else:
            for part in problem.members:
                Q[np.ix_(part, part)] += 2 * penalty
        np.fill_diagonal(Q, 0)
        ones = problem.group_ones[problem.group_labels]
        linear = problem.linear + 0.5 * problem.diagonal + penalty * (1 - 2 * ones)
    if not (np.isfinite(Q).all() and np.isfinite(linear).all()):
        raise ProblemError(
            f"penalty is {penalty:.6g}, with which the model's coefficients overflow: choose a "
            "smaller one"
        )
    if penalty and problem.only_state is None:
        _check(problem, penalty, squares, Q, linear)
    return Q, linear, problem.offset + penalty * squares


def _check(
    problem: CardinalityProblem, penalty: float, squares: int, Q: Floats, linear: Floats
) -> None:
    rng = np.random.default_rng(0)
    states = np.array([problem.random_state(rng) for _ in range(STATES)], dtype=np.float64)
    energies = problem.energy(states) - problem.offset
    spread = float(np.ptp(energies))
    # Energies of this size are rounded by as much without any penalty.
    own = 64 * _EPSILON * float(np.abs(energies).max())
    if spread <= own:
        return
    allowed = SHARE * spread + own
    safe = allowed / (4 * _EPSILON * squares)
    if abs(penalty) <= safe:
        return
    pairs = 0.5 * np.einsum("si,si->s", states @ Q, states)
    off = float(np.abs(pairs + states @ linear + penalty * squares - energies).max())
    if not off <= allowed:
        raise ProblemError(
            f"penalty is {penalty:.6g}: in float64 it moves energies of feasible states by "
            f"{off:.2g}, while they differ by {spread:.2g} in all; choose {safe:.2g} or less"
        )
