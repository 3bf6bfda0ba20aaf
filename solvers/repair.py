"""From any bit strings to feasible ones, and from feasible ones to local optima."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from solvers.kernels import couplings, greedy_fill, swap_descent
from solvers.problem import Bools, CardinalityProblem


class LocalSearch:
    """The compiled kernels bound to one problem; couplings are laid out once.

    Args:
        problem: n variables, k ones.
        dense: whether to build G, see `solvers.kernels.couplings`.

    Attributes:
        problem: n variables, k ones.
        F, G: couplings, see `solvers.kernels`.
        diagonal: of G, shape (n,).
        bounds: ``b`` with ``|G_ij| <= b_i b_j``, shape (n,).
        tolerance: energy differences below this are round-off.
    """

    def __init__(self, problem: CardinalityProblem, dense: bool | None = None) -> None:
        self.problem = problem
        self.F, self.G = couplings(problem, dense)
        self.diagonal = problem.diagonal
        if problem.factor is not None:
            self.bounds = np.sqrt(self.diagonal)
        else:
            self.bounds = np.sqrt(np.abs(self.G).max(axis=1, initial=0))
        b = self.bounds
        self.tolerance = 1e-14 * (
            np.abs(problem.linear).max(initial=0) + b.max(initial=0) * b.sum()
        )

    def fill(self, x: ArrayLike) -> Bools:
        """Greedy repair: the best single flips until k ones; `x` of any weight, shape (n,)."""
        state = np.array(x, dtype=np.bool_)
        fields = self.problem.fields(state)
        greedy_fill(self.F, self.G, self.diagonal, fields, state, self.problem.cardinality)
        return state

    def descend(self, x: ArrayLike, max_swaps: int = 2**62) -> tuple[Bools, bool]:
        """Swap descent from a feasible x, shape (n,).

        Returns:
            The state after at most `max_swaps` swaps, and whether it is a local optimum.
        """
        state = np.array(x, dtype=np.bool_)
        fields = self.problem.fields(state)
        _, done = swap_descent(
            self.F, self.G, self.diagonal, self.bounds, fields, state, self.tolerance, max_swaps
        )
        return state, bool(done)
