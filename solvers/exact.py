"""Exact search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from solvers.base import CardinalitySampler, Request, Solution
from solvers.convex import UNIT, plus_offset, value
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


def subset_bound(problem: CardinalityProblem) -> float:
    """No k-subset has less energy, the problem's offset apart: enumeration with rounded-down terms.

    Each term is taken too small by all that rounding may add to it on its way into an energy: a
    coupling by the rounding of its inner product, a sum of m terms by ``m u`` of their sizes
    (Higham 2002, section 3.1).

    Args:
        problem: 1 <= k <= n <= 30 or so.
    """
    G = problem.gram()
    if problem.factor is None:
        sizes = np.abs(G)
    else:
        norms = np.sqrt(problem.diagonal)
        sizes = np.outer(norms, norms)
    own = problem.linear + 0.5 * problem.diagonal
    unit = UNIT * (problem.rank + 4 * problem.cardinality + 16)
    own_sizes = np.abs(problem.linear) + 0.5 * sizes.diagonal()
    return best_subset(G - unit * sizes, own - unit * own_sizes, problem.cardinality)[0]


class Enumerate(CardinalitySampler):
    """Every k-subset of at most 24 variables; the answer is proved by exhaustion.

    Where the largest terms are so much larger than those of the answer that rounding could hide a
    better one, a second pass with all terms rounded down decides whether the answer is proved.
    """

    name = "enumerate"
    compiles = True
    exact = True
    max_variables = 24

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("preprocess"):
            G = problem.gram()
            own = problem.linear + 0.5 * problem.diagonal
        with request.timing.stage("execute"):
            _, state = best_subset(G, own, problem.cardinality)
            best = value(problem, state)
            lower = best.energy - best.error
            k = problem.cardinality
            largest = np.abs(problem.linear).max() + 0.5 * k * problem.diagonal.max()
            largest = max(largest, 0.5 * k * np.abs(G).max())
            if UNIT * (problem.rank + 4 * k + 16) * k * largest > 0.1 * best.tolerance:
                lower = min(lower, subset_bound(problem))
        request.report(state)
        info = {
            "lower_bound": plus_offset(lower, problem),
            "proved_optimal": best.energy + best.error - lower <= best.tolerance,
            "tolerance": best.tolerance,
        }
        return Solution(state[None], info)
