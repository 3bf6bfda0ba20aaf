"""How hot annealing starts, how it cools, and how many sweeps a read makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.base import Budget
from solvers.clock.deadline import Deadline
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.repair import LocalSearch

DEFAULT_SWEEPS = 1000
# Sweeps of the first read under a time limit; later reads take more, see `Pace`.
FIRST_SWEEPS = 100
# First temperatures of the reads in turn, in units of `hottest`, and the last as a share of it.
HEATS = (1.0, 0.4)
COOLING = 0.1
# Random swaps that are looked at, as far as their couplings take so many multiplications, and how
# many of all swaps are cheap, in units of the variables.
SAMPLES = 10_000
MULTIPLICATIONS = 2_000_000
CHEAP = 0.15


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


def cooling(sweeps: int, number: int = 0) -> Floats:
    """Geometric from one of `HEATS` to `COOLING` times that, shape (sweeps,).

    Args:
        sweeps: of the read.
        number: of the read, which says where it begins.
    """
    return np.asarray(HEATS[number % len(HEATS)] * COOLING ** np.linspace(0, 1, sweeps))


def hottest(search: LocalSearch, optimum: Bools, rng: np.random.Generator) -> float:
    """First temperature: the |energy change| that only `CHEAP` n swaps stay below; above 0.

    Of swaps a sample is taken.

    Args:
        search: n variables.
        optimum: a swap-descent optimum, shape (n,).
        rng: picks the swaps.
    """
    problem = search.problem
    samples = SAMPLES if search.dense else min(SAMPLES, MULTIPLICATIONS // max(1, problem.rank))
    out, into = _random_swaps(problem, optimum, max(1, samples), rng)
    f, d = problem.fields(optimum), problem.diagonal
    deltas = f[into] - f[out] + 0.5 * (d[out] + d[into])
    if search.dense:
        deltas -= search.G[out, into]
    else:
        deltas -= np.einsum("ir,ir->i", search.F[out], search.F[into])
    # Swaps of variables that do nothing, or the same, say nothing.
    deltas = np.abs(deltas)
    deltas = deltas[deltas > search.tolerance]
    if not len(deltas):
        return 1.0
    sizes = np.bincount(problem.group_labels, minlength=problem.num_groups)
    swaps = int((problem.group_ones * (sizes - problem.group_ones)).sum())
    share = min(1.0, max(CHEAP * problem.n / swaps, 3 / len(out)))
    return float(np.quantile(deltas, share))


def _random_swaps(
    problem: CardinalityProblem, x: Bools, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Ones of x and a zero for each, of the same group; shape (count,) each."""
    ones, zeros = np.flatnonzero(x), np.flatnonzero(~x)
    if problem.groups is None:
        return rng.choice(ones, count), rng.choice(zeros, count)
    zeros = zeros[np.argsort(problem.groups[zeros], kind="stable")]
    counts = np.bincount(problem.groups[zeros], minlength=problem.num_groups)
    first = np.cumsum(counts) - counts
    out = rng.choice(ones[counts[problem.groups[ones]] > 0], count)
    u = problem.groups[out]
    return out, zeros[first[u] + (rng.random(count) * counts[u]).astype(np.intp)]
