"""The published solver's algorithm, re-implemented plainly as the baseline.

Swap simulated annealing on the dense matrix: inverse temperatures from 0.001 to 100 by a factor
1.1, in the problem's own energy units; at each, sweeps (1 by default) of n proposals; every
proposal swaps a random one with a random zero and computes its energy change from two rows of the
matrix, O(n). Every restart begins with the first k variables at 1. A restart at n variables
thus multiplies and adds 2 n^2 times for each of 121 inverse temperatures, which at n = 256 and 1024
fits the published C++ times (0.3 s and 6 s for 20 restarts) at one multiplication a nanosecond.

Nothing clever is allowed in here: it is what the others are compared with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.problem import CardinalityProblem, Floats
from solvers.search.randomness import (
    RandomState,
    random_pair,
    random_state_from,
    random_unit,
)

BETA_FIRST, BETA_LAST, BETA_FACTOR = 0.001, 100.0, 1.1


def inverse_temperatures() -> Floats:
    """0.001, 0.0011, ... up to 100; shape (121,)."""
    count = int(np.log(BETA_LAST / BETA_FIRST) / np.log(BETA_FACTOR)) + 1
    return np.asarray(BETA_FIRST * BETA_FACTOR ** np.arange(count))


@njit(cache=True, nogil=True)
def published_sweep(G: Floats, c: Floats, x: Floats, beta: float, random: RandomState) -> None:
    """As many Metropolis swaps as variables, each change computed from scratch.

    Args:
        G: symmetric couplings, shape (n, n).
        c: linear term, shape (n,).
        x: state of 0.0 and 1.0, shape (n,); changed in place.
        beta: inverse temperature.
        random: its state, shape (1,).
    """
    n = len(c)
    ones, zeros = np.flatnonzero(x > 0.5), np.flatnonzero(x < 0.5)
    for _ in range(n):
        a, b = random_pair(random, len(ones), len(zeros))
        i, j = ones[a], zeros[b]
        field_i, field_j = c[i], c[j]
        for t in range(n):
            field_i += G[i, t] * x[t]
            field_j += G[j, t] * x[t]
        delta = field_j - field_i + 0.5 * (G[i, i] + G[j, j]) - G[i, j]
        if delta <= 0 or random_unit(random) < np.exp(-beta * delta):
            x[i], x[j] = 0.0, 1.0
            ones[a], zeros[b] = j, i


class PublishedAnnealing(CardinalitySampler):
    """Swap annealing with O(n) energy changes on the dense matrix, from the first k variables.

    Under a time limit alone it restarts until the time is over.
    """

    name = "reference-sa"
    compiles = True
    honours = ("time_limit", "reads", "sweeps")
    max_variables = 8192

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        budget = request.budget
        reads = budget.reads or (1 if budget.time_limit is None else UNLIMITED)
        with request.timing.stage("preprocess"):
            G = problem.gram()
        pool = ReadPool(problem, request)
        random = random_state_from(request.rng)
        betas = np.repeat(inverse_temperatures(), budget.sweeps or 1)
        with request.timing.stage("execute"):
            while pool.reads < reads:
                x = np.zeros(problem.n)
                x[: problem.cardinality] = 1.0
                for beta in betas:
                    published_sweep(G, problem.linear, x, beta, random)
                    if request.deadline.over:
                        break
                pool.add(x > 0.5)
                if request.deadline.over:
                    break
        return pool.solution(inverse_temperatures=len(betas))
