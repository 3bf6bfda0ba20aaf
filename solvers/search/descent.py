"""Greedy construction and swap descent, on the factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.problem import Bools, CardinalityProblem
from solvers.search.kernels import DESCENT_RANK, dense_pays
from solvers.search.reads import checked_threads, make_reads
from solvers.search.repair import LocalSearch
from solvers.search.starts import Starts


class Greedy(CardinalitySampler):
    """From the empty set, adds the variable of best energy change k times.

    Nearly a sort of the linear term: the control every other solver must beat. Deterministic. When
    the time is over, what is missing is taken all at once, in order of the costs at that moment.
    """

    name = "greedy"
    compiles = True
    takes_groups = True
    honours = ("time_limit",)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("preprocess"):
            search = LocalSearch(problem, dense_pays(problem, DESCENT_RANK, request.deadline))
        with request.timing.stage("execute"):
            state = search.fill(np.zeros(problem.n, dtype=np.bool_), request.deadline)
        request.report(state)
        return Solution(state[None])


class Descent(CardinalitySampler):
    """Swap descent to a local optimum; reads begin as `Starts` says.

    Args:
        num_threads: reads made at a time; one a usable CPU when None.
    """

    name = "descent"
    compiles = True
    takes_groups = True
    honours = ("time_limit", "reads")
    takes_initial = True

    def __init__(self, *, num_threads: int | None = None) -> None:
        self.num_threads = checked_threads(num_threads)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        budget = request.budget
        reads = budget.reads or (10 if budget.time_limit is None else UNLIMITED)
        with request.timing.stage("preprocess"):
            search = LocalSearch(problem, dense_pays(problem, DESCENT_RANK, request.deadline))
            starts = Starts(search, request)

        def read(number: int, rng: np.random.Generator) -> Bools:
            return search.descend(starts.state(number, rng), request.deadline)

        pool = ReadPool(problem, request)
        with request.timing.stage("execute"):
            make_reads(read, pool, request, reads, self.num_threads)
        return pool.solution()
