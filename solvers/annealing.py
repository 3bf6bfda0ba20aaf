"""Simulated annealing over swaps: the schedule and the sampler; see `solvers.walk` for a sweep.

The schedule is scaled to the instance: the temperature falls geometrically from `HEAT` times the
1 % quantile of the |swap energy change| at a descent optimum by a factor `COOLING`, then descent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from solvers.base import UNLIMITED, Budget, CardinalitySampler, ReadPool, Request, Solution
from solvers.deadline import Deadline
from solvers.descent import random_state
from solvers.kernels import ANNEALING_RANK_SHARE, dense_pays
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.reads import checked_threads, make_reads
from solvers.repair import LocalSearch
from solvers.walk import Walk, usual_margin

DEFAULT_SWEEPS = 1000
# Sweeps of the first read under a time limit; later reads take more, see `Pace`.
FIRST_SWEEPS = 100
# What a batch on a device makes where the budget does not say.
BATCH_READS = 1024
BATCH_SWEEPS = 200
HEAT = 4.0
COOLING = 1e-4


class Annealing(CardinalitySampler):
    """Swap annealing; each read ends in a descent.

    Given an incumbent, the first read starts there; the others start at random. The first read is
    at least as good as the descent (from the incumbent, else from the greedy state) that sets the
    temperatures. Under a time limit alone reads go on until it is over, each round of them with
    more sweeps.

    Args:
        num_threads: reads made at a time; one a usable CPU when None.
        device: None for the compiled kernels; a torch device (``cuda``, ``cpu``) to make all reads
            as one batch there, `BATCH_READS` of them unless the budget says otherwise.
    """

    name = "annealing"
    compiles = True
    honours = ("time_limit", "reads", "sweeps")
    takes_initial = True

    def __init__(self, *, num_threads: int | None = None, device: str | None = None) -> None:
        self.num_threads = checked_threads(num_threads)
        self._device = None
        if device is not None:
            from solvers.annealing_torch import checked_device

            self._device = checked_device(device)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        with request.timing.stage("preprocess"):
            if self._device is None:
                search = search_for(problem, request.deadline)
            else:
                search = LocalSearch(problem)
        pool = ReadPool(problem, request)
        with request.timing.stage("execute"):
            optimum = first_optimum(search, request)
            pool.improve(optimum)
            hot = hottest(search, optimum, request.rng)
            if self._device is None:
                self._read_by_read(search, request, pool, optimum, hot)
            else:
                self._all_at_once(search, request, pool, optimum, hot)
        return pool.solution(temperatures=[hot, hot * COOLING])

    def _read_by_read(
        self, search: LocalSearch, request: Request, pool: ReadPool, optimum: Bools, hot: float
    ) -> None:
        problem, budget = search.problem, request.budget
        reads = budget.reads or (1 if budget.time_limit is None else UNLIMITED)
        pace = Pace(budget, request.deadline, self.num_threads)

        def read(number: int, rng: np.random.Generator) -> Bools:
            start = request.initial
            if number or start is None:
                start = random_state(problem.n, problem.cardinality, rng)
            begun, sweeps = time.perf_counter(), pace.sweeps(number)
            walk = Walk(search, start, rng.integers(2**64, size=1, dtype=np.uint64))
            walk.anneal(hot * cooling(sweeps), deadline=request.deadline)
            state = search.descend(walk.x, request.deadline)
            pace.seconds_per_sweep = (time.perf_counter() - begun) / sweeps
            if number == 0 and problem.energy(optimum) < problem.energy(state):
                return optimum
            return state

        make_reads(read, pool, request, reads, self.num_threads)

    def _all_at_once(
        self, search: LocalSearch, request: Request, pool: ReadPool, optimum: Bools, hot: float
    ) -> None:
        from solvers.annealing_torch import anneal_batch

        problem, rng = search.problem, request.rng
        reads = request.budget.reads or BATCH_READS
        sweeps = request.budget.sweeps or BATCH_SWEEPS
        starts = [random_state(problem.n, problem.cardinality, rng) for _ in range(reads)]
        if request.initial is not None:
            starts[0] = request.initial
        assert self._device is not None
        states = anneal_batch(
            problem,
            np.array(starts),
            hot * cooling(sweeps),
            usual_margin(problem.n),
            self._device,
            int(rng.integers(2**63)),
            request.deadline,
        )
        # Best first, so that a time limit cuts off what matters least.
        for place in np.argsort(problem.energy(states), kind="stable"):
            state = search.descend(states[place], request.deadline)
            if pool.reads == 0 and problem.energy(optimum) < problem.energy(state):
                state = optimum
            pool.add(state)


def search_for(problem: CardinalityProblem, deadline: Deadline) -> LocalSearch:
    """The couplings that annealing is fastest with."""
    return LocalSearch(problem, dense_pays(problem, ANNEALING_RANK_SHARE * problem.n, deadline))


def first_optimum(search: LocalSearch, request: Request) -> Bools:
    """The descent optimum next to the incumbent if there is one, else to the greedy state."""
    start = request.initial
    if start is None:
        start = search.fill(np.zeros(search.problem.n, dtype=np.bool_), request.deadline)
    return search.descend(start, request.deadline)


@dataclass
class Pace:
    """How many sweeps each read makes.

    Those of the budget; under a time limit alone twice as many in each round of reads, one a
    thread, and in the last round as many as the time left allows: a read that is cut off while hot
    is worth nothing.

    Attributes:
        budget: what may be spent.
        deadline: of the call.
        num_threads: reads made at a time.
        seconds_per_sweep: of the read that ended last; 0 before that.
    """

    budget: Budget
    deadline: Deadline
    num_threads: int
    seconds_per_sweep: float = 0.0

    def sweeps(self, number: int) -> int:
        """Sweeps of a read that starts now."""
        if self.budget.sweeps is not None:
            return self.budget.sweeps
        if self.budget.reads is not None or self.budget.time_limit is None:
            return DEFAULT_SWEEPS
        planned = FIRST_SWEEPS << min(number // self.num_threads, 40)
        if not self.seconds_per_sweep:
            return FIRST_SWEEPS
        left = self.deadline.left
        fitting = int(0.9 * left / self.seconds_per_sweep)
        return max(1, fitting) if fitting < 3 * planned else planned


def cooling(sweeps: int) -> Floats:
    """Geometric from 1 to `COOLING`, shape (sweeps,)."""
    return np.asarray(COOLING ** np.linspace(0, 1, sweeps))


def hottest(search: LocalSearch, optimum: Bools, rng: np.random.Generator) -> float:
    """First temperature: `HEAT` times the 1 % quantile of |energy change| of 2000 random swaps.

    Args:
        search: n variables.
        optimum: a swap-descent optimum, shape (n,).
        rng: picks the swaps.
    """
    problem = search.problem
    out = rng.choice(np.flatnonzero(optimum), 2000)
    into = rng.choice(np.flatnonzero(~optimum), 2000)
    f, d = problem.fields(optimum), problem.diagonal
    deltas = f[into] - f[out] + 0.5 * (d[out] + d[into])
    if problem.factor is not None:
        deltas -= np.einsum("ir,ir->i", search.F[out], search.F[into])
    elif problem.quadratic is not None:
        deltas -= problem.quadratic[out, into]
    deltas = np.abs(deltas)
    # All swaps equal leave nothing to scale by; any temperature is then as good.
    return HEAT * (float(np.quantile(deltas, 0.01)) or float(deltas.max()) or 1.0)
