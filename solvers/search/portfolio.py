"""One solver that picks a search by what the problem is like, and says what it picked.

Groups, or a linear term beside which the couplings are small, are annealed. All else is left to a
memetic search: tabu searches from built states fill a pool of elite states, then two of them are
crossed, and the child is annealed for a moment and searched again (after Galinier and Hao, 1999).
Variables that both parents agree on are kept, so that what large columns have in balance stays so.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.problem import Bools, CardinalityProblem
from solvers.search.annealing import Annealing
from solvers.search.kernels import dense_pays
from solvers.search.randomness import random_state_from
from solvers.search.reads import checked_threads, make_reads
from solvers.search.repair import LocalSearch
from solvers.search.schedule import cooling, hottest
from solvers.search.starts import Starts
from solvers.search.tabu import WHOLE, WORSE, iterated
from solvers.search.walks import Walk

# States of the pool; those that fill it begin as other reads do.
ELITE = 8
# Tabu searches of a state, and of the first one.
ROUNDS = 30
FIRST_ROUNDS = 100
# Sweeps of a child.
SWEEPS = 1000
# Reads of a call without a limit.
READS = 20
# A linear term whose spread is so many times that of what the couplings add rules alone.
LINEAR_RULES = 10.0


class Pool:
    """The best different states found, `ELITE` at the most; any thread may use it."""

    def __init__(self, problem: CardinalityProblem) -> None:
        self._problem = problem
        self._lock = threading.Lock()
        self._states: list[tuple[float, Bools]] = []

    def add(self, state: Bools) -> None:
        """Takes a state, shape (n,), unless it is there or worse than all of a full pool."""
        energy = float(self._problem.energy(state))
        with self._lock:
            if all((state != other).any() for _, other in self._states):
                self._states.append((energy, state))
                self._states.sort(key=lambda one: one[0])
                del self._states[ELITE:]

    def child(self, rng: np.random.Generator) -> Bools | None:
        """What two of the states agree on, the rest drawn from what they differ in; shape (n,).

        None where there are not two.
        """
        with self._lock:
            if len(self._states) < 2:
                return None
            one, other = (
                self._states[place][1] for place in rng.choice(len(self._states), 2, replace=False)
            )
        child = one & other
        for part in self._problem.members:
            apart = part[one[part] != other[part]]
            child[rng.choice(apart, len(apart) // 2, replace=False)] = True
        return child


class Portfolio(CardinalitySampler):
    """The search that fits the problem; ``info["picked"]`` says which, and why.

    Args:
        num_threads: reads made at a time; one a usable CPU when None. Under a number of reads, one.
    """

    name = "portfolio"
    compiles = True
    takes_groups = True
    honours = ("time_limit", "reads")
    takes_initial = True

    def __init__(self, *, num_threads: int | None = None) -> None:
        self.num_threads = checked_threads(num_threads)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        why = None
        if problem.groups is not None:
            why = f"annealing: {problem.num_groups} groups"
        elif linear_share(problem) > LINEAR_RULES:
            why = "annealing: the linear term rules"
        elif problem.n > WHOLE:
            why = f"annealing: more than {WHOLE} variables"
        if why is None:
            return self._memetic(problem, request)
        solution = Annealing(num_threads=self.num_threads)._solve(problem, request)
        solution.info["picked"] = why
        return solution

    def _memetic(self, problem: CardinalityProblem, request: Request) -> Solution:
        budget = request.budget
        reads = budget.reads or (READS if budget.time_limit is None else UNLIMITED)
        with request.timing.stage("preprocess"):
            search = LocalSearch(problem, dense_pays(problem, 0, request.deadline))
            starts = Starts(search, request)
            hot = hottest(search, starts.optimum, request.rng)
        pool, elite = ReadPool(problem, request), Pool(problem)
        pool.improve(starts.optimum)

        def read(number: int, rng: np.random.Generator) -> Bools:
            child = elite.child(rng) if number >= ELITE else None
            if child is None:
                x, rounds = starts.state(number, rng), ROUNDS if number else FIRST_ROUNDS
            else:
                walk, rounds = Walk(search, child, random_state_from(rng)), ROUNDS
                walk.anneal(hot * cooling(SWEEPS, 1), deadline=request.deadline)
                x = walk.x
            x = search.descend(x, request.deadline)
            x = iterated(search, x, rounds, WORSE * hot, rng, request.deadline, pool)
            elite.add(x)
            return x

        # What is in the pool depends on the order of reads.
        threads = 1 if budget.reads is not None else self.num_threads
        with request.timing.stage("execute"):
            make_reads(read, pool, request, reads, threads)
        return pool.solution(picked="memetic: couplings rule")


def linear_share(problem: CardinalityProblem) -> float:
    """The spread of the linear term over that of the diagonal; infinite without couplings."""
    couplings = float(np.std(problem.diagonal))
    linear = float(np.std(problem.linear))
    return linear / couplings if couplings else np.inf
