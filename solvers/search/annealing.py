"""Simulated annealing over swaps, on the low-rank factor.

The loops are in `solvers.search.annealing_kernels`, the state they work on and its window in
`solvers.search.walks`, temperatures and numbers of sweeps in `solvers.search.schedule`.

A proposal swaps a one with a zero. With ``s = A x`` kept up to date its energy change is
``c_j - c_i + v.(s + v / 2)``, ``v = A_j - A_i``: O(r), and nothing of size n^2 exists. Where r is
not small against n, cached fields ``f = G x + c`` make a proposal O(1) and an accepted swap O(n).

Proposals come from a window only: variables whose swap with the cheapest partner would raise the
energy by more than `MARGIN` temperatures are left out until the next sweep, when the window is
drawn anew from fresh fields. What is skipped would have been accepted with a probability below
``exp(-MARGIN)``, coupling aside. As the temperature falls the window shrinks from nearly all
variables to a handful around the threshold, and with it the cost of a sweep, which makes as many
proposals as the window has variables. What the coupling would have allowed is lost, which strong
curvature can punish where variables are few: up to `WHOLE` of them there is no window.

The schedule is scaled to the instance: a read begins at a built state (`solvers.search.starts`) and
the temperature falls geometrically from what a cheap swap costs at a descent optimum by a factor
`COOLING`, then descent. Hotter walks from anywhere forget how the largest columns cancel each other
and do not find back.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.clock.deadline import Deadline
from solvers.errors import ProblemError
from solvers.problem import Bools, CardinalityProblem
from solvers.search.kernels import ANNEALING_RANK_SHARE, dense_pays
from solvers.search.randomness import random_state_from
from solvers.search.reads import checked_threads, make_reads
from solvers.search.repair import LocalSearch
from solvers.search.schedule import COOLING, Pace, cooling, hottest
from solvers.search.starts import Starts
from solvers.search.walks import Walk, usual_margin

# What a batch on a device makes where the budget does not say.
BATCH_READS = 1024
BATCH_SWEEPS = 200


class Annealing(CardinalitySampler):
    """Swap annealing; each read ends in a descent.

    Reads begin as `Starts` says. The first read is at least as good as the descent (from the
    start, else from the greedy state) that sets the temperatures. Under a time limit alone reads go
    on until it is over, each round of them with more sweeps.

    Args:
        num_threads: reads made at a time; one a usable CPU when None.
        device: None for the compiled kernels; a torch device (``cuda``, ``cpu``) to make all reads
            as one batch there, `BATCH_READS` of them unless the budget says otherwise.
    """

    name = "annealing"
    compiles = True
    takes_groups = True
    honours = ("time_limit", "reads", "sweeps")
    takes_initial = True

    def __init__(self, *, num_threads: int | None = None, device: str | None = None) -> None:
        self.num_threads = checked_threads(num_threads)
        self._device = None
        if device is not None:
            from solvers.search.annealing_torch import checked_device

            self._device = checked_device(device)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        if self._device is not None and problem.groups is not None:
            raise ProblemError(
                f"device is {str(self._device)!r} and the problem has {problem.num_groups} groups, "
                "which batches on a device do not keep; leave device out"
            )
        with request.timing.stage("preprocess"):
            if self._device is None:
                search = search_for(problem, request.deadline)
            else:
                search = LocalSearch(problem)
        pool = ReadPool(problem, request)
        with request.timing.stage("execute"):
            starts = Starts(search, request)
            pool.improve(starts.optimum)
            hot = hottest(search, starts.optimum, request.rng)
            if self._device is None:
                self._read_by_read(starts, search, request, pool, hot)
            else:
                self._all_at_once(starts, search, request, pool, hot)
        return pool.solution(temperatures=[hot, hot * COOLING])

    def _read_by_read(
        self,
        starts: Starts,
        search: LocalSearch,
        request: Request,
        pool: ReadPool,
        hot: float,
    ) -> None:
        problem, budget = search.problem, request.budget
        reads = budget.reads or (1 if budget.time_limit is None else UNLIMITED)
        pace = Pace(budget, request.deadline, self.num_threads)

        def read(number: int, rng: np.random.Generator) -> Bools:
            begun, sweeps = time.perf_counter(), pace.sweeps(number)
            walk = Walk(search, starts.state(number, rng), random_state_from(rng))
            walk.anneal(hot * cooling(sweeps, number), deadline=request.deadline)
            state = search.descend(walk.x, request.deadline)
            pace.seconds_per_sweep = (time.perf_counter() - begun) / sweeps
            if number == 0 and problem.energy(starts.optimum) < problem.energy(state):
                return starts.optimum
            return state

        make_reads(read, pool, request, reads, self.num_threads)

    def _all_at_once(
        self,
        starts: Starts,
        search: LocalSearch,
        request: Request,
        pool: ReadPool,
        hot: float,
    ) -> None:
        from solvers.search.annealing_torch import anneal_batch

        problem, rng = search.problem, request.rng
        reads = request.budget.reads or BATCH_READS
        sweeps = request.budget.sweeps or BATCH_SWEEPS
        assert self._device is not None
        states = anneal_batch(
            problem,
            np.array([starts.state(number, rng) for number in range(reads)]),
            hot * cooling(sweeps),
            usual_margin(problem.n),
            self._device,
            int(rng.integers(2**63)),
            request.deadline,
        )
        # Best first, so that a time limit cuts off what matters least.
        for place in np.argsort(problem.energy(states), kind="stable"):
            state = search.descend(states[place], request.deadline)
            if pool.reads == 0 and problem.energy(starts.optimum) < problem.energy(state):
                state = starts.optimum
            pool.add(state)


def search_for(problem: CardinalityProblem, deadline: Deadline) -> LocalSearch:
    """The couplings that annealing is fastest with."""
    return LocalSearch(problem, dense_pays(problem, ANNEALING_RANK_SHARE * problem.n, deadline))
