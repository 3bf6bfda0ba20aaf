"""Exact search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from solvers.base import CardinalitySampler, Request, Solution
from solvers.problem import Bools, CardinalityProblem, Floats


@njit(cache=True, nogil=True)
def best_subset(G: Floats, own: Floats, k: int) -> tuple[float, Bools]:
    """The k-subset S of least ``sum_S own_i + sum_{i<j in S} G_ij``, by depth-first enumeration.

    The fields of every level are kept on a stack, so a level costs O(n), the last one O(1) a
    subset, and no rounding error is carried from one subset to the next.

    Args:
        G: couplings, shape (n, n), symmetric.
        own: energy of each variable alone, shape (n,).
        k: ones, 1 <= k <= n.

    Returns:
        The least energy and its state, shape (n,).
    """
    n = len(own)
    chosen = np.zeros(k, np.int64)
    energies = np.zeros(k + 1)
    fields = np.zeros((k + 1, n))
    fields[0] = own
    best, best_chosen = np.inf, np.zeros(k, np.int64)
    level = 0
    candidate = 0
    while level >= 0:
        last = n - (k - level)
        if level == k - 1:
            for i in range(candidate, n):
                energy = energies[level] + fields[level, i]
                if energy < best:
                    best = energy
                    chosen[level] = i
                    best_chosen[:] = chosen
            level -= 1
            if level >= 0:
                candidate = chosen[level] + 1
        elif candidate > last:
            level -= 1
            if level >= 0:
                candidate = chosen[level] + 1
        else:
            chosen[level] = candidate
            energies[level + 1] = energies[level] + fields[level, candidate]
            for j in range(candidate + 1, n):
                fields[level + 1, j] = fields[level, j] + G[candidate, j]
            level += 1
            candidate += 1
    state = np.zeros(n, np.bool_)
    state[best_chosen] = True
    return best, state


class Enumerate(CardinalitySampler):
    """Every k-subset of at most 24 variables; the answer is proved by exhaustion."""

    name = "enumerate"
    exact = True
    max_variables = 24

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("preprocess"):
            G = problem.gram()
            own = problem.linear + 0.5 * problem.diagonal
        with request.timing.stage("execute"):
            _, state = best_subset(G, own, problem.cardinality)
        request.report(state)
        bound = float(problem.energy(state))
        return Solution(state[None], {"lower_bound": bound, "proved_optimal": True})
