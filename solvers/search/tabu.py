"""Tabu search over swaps, on a core of variables near the threshold.

Up to `WHOLE` variables the core is all of them. Of larger problems it is those that are cheapest to
swap at the current state, `CORE` of them, so that an iteration costs O(m) with m = `CORE` however
large the whole is. When the search in the core stops improving, swap descent over all variables
follows, then a kick: a few random swaps inside the core.

An iteration makes the better of two swaps, whether or not it lowers the energy: the best partner
of the cheapest one to remove and of the cheapest zero to add (Glover 1989, with the neighbourhood
thinned to two rows). A variable that moved is tabu for a random tenure; as a partner it is taken
all the same when that leads below the best energy known (aspiration).

Short searches and small kicks do best where large columns have to cancel each other; a state that
is slightly worse than the last one is gone on from all the same (iterated tabu search).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.clock.deadline import Deadline
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.kernels import dense_pays, work_per_check
from solvers.search.randomness import random_state_from
from solvers.search.reads import checked_threads, make_reads
from solvers.search.repair import LocalSearch, by_group
from solvers.search.schedule import hottest
from solvers.search.starts import Starts
from solvers.search.tabu_kernels import iterated_tabu_search

CORE = 512
WHOLE = 2048
TENURE = 10
# Iterations without improvement, in units of the core's size, before a search is ended.
PATIENCE = 2
# Searches in one read; the first read of a time limit has fewer, each next one twice as many.
ROUNDS = 200
FIRST_ROUNDS = 100
ROUNDS_A_CORE = 10
# A kick makes a random number of swaps up to this share of the core, or up to so many of them.
KICK = 0.02
FEWEST_SWAPS = 4
# A state is gone on from if it is worse than the last by less than this share of `hottest`.
WORSE = 1.0
# What an iteration costs beside 2 m, in multiplications.
OVERHEAD = 200


def core_of(problem: CardinalityProblem, x: Bools, size: int) -> Any:
    """The variables of least swap cost, coupling aside; both values in equal number if there.

    Args:
        problem: n variables.
        x: feasible state, shape (n,).
        size: at most so many.

    Returns:
        Indices, shape (min(n, size),).
    """
    if problem.n <= size:
        return np.arange(problem.n)
    costs = np.where(x, -1.0, 1.0) * problem.fields(x) + 0.5 * problem.diagonal
    if problem.groups is not None:
        return np.argsort(_with_partner(problem, x, costs), kind="stable")[:size]
    ones, zeros = np.flatnonzero(x), np.flatnonzero(~x)
    take = min(len(ones), max(size // 2, size - len(zeros)))
    ones = ones[np.argsort(costs[ones], kind="stable")[:take]]
    zeros = zeros[np.argsort(costs[zeros], kind="stable")[: size - take]]
    return np.concatenate([ones, zeros])


def _with_partner(problem: CardinalityProblem, x: Bools, costs: Floats) -> Floats:
    """Each variable's cost with that of the cheapest partner of its group, shape (n,).

    The cheapest variables by this, and so many as one likes, have a partner among them.
    """
    least = np.full((2, problem.num_groups), np.inf)
    np.minimum.at(least, (x.astype(int), problem.group_labels), costs)
    return np.asarray(costs + least[1 - x.astype(int), problem.group_labels])


class Tabu(CardinalitySampler):
    """Swap tabu search with aspiration, kicks and restarts.

    Reads begin as `Starts` says, each with a descent.

    Args:
        num_threads: reads made at a time; one a usable CPU when None.
    """

    name = "tabu"
    compiles = True
    takes_groups = True
    honours = ("time_limit", "reads")
    takes_initial = True

    def __init__(self, *, num_threads: int | None = None) -> None:
        self.num_threads = checked_threads(num_threads)

    def _solve(self, problem: CardinalityProblem, request: Request, **parameters: Any) -> Solution:
        budget = request.budget
        timed = budget.time_limit is not None and budget.reads is None
        reads = UNLIMITED if timed else budget.reads or 1
        with request.timing.stage("preprocess"):
            dense = problem.n <= WHOLE and dense_pays(problem, 0, request.deadline)
            search = LocalSearch(problem, dense)
            starts = Starts(search, request)
            worse = WORSE * hottest(search, starts.optimum, request.rng)
        pool = ReadPool(problem, request)
        pool.improve(starts.optimum)

        def read(number: int, rng: np.random.Generator) -> Bools:
            rounds = ROUNDS
            if timed:
                rounds = FIRST_ROUNDS << min(number // self.num_threads, 40)
            x = search.descend(starts.state(number, rng), request.deadline)
            return iterated(search, x, rounds, worse, rng, request.deadline, pool)

        with request.timing.stage("execute"):
            make_reads(read, pool, request, reads, self.num_threads)
        return pool.solution()


def iterated(
    search: LocalSearch,
    x: Bools,
    rounds: int,
    worse: float,
    rng: np.random.Generator,
    deadline: Deadline,
    pool: ReadPool,
) -> Bools:
    """Tabu searches with a kick before each but the first; the best state, shape (n,).

    Args:
        search: of the problem.
        x: feasible state to begin at, shape (n,).
        rounds: tabu searches.
        worse: energy by which a state may be worse than the last one to be gone on from.
        rng: kicks and tenures.
        deadline: after which no round is begun.
        pool: told of improvements.
    """
    best, best_energy = x, pool.improve(x)
    whole = search.dense and search.problem.n <= WHOLE
    made = 0
    while made < rounds and not deadline.over:
        core = np.arange(len(x)) if whole else core_of(search.problem, x, CORE)
        some = rounds - made if whole else min(ROUNDS_A_CORE, rounds - made)
        work = _Core(search, core, x, worse, rng)
        made += some
        for found in work.searched(some, deadline):
            if not whole:
                found = search.descend(found, deadline)
            energy = pool.improve(found)
            if energy < best_energy:
                best, best_energy = found, energy
        x = work.state if whole else best
    return search.descend(best, deadline)


class _Core:
    """Iterated tabu search inside a core, the other variables fixed.

    Attributes:
        state: where it is gone on from, shape (n,).
    """

    def __init__(
        self, search: LocalSearch, core: Any, x: Bools, worse: float, rng: np.random.Generator
    ) -> None:
        self._problem, self._core, self._worse = search.problem, core, worse
        if search.dense:
            self._G = search.G if len(core) == len(x) else search.G[np.ix_(core, core)]
        else:
            self._G = search.F[core] @ search.F[core].T
        labels = search.problem.groups
        groups = by_group(None if labels is None else labels[core])
        m = len(core)
        self._groups = (np.array([0, m]), np.arange(m)) if groups is None else groups[1:]
        self.state = x.copy()
        self._tolerance, self._random = search.tolerance, random_state_from(rng)

    def searched(self, rounds: int, deadline: Deadline) -> Iterator[Bools]:
        """Searches; each time the clock was looked at, the best state if there is a better one."""
        problem, core = self._problem, self._core
        x = self.state[core]
        m, k = len(x), int(x.sum())
        # None without a one or a zero: nothing is swapped then.
        tenures = np.maximum(0, [min(TENURE, (k - 1) // 2), min(TENURE, (m - k - 1) // 2)])
        best, energies = x.copy(), np.full(2, float(problem.energy(self.state)))
        count, made = int(work_per_check(deadline) / (2 * m + OVERHEAD)), 0
        while made < rounds and not deadline.over:
            known = energies[1]
            made += iterated_tabu_search(
                self._G, problem.fields(self.state)[core], x, *self._groups, rounds - made, count,
                made > 0, max(FEWEST_SWAPS, int(KICK * m)), PATIENCE * m, self._worse, tenures,
                energies, self._tolerance, best, self._random,
            )  # fmt: skip
            self.state[core] = x
            if energies[1] < known:
                found = self.state.copy()
                found[core] = best
                yield found
