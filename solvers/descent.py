"""Greedy construction and swap descent, on the factor."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.problem import Bools, CardinalityProblem
from solvers.repair import LocalSearch

# One swap costs O(n r); between chunks of this many the clock is read.
SWAPS_PER_CHECK = 64


def random_state(n: int, k: int, rng: np.random.Generator) -> Bools:
    """A uniform state of k ones."""
    state = np.zeros(n, dtype=np.bool_)
    state[rng.permutation(n)[:k]] = True
    return state


class Greedy(CardinalitySampler):
    """From the empty set, adds the variable of best energy change k times.

    Nearly a sort of the linear term: the control every other solver must beat. Deterministic.
    """

    name = "greedy"

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("preprocess"):
            search = LocalSearch(problem)
        with request.timing.stage("execute"):
            state = search.fill(np.zeros(problem.n, dtype=np.bool_))
        request.report(state)
        return Solution(state[None])


class Descent(CardinalitySampler):
    """Swap descent to a local optimum from random starts, or from the incumbent if given one."""

    name = "descent"
    honours = ("time_limit", "reads")
    takes_initial = True

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        budget = request.budget
        reads = budget.reads or (10 if budget.time_limit is None else UNLIMITED)
        with request.timing.stage("preprocess"):
            search = LocalSearch(problem)
        pool = ReadPool(problem, request)
        with request.timing.stage("execute"):
            while pool.reads < reads:
                start = request.initial
                if pool.reads or start is None:
                    start = random_state(problem.n, problem.cardinality, request.rng)
                pool.add(descend_until(search, start, request.deadline))
                if time.perf_counter() >= request.deadline:
                    break
        return pool.solution()


def descend_until(search: LocalSearch, start: Bools, deadline: float) -> Bools:
    """Swap descent that looks at the clock every `SWAPS_PER_CHECK` swaps."""
    chunk = SWAPS_PER_CHECK if deadline < np.inf else 2**62
    state, done = search.descend(start, chunk)
    while not done and time.perf_counter() < deadline:
        state, done = search.descend(state, chunk)
    return state
