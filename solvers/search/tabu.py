"""Tabu search over swaps, on a core of variables near the threshold.

The core is the variables that are cheapest to swap at the current state, at most `CORE` of them.
The problem restricted to it is small enough for dense fields however large the whole is, so an
iteration costs O(m) with m = `CORE`. When the search in the core stops improving, swap descent
over all variables follows, then a kick: random swaps inside the core of the best state, and a new
core.

An iteration makes the better of two swaps, whether or not it lowers the energy: the best partner
of the cheapest one to remove and of the cheapest zero to add (Glover 1989, with the neighbourhood
thinned to two rows). A variable that moved is tabu for a random tenure; as a partner it is taken
all the same when that leads below the best energy known (aspiration).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.clock.deadline import Deadline
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.annealing import first_optimum
from solvers.search.group_kernels import group_tabu_search
from solvers.search.kernels import SUMS, Integers
from solvers.search.randomness import RandomState, random_pair, random_state_from
from solvers.search.reads import checked_threads, make_reads
from solvers.search.repair import LocalSearch

CORE = 512
TENURE = 10
# Iterations without improvement, in units of the core's size, before a core is left.
PATIENCE = 10
# Cores searched in one read; the first read of a time limit has fewer, each next one twice as many.
ROUNDS = 20
FIRST_ROUNDS = 4
# Share of the core that a kick swaps.
KICK = 0.05
# Iterations between two looks at the clock: a few milliseconds.
ITERATIONS_PER_CHECK = 2000


@njit(cache=True, nogil=True, fastmath=SUMS)
def tabu_search(
    G: Floats, f: Floats, x: Bools, free_at: Integers, first: int, count: int, tenures: Integers,
    energies: Floats, tolerance: float, best: Bools, random: RandomState,
) -> int:  # fmt: skip
    """Tabu iterations `first` to `first + count - 1`.

    Args:
        G: couplings, shape (m, m).
        f: fields at x, shape (m,); kept up to date.
        x: state, shape (m,); changed in place.
        free_at: iteration from which each variable is no longer tabu, shape (m,); kept up to date.
        first: number of the first iteration.
        count: iterations.
        tenures: least tenure of a variable that became 1, and of one that became 0; each is drawn
            from 1 to 2 times that.
        energies: of x and of the best state, shape (2,); kept up to date.
        tolerance: an improvement must be larger than this.
        best: the best state, shape (m,); kept up to date.
        random: its state, shape (1,).

    Returns:
        Number of the iteration after the last improvement, or -1.
    """
    m = len(f)
    improved = -1
    for now in range(first, first + count):
        out, into = -1, -1
        cost_out, cost_in = np.inf, np.inf
        for i in range(m):
            if free_at[i] <= now:
                if x[i]:
                    if -f[i] + 0.5 * G[i, i] < cost_out:
                        out, cost_out = i, -f[i] + 0.5 * G[i, i]
                elif f[i] + 0.5 * G[i, i] < cost_in:
                    into, cost_in = i, f[i] + 0.5 * G[i, i]
        aspired = energies[1] - energies[0] - tolerance
        delta, i, j = np.inf, -1, -1
        for p in range(m):
            change = np.inf
            if x[p]:
                if into >= 0:
                    change = cost_in - f[p] + 0.5 * G[p, p] - G[into, p]
            elif out >= 0:
                change = cost_out + f[p] + 0.5 * G[p, p] - G[out, p]
            if change < delta and (free_at[p] <= now or change < aspired):
                delta = change
                i, j = (p, into) if x[p] else (out, p)
        if i < 0:
            continue
        x[i], x[j] = False, True
        for p in range(m):
            f[p] += G[j, p] - G[i, p]
        extra_one, extra_zero = random_pair(random, tenures[0] + 1, tenures[1] + 1)
        free_at[j] = now + 1 + tenures[0] + extra_one
        free_at[i] = now + 1 + tenures[1] + extra_zero
        energies[0] += delta
        if energies[0] < energies[1] - tolerance:
            energies[1] = energies[0]
            best[:] = x
            improved = now + 1
    return improved


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


def search_core(
    search: LocalSearch, x: Bools, core: Any, rng: np.random.Generator, deadline: Deadline
) -> Bools:
    """The best state that tabu search from x finds inside the core, others fixed; shape (n,)."""
    part = search.problem.restricted(core, at=x)
    m, k = part.n, part.cardinality
    if part.only_state is not None:
        return x
    members = np.argsort(part.group_labels, kind="stable").astype(np.int64)
    sizes = np.bincount(part.group_labels, minlength=part.num_groups)
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    G, state = part.gram(), x[core]
    f, best = part.fields(state), state.copy()
    energies = np.full(2, float(part.energy(state)))
    tenures = np.array([min(TENURE, (k - 1) // 2), min(TENURE, (m - k - 1) // 2)])
    free_at = np.zeros(m, np.int64)
    random = random_state_from(rng)
    now, last = 0, 0
    while now - last < PATIENCE * m and not deadline.over:
        count = min(ITERATIONS_PER_CHECK, PATIENCE * m)
        rest = free_at, now, count, tenures, energies, search.tolerance, best, random
        if part.groups is None:
            improved = tabu_search(G, f, state, *rest)
        else:
            improved = group_tabu_search(G, f, state, start, members, *rest)
        last = max(last, improved)
        now += count
    found = x.copy()
    found[core] = best
    return found


def kicked(x: Bools, core: Any, rng: np.random.Generator, groups: Any = None) -> Bools:
    """A copy of x with random swaps of a share `KICK` of the core, one pair at the least.

    With groups each swap is inside one, and none has two while others have none.
    """
    x, wanted = x.copy(), max(1, int(KICK * len(core)))
    if groups is None:
        _swap(x, core, wanted, rng)
        return x
    for u in rng.permutation(np.unique(groups[core])):
        wanted -= _swap(x, core[groups[core] == u], min(1, wanted), rng)
    return x


def _swap(x: Bools, part: Any, most: int, rng: np.random.Generator) -> int:
    """Random swaps in a part of x, in place, at most so many; how many were made."""
    ones, zeros = part[x[part]], part[~x[part]]
    swaps = min(len(ones), len(zeros), most)
    x[rng.choice(ones, swaps, replace=False)] = False
    x[rng.choice(zeros, swaps, replace=False)] = True
    return swaps


class Tabu(CardinalitySampler):
    """Swap tabu search with aspiration, kicks and restarts.

    The first read begins at the start if one is given, else at the greedy state; the others
    start at random. Each begins with a descent.

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
            search = LocalSearch(problem)
        pool = ReadPool(problem, request)

        def read(number: int, rng: np.random.Generator) -> Bools:
            if number:
                start = problem.random_state(rng)
                x = search.descend(start, request.deadline)
            else:
                x = first_optimum(search, request)
            rounds = ROUNDS
            if timed:
                rounds = FIRST_ROUNDS << min(number // self.num_threads, 40)
            return self._read(search, x, rounds, rng, request, pool)

        with request.timing.stage("execute"):
            make_reads(read, pool, request, reads, self.num_threads)
        return pool.solution()

    @staticmethod
    def _read(
        search: LocalSearch,
        x: Bools,
        rounds: int,
        rng: np.random.Generator,
        request: Request,
        pool: ReadPool,
    ) -> Bools:
        best, best_energy = x, pool.improve(x)
        for _ in range(rounds):
            if request.deadline.over:
                break
            core = core_of(search.problem, x, CORE)
            x = search_core(search, x, core, rng, request.deadline)
            x = search.descend(x, request.deadline)
            energy = pool.improve(x)
            if energy < best_energy - search.tolerance:
                best, best_energy = x, energy
            else:
                x = kicked(best, core_of(search.problem, best, CORE), rng, search.labels)
        return best
