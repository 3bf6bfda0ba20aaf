"""Greedy construction and swap descent, on the factor."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.kernels import DESCENT_RANK, dense_pays
from solvers.problem import Bools, CardinalityProblem
from solvers.reads import checked_threads, make_reads
from solvers.repair import LocalSearch

# Multiplications between two looks at the clock, about 10 ms.
WORK_PER_CHECK = 2e7


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
    """Swap descent to a local optimum from random starts, or from the incumbent if given one.

    Args:
        num_threads: reads made at a time; one a usable CPU when None.
    """

    name = "descent"
    honours = ("time_limit", "reads")
    takes_initial = True

    def __init__(self, *, num_threads: int | None = None) -> None:
        self.num_threads = checked_threads(num_threads)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        budget = request.budget
        reads = budget.reads or (10 if budget.time_limit is None else UNLIMITED)
        with request.timing.stage("preprocess"):
            search = LocalSearch(problem, dense_pays(problem, DESCENT_RANK, request.deadline))

        def read(number: int, rng: np.random.Generator) -> Bools:
            start = request.initial
            if number or start is None:
                start = random_state(problem.n, problem.cardinality, rng)
            return descend_until(search, start, request.deadline)

        pool = ReadPool(problem, request)
        with request.timing.stage("execute"):
            make_reads(read, pool, request, reads, self.num_threads)
        return pool.solution()


def descend_until(search: LocalSearch, start: Bools, deadline: float) -> Bools:
    """Swap descent that looks at the clock every few milliseconds."""
    if deadline == np.inf:
        return search.descend(start)[0]
    problem = search.problem
    swap = 4 * problem.n if search.dense else problem.n * (problem.rank + 4)
    chunk = max(1, int(WORK_PER_CHECK / swap))
    state, done = start, False
    while not done and time.perf_counter() < deadline:
        state, done = search.descend(state, chunk)
    return state
