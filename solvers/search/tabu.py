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

from typing import Any

import numpy as np
from numba import njit

from solvers.base import UNLIMITED, CardinalitySampler, ReadPool, Request, Solution
from solvers.clock.deadline import Deadline
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.group_kernels import group_tabu_search
from solvers.search.kernels import Integers, dense_pays
from solvers.search.randomness import RandomState, random_pair, random_state_from
from solvers.search.reads import checked_threads, make_reads
from solvers.search.repair import LocalSearch, by_group
from solvers.search.schedule import hottest
from solvers.search.starts import Starts, kicked

CORE = 512
WHOLE = 2048
TENURE = 10
# Iterations without improvement, in units of the core's size, before a search is ended.
PATIENCE = 2
# Searches in one read; the first read of a time limit has fewer, each next one twice as many.
ROUNDS = 200
FIRST_ROUNDS = 100
# A kick swaps at most this share of the core.
KICK = 0.02
# A state is gone on from if it is worse than the last by less than this share of `hottest`.
WORSE = 0.4
# Iterations between two looks at the clock: a few milliseconds.
ITERATIONS_PER_CHECK = 2000

# Loops over numbers without NaN, infinite ones included, that the compiler may reorder.
LOOPS = {"nnan", "nsz", "reassoc", "contract"}
LAST = np.iinfo(np.int64).max


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _move(f: Floats, x: Bools, half: Floats, less: Floats, more: Floats, costs: Floats) -> None:
    """``f += more - less``; the cost of every flip."""
    for p in range(len(f)):
        v = f[p] + (more[p] - less[p])
        f[p] = v
        costs[p] = half[p] + (-v if x[p] else v)


@njit(cache=True, nogil=True)
def _cheapest(
    bits: Integers, x: Bools, free_at: Integers, now: int, low: int
) -> tuple[int, int]:  # fmt: skip
    """The free one and the free zero of least cost; -1 for none.

    The bits of numbers, with all but the sign turned over where it is negative, are integers in the
    same order. Their last ones make room for the place.
    """
    one = zero = LAST
    for p in range(len(bits)):
        key = bits[p] ^ LAST if bits[p] < 0 else bits[p]
        key = (key & ~low) | p if free_at[p] <= now else LAST
        one = min(one, key if x[p] else LAST)
        zero = min(zero, LAST if x[p] else key)
    return (-1 if one == LAST else one & low), (-1 if zero == LAST else zero & low)


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _pairs(
    costs: Floats, x: Bools, free_at: Integers, now: int, row_in: Floats, row_out: Floats,
    cost_in: float, cost_out: float, aspired: float, pairs: Floats,
) -> None:  # fmt: skip
    """What each swap of the two rows costs, infinite where it is tabu."""
    for p in range(len(costs)):
        v = costs[p] + (cost_in - row_in[p] if x[p] else cost_out - row_out[p])
        pairs[p] = np.inf if free_at[p] > now and v >= aspired else v


@njit(cache=True, nogil=True)
def _least(bits: Integers, low: int) -> int:
    """The place of the least number, by its bits."""
    least = LAST
    for p in range(len(bits)):
        key = bits[p] ^ LAST if bits[p] < 0 else bits[p]
        least = min(least, (key & ~low) | p)
    return least & low


@njit(cache=True, nogil=True)
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
    low = 1
    while low < m:
        low = 2 * low + 1
    half, none = 0.5 * np.diag(G), np.zeros(m)
    costs, pairs = np.empty(m), np.empty(m)
    cost_bits, pair_bits = costs.view(np.int64), pairs.view(np.int64)
    _move(f, x, half, none, none, costs)
    improved = -1
    for now in range(first, first + count):
        out, into = _cheapest(cost_bits, x, free_at, now, low)
        if out < 0 and into < 0:
            continue
        cost_out, cost_in = np.inf, np.inf
        if out >= 0:
            cost_out = costs[out]
        if into >= 0:
            cost_in = costs[into]
        aspired = energies[1] - energies[0] - tolerance
        _pairs(
            costs, x, free_at, now, G[max(into, 0)], G[max(out, 0)], cost_in, cost_out, aspired,
            pairs,
        )  # fmt: skip
        p = _least(pair_bits, low)
        delta = pairs[p]
        if delta == np.inf:
            continue
        i, j = (p, into) if x[p] else (out, p)
        x[i], x[j] = False, True
        _move(f, x, half, G[i], G[j], costs)
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
    if len(core) == search.problem.n and search.dense:
        part, G, groups = search.problem, search.G, search.groups
    else:
        part = search.problem.restricted(core, at=x)
        G, groups = part.gram(), by_group(part)
    m, k = part.n, part.cardinality
    if part.only_state is not None:
        return x
    state = x[core]
    f, best = part.fields(state), state.copy()
    energies = np.full(2, float(part.energy(state)))
    tenures = np.array([min(TENURE, (k - 1) // 2), min(TENURE, (m - k - 1) // 2)])
    free_at = np.zeros(m, np.int64)
    random = random_state_from(rng)
    now, last = 0, 0
    while now - last < PATIENCE * m and not deadline.over:
        count = min(ITERATIONS_PER_CHECK, PATIENCE * m - (now - last))
        rest = free_at, now, count, tenures, energies, search.tolerance, best, random
        if groups is None:
            improved = tabu_search(G, f, state, *rest)
        else:
            improved = group_tabu_search(G, f, state, *groups[1:], *rest)
        last = max(last, improved)
        now += count
    found = x.copy()
    found[core] = best
    return found


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
    """Tabu searches with a kick after each; the best state, shape (n,).

    Args:
        search: of the problem.
        x: feasible state to begin at, shape (n,).
        rounds: tabu searches.
        worse: energy by which a state may be worse than the last one to be gone on from.
        rng: kicks and tenures.
        deadline: after which no round is begun.
        pool: told of improvements.
    """
    size = len(x) if search.dense and len(x) <= WHOLE else CORE
    best, best_energy = x, pool.improve(x)
    current, current_energy = x, best_energy
    for _ in range(rounds):
        if deadline.over:
            break
        core = core_of(search.problem, x, size)
        x = search_core(search, x, core, rng, deadline)
        if not search.dense:
            x = search.descend(x, deadline)
        energy = pool.improve(x)
        if energy < best_energy:
            best, best_energy = x, energy
        if energy < current_energy + worse:
            current, current_energy = x, energy
        core = core_of(search.problem, current, size)
        swaps = int(rng.integers(1, max(1, int(KICK * size)) + 1))
        x = kicked(current, core, swaps, rng, search.problem.groups)
    return search.descend(best, deadline)
