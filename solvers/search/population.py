"""Population annealing over swaps (Hukushima and Iba 2003; Machta 2010).

A population of states is annealed together with the sweeps and the schedule of
`solvers.search.annealing`. At each step from inverse temperature ``beta`` to ``beta'`` it is
resampled: state i is expected ``exp(-(beta' - beta) E_i) / mean`` times in the new population, so
that bad basins die out and good ones are searched by several walkers.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.clock.deadline import Deadline
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.annealing import search_for
from solvers.search.randomness import random_state_from
from solvers.search.reads import checked_threads, make_reads
from solvers.search.schedule import Pace, cooling, hottest
from solvers.search.starts import Starts
from solvers.search.walks import Walk

POPULATION = 8
# Resampling costs n a walker, a sweep of it more.
SWEEPS_PER_STEP = 5


class PopulationAnnealing(CardinalitySampler):
    """Population annealing; a read is a population of 8 of which the best state is kept.

    Walkers begin as `Starts` says, each as a read of its own. The first read is at least as good as
    the descent that sets the temperatures, as in `Annealing`.

    Args:
        num_threads: reads made at a time; one a usable CPU when None.
    """

    name = "tempering"
    compiles = True
    takes_groups = True
    honours = ("time_limit", "reads", "sweeps")
    takes_initial = True

    def __init__(self, *, num_threads: int | None = None) -> None:
        self.num_threads = checked_threads(num_threads)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        budget = request.budget
        reads = budget.reads or (1 if budget.time_limit is None else UNLIMITED)
        with request.timing.stage("preprocess"):
            search = search_for(problem, request.deadline)
        pool = ReadPool(problem, request)
        with request.timing.stage("execute"):
            starts = Starts(search, request)
            optimum = starts.optimum
            pool.improve(optimum)
            hot = hottest(search, optimum, request.rng)
            pace = Pace(budget, request.deadline, self.num_threads)

            def read(number: int, rng: np.random.Generator) -> Bools:
                begun, sweeps = time.perf_counter(), pace.sweeps(number)
                walks: list[Walk] = []
                for place in range(POPULATION):
                    if walks and request.deadline.over:
                        break
                    start = starts.state(POPULATION * number + place, rng)
                    walks.append(Walk(search, start, random_state_from(rng)))
                walks = annealed(walks, hot * cooling(sweeps, number), rng, request.deadline)
                state = best_of(problem, [walk.x for walk in walks])
                state = search.descend(state, request.deadline)
                pace.seconds_per_sweep = (time.perf_counter() - begun) / sweeps
                return best_of(problem, [state, optimum]) if number == 0 else state

            make_reads(read, pool, request, reads, self.num_threads)
        return pool.solution(population=POPULATION)


def best_of(problem: CardinalityProblem, states: list[Bools]) -> Bools:
    """The state of least energy, the first of equal ones."""
    return states[int(np.argmin(problem.energy(np.array(states))))]


def annealed(
    walks: list[Walk], temperatures: Floats, rng: np.random.Generator, deadline: Deadline
) -> list[Walk]:
    """The population after all temperatures, or when the time is over."""
    for first in range(0, len(temperatures), SWEEPS_PER_STEP):
        step = temperatures[first : first + SWEEPS_PER_STEP]
        for walk in walks:
            walk.anneal(step, deadline=deadline)
        if deadline.over:
            break
        following = temperatures[first + SWEEPS_PER_STEP :]
        if len(following):
            energies = np.array([walk.energy for walk in walks])
            chosen = resampled(energies, 1 / following[0] - 1 / step[-1], rng)
            walks = _copied(walks, chosen, rng)
    return walks


def resampled(energies: Floats, beta_step: float, rng: np.random.Generator) -> Any:
    """Systematic resampling by the weights ``exp(-beta_step E)``.

    Args:
        energies: shape (m,).
        beta_step: rise of the inverse temperature, >= 0.
        rng: one number is drawn.

    Returns:
        Chosen places, ascending, shape (m,); place i is taken ``m w_i / sum w`` times, rounded up
        or down.
    """
    m = len(energies)
    weights = np.cumsum(np.exp(-(energies - energies.min()) * beta_step))
    points = (np.arange(m) + rng.random()) / m * weights[-1]
    return np.minimum(np.searchsorted(weights, points, side="right"), m - 1)


def _copied(walks: list[Walk], chosen: Any, rng: np.random.Generator) -> list[Walk]:
    """The chosen walkers; copies get random numbers of their own."""
    population, taken = [], set()
    for place in chosen.tolist():
        walk = walks[place]
        if place in taken:
            walk = walk.twin(random_state_from(rng))
        taken.add(place)
        population.append(walk)
    return population
