"""Simulated annealing over swaps, on the low-rank factor.

A proposal swaps a random one with a random zero. With ``s = A x`` kept up to date its energy change
is ``c_j - c_i + v.(s + v / 2)``, ``v = A_j - A_i``: O(r), and nothing of size n^2 exists. Where r
is not small against n, cached fields ``f = G x + c`` make a proposal O(1) and an accepted swap
O(n).

The schedule is scaled to the instance: the temperature falls geometrically from the 1 % quantile of
the |swap energy change| at a descent optimum to a ten-thousandth of that, then descent.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.descent import descend_until, random_state
from solvers.kernels import add_column, random_below, random_unit
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.repair import LocalSearch

DEFAULT_SWEEPS = 200
COOLING = 1e-4
# Proposals between two looks at the clock: a few milliseconds.
PROPOSALS_PER_CHECK = 20_000


@njit(cache=True, nogil=True)
def anneal_factor(
    F: Floats,
    c: Floats,
    s: Floats,
    ones: NDArray[np.int64],
    zeros: NDArray[np.int64],
    temperatures: Floats,
    proposals: int,
    word: NDArray[np.uint64],
) -> int:
    """Metropolis swaps on ``s = A x``.

    Args:
        F: ``A'``, shape (n, r).
        c: linear term, shape (n,).
        s: ``A x``, shape (r,); kept up to date.
        ones: variables that are 1, shape (k,); changed in place.
        zeros: variables that are 0, shape (n - k,); changed in place.
        temperatures: one a sweep, > 0.
        proposals: a sweep.
        word: random state, shape (1,).

    Returns:
        Accepted swaps.
    """
    rank = F.shape[1]
    accepted = 0
    for temperature in temperatures:
        for _ in range(proposals):
            a, b = random_below(word, len(ones)), random_below(word, len(zeros))
            i, j = ones[a], zeros[b]
            delta = c[j] - c[i]
            for r in range(rank):
                v = F[j, r] - F[i, r]
                delta += v * (s[r] + 0.5 * v)
            if delta <= 0 or random_unit(word) < np.exp(-delta / temperature):
                for r in range(rank):
                    s[r] += F[j, r] - F[i, r]
                ones[a], zeros[b] = j, i
                accepted += 1
    return accepted


@njit(cache=True, nogil=True)
def anneal_dense(
    G: Floats,
    f: Floats,
    ones: NDArray[np.int64],
    zeros: NDArray[np.int64],
    temperatures: Floats,
    proposals: int,
    word: NDArray[np.uint64],
) -> int:
    """Metropolis swaps on cached fields ``f = G x + c``, shape (n,); else as `anneal_factor`."""
    empty = np.empty((0, 0))
    accepted = 0
    for temperature in temperatures:
        for _ in range(proposals):
            a, b = random_below(word, len(ones)), random_below(word, len(zeros))
            i, j = ones[a], zeros[b]
            delta = f[j] - f[i] + 0.5 * (G[i, i] + G[j, j]) - G[i, j]
            if delta <= 0 or random_unit(word) < np.exp(-delta / temperature):
                add_column(empty, G, f, i, -1.0)
                add_column(empty, G, f, j, 1.0)
                ones[a], zeros[b] = j, i
                accepted += 1
    return accepted


class Annealing(CardinalitySampler):
    """Swap annealing; each read ends in a descent. Reads repeat until the time limit.

    Given an incumbent, the first read starts there.
    """

    name = "annealing"
    honours = ("time_limit", "reads", "sweeps")
    takes_initial = True

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        budget = request.budget
        reads = budget.reads or (1 if budget.time_limit is None else UNLIMITED)
        sweeps = budget.sweeps or DEFAULT_SWEEPS
        with request.timing.stage("preprocess"):
            search = LocalSearch(problem)
        pool = ReadPool(problem, request)
        with request.timing.stage("execute"):
            start = request.initial
            if start is None:
                start = random_state(problem.n, problem.cardinality, request.rng)
            optimum = descend_until(search, start, request.deadline)
            temperatures = schedule(problem, optimum, sweeps, request.rng)
            word = request.rng.integers(2**64, size=1, dtype=np.uint64)
            while pool.reads < reads:
                if pool.reads:
                    start = random_state(problem.n, problem.cardinality, request.rng)
                state = _anneal(search, start, temperatures, word, request.deadline)
                pool.add(descend_until(search, state, request.deadline))
                if time.perf_counter() >= request.deadline:
                    break
        return pool.solution(sweeps=sweeps, temperatures=[temperatures[0], temperatures[-1]])


def schedule(
    problem: CardinalityProblem, optimum: Bools, sweeps: int, rng: np.random.Generator
) -> Floats:
    """Temperatures by sweep, shape (sweeps,); see the module's docstring.

    Args:
        problem: n variables.
        optimum: a swap-descent optimum, shape (n,).
        sweeps: >= 1.
        rng: picks 2000 swaps.
    """
    out = rng.choice(np.flatnonzero(optimum), 2000)
    into = rng.choice(np.flatnonzero(~optimum), 2000)
    f, d = problem.fields(optimum), problem.diagonal
    deltas = f[into] - f[out] + 0.5 * (d[out] + d[into])
    if problem.factor is not None:
        deltas -= np.einsum("ri,ri->i", problem.factor[:, out], problem.factor[:, into])
    elif problem.quadratic is not None:
        deltas -= problem.quadratic[out, into]
    deltas = np.abs(deltas)
    # All swaps equal leave nothing to scale by; any temperature is then as good.
    hot = float(np.quantile(deltas, 0.01)) or float(deltas.max()) or 1.0
    return hot * COOLING ** np.linspace(0, 1, sweeps)


def _anneal(
    search: LocalSearch,
    start: Bools,
    temperatures: Floats,
    word: NDArray[np.uint64],
    deadline: float,
) -> Bools:
    """One read; stops between chunks of sweeps when the deadline has passed."""
    problem = search.problem
    ones, zeros = np.flatnonzero(start), np.flatnonzero(~start)
    chunk = len(temperatures)
    if deadline < np.inf:
        chunk = max(1, PROPOSALS_PER_CHECK // problem.n)
    dense = len(search.G) > 0
    moments = problem.fields(start) if dense else search.F.T @ start
    for first in range(0, len(temperatures), chunk):
        some = temperatures[first : first + chunk]
        if dense:
            anneal_dense(search.G, moments, ones, zeros, some, problem.n, word)
        else:
            anneal_factor(search.F, problem.linear, moments, ones, zeros, some, problem.n, word)
        if time.perf_counter() >= deadline:
            break
    state = np.zeros(problem.n, dtype=np.bool_)
    state[ones] = True
    return state
