"""From any bit strings to feasible ones, and from feasible ones to local optima."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.kernels import couplings, greedy_fill, greedy_fill_dense, swap_descent
from solvers.problem import Bools, CardinalityProblem

# Flips between two looks at the clock.
FLIPS_PER_CHECK = 512
# Fields updated with G in float32 are good to about this share of the largest coupling.
SINGLE = 1e-6


class LocalSearch:
    """The compiled kernels bound to one problem; couplings are laid out once.

    Safe to use from several threads: nothing in it changes.

    Args:
        problem: n variables, k ones.
        dense: whether to build G, see `solvers.kernels.dense_pays`.

    Attributes:
        problem: n variables, k ones.
        F, G: couplings, see `solvers.kernels`.
        diagonal: of G, shape (n,).
        bounds: ``b`` with ``|G_ij| <= b_i b_j``, shape (n,).
        tolerance: energy differences below this are round-off.
    """

    def __init__(self, problem: CardinalityProblem, dense: bool = False) -> None:
        self.problem = problem
        self.F, self.G = couplings(problem, dense)
        self._exact = self.G if problem.factor is None else np.empty((0, 0), self.G.dtype)
        self.diagonal = problem.diagonal
        if problem.factor is not None:
            self.bounds = np.sqrt(self.diagonal)
        else:
            self.bounds = np.sqrt(np.abs(self.G).max(axis=1, initial=0))
        b = self.bounds
        self.tolerance = 1e-14 * (
            np.abs(problem.linear).max(initial=0) + b.max(initial=0) * b.sum()
        )

    @property
    def dense(self) -> bool:
        """Whether fields are kept with G."""
        return len(self.G) > 0

    def fill(self, x: ArrayLike, deadline: float = np.inf) -> Bools:
        """Greedy repair: the best single flips until k ones.

        Args:
            x: of any weight, shape (n,).
            deadline: `time.perf_counter` value; what is missing then is taken all at once, in order
                of the costs at that moment.
        """
        state = np.array(x, dtype=np.bool_)
        fields, k = self.problem.fields(state), self.problem.cardinality
        chunk = 2**62 if deadline == np.inf else FLIPS_PER_CHECK
        while state.sum() != k and time.perf_counter() < deadline:
            if self.problem.factor is None:
                greedy_fill_dense(self.G, fields, state, k, chunk)
            else:
                greedy_fill(self.F, self.diagonal, self.bounds, fields, state, k, chunk)
        missing = k - int(state.sum())
        if missing:
            sign = np.sign(missing)
            free = np.flatnonzero(state == (missing < 0))
            costs = (sign * fields + 0.5 * self.diagonal)[free]
            state[free[np.argsort(costs, kind="stable")[: abs(missing)]]] = missing > 0
        return state

    def descend(self, x: ArrayLike, max_swaps: int = 2**62) -> tuple[Bools, bool]:
        """Swap descent from a feasible x, shape (n,).

        Returns:
            The state after at most `max_swaps` swaps, and whether it is a local optimum.
        """
        state = np.array(x, dtype=np.bool_)
        swaps = 0
        if self.dense and self.problem.factor is not None:
            # What G in float32 cannot tell apart is left to the factor.
            rough = self.tolerance + SINGLE * self.bounds.max(initial=0) ** 2
            swaps, done = self._descend(self.G, state, rough, max_swaps)
            if not done:
                return state, False
        _, done = self._descend(self._exact, state, self.tolerance, max_swaps - swaps)
        return state, done

    def _descend(
        self, G: NDArray[Any], state: Bools, tolerance: float, max_swaps: int
    ) -> tuple[int, bool]:
        fields = self.problem.fields(state)
        swaps, done = swap_descent(
            self.F, G, self.diagonal, self.bounds, fields, state, tolerance, max_swaps
        )
        return int(swaps), bool(done)
