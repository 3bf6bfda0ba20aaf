"""Simulated annealing over swaps, on the low-rank factor.

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

The schedule is scaled to the instance: the temperature falls geometrically from `HEAT` times the
1 % quantile of the |swap energy change| at a descent optimum by a factor `COOLING`, then descent.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.base import UNLIMITED, Budget, CardinalitySampler, ReadPool, Request, Solution
from solvers.clock.deadline import NEVER, Deadline
from solvers.problem import Bools, CardinalityProblem, Floats
from solvers.search.descent import random_state
from solvers.search.kernels import (
    ANNEALING_RANK_SHARE,
    SUMS,
    Integers,
    Word,
    add_product,
    add_swap,
    dense_pays,
    random_pair,
    random_unit,
    work_per_check,
)
from solvers.search.reads import checked_threads, make_reads
from solvers.search.repair import LocalSearch

DEFAULT_SWEEPS = 1000
# Sweeps of the first read under a time limit; later reads take more, see `Pace`.
FIRST_SWEEPS = 100
# What a batch on a device makes where the budget does not say.
BATCH_READS = 1024
BATCH_SWEEPS = 200
HEAT = 4.0
COOLING = 1e-4
MARGIN = 10.0
WHOLE = 64
# Changes beyond this many temperatures are refused without asking for the exponential.
HOPELESS = 30.0


@njit(cache=True, nogil=True)
def window(
    d: Floats, f: Floats, x: Bools, reach: float, ones: Integers, zeros: Integers
) -> tuple[int, int]:
    """Variables whose swap with the cheapest partner, coupling aside, costs at most `reach`.

    Args:
        d: diagonal of G, shape (n,).
        f: fields at x, shape (n,).
        x: state, shape (n,).
        reach: energy.
        ones: gets those that are 1, shape (n,).
        zeros: gets those that are 0, shape (n,).

    Returns:
        How many of each.
    """
    least_out, least_in = np.inf, np.inf
    for i in range(len(f)):
        if x[i]:
            least_out = min(least_out, -f[i] + 0.5 * d[i])
        else:
            least_in = min(least_in, f[i] + 0.5 * d[i])
    num_ones, num_zeros = 0, 0
    for i in range(len(f)):
        if x[i]:
            if -f[i] + 0.5 * d[i] + least_in <= reach:
                ones[num_ones] = i
                num_ones += 1
        elif f[i] + 0.5 * d[i] + least_out <= reach:
            zeros[num_zeros] = i
            num_zeros += 1
    return num_ones, num_zeros


@njit(cache=True, nogil=True, fastmath=SUMS)
def sweep_factor(
    F: Floats, c: Floats, s: Floats, x: Bools, ones: Integers, zeros: Integers,
    temperature: float, proposals: int, word: Word,
) -> int:  # fmt: skip
    """Metropolis swaps on ``s = A x``.

    Args:
        F: ``A'``, shape (n, r).
        c: linear term, shape (n,).
        s: ``A x``, shape (r,); kept up to date.
        x: state, shape (n,); changed in place.
        ones: variables that are 1 and may be swapped; changed in place.
        zeros: variables that are 0 and may be swapped; changed in place.
        temperature: > 0.
        proposals: how many.
        word: random state, shape (1,).

    Returns:
        Accepted swaps.
    """
    rank = F.shape[1]
    accepted = 0
    for _ in range(proposals):
        a, b = random_pair(word, len(ones), len(zeros))
        i, j = ones[a], zeros[b]
        delta = 0.0
        for r in range(rank):
            v = F[j, r] - F[i, r]
            delta += v * (s[r] + 0.5 * v)
        delta += c[j] - c[i]
        if delta <= 0 or (
            delta < HOPELESS * temperature and random_unit(word) < np.exp(-delta / temperature)
        ):
            for r in range(rank):
                s[r] += F[j, r] - F[i, r]
            x[i], x[j] = False, True
            ones[a], zeros[b] = j, i
            accepted += 1
    return accepted


@njit(cache=True, nogil=True, fastmath=SUMS)
def sweep_dense(
    F: Floats, G: NDArray[Any], d: Floats, b: Floats, f: Floats, x: Bools, ones: Integers,
    zeros: Integers, temperature: float, proposals: int, word: Word,
) -> int:  # fmt: skip
    """Metropolis swaps on cached fields ``f = G x + c``, shape (n,); else as `sweep_factor`.

    The bound ``|G_ij| <= b_i b_j`` refuses most swaps without a look at G, whose entries are not
    in the processor's cache.
    """
    accepted = 0
    for _ in range(proposals):
        p, q = random_pair(word, len(ones), len(zeros))
        i, j = ones[p], zeros[q]
        delta = f[j] - f[i] + 0.5 * (d[i] + d[j])
        if delta - b[i] * b[j] > HOPELESS * temperature:
            continue
        delta -= G[i, j]
        if delta <= 0 or (
            delta < HOPELESS * temperature and random_unit(word) < np.exp(-delta / temperature)
        ):
            add_swap(F, G, f, i, j)
            x[i], x[j] = False, True
            ones[p], zeros[q] = j, i
            accepted += 1
    return accepted


@njit(cache=True, nogil=True)
def anneal(
    F: Floats, G: NDArray[Any], c: Floats, d: Floats, b: Floats, s: Floats, f: Floats, x: Bools,
    temperatures: Floats, margin: float, word: Word,
) -> int:  # fmt: skip
    """One sweep at each temperature, from a window of its own.

    Args:
        F: couplings, see `solvers.search.kernels`.
        G: couplings, see `solvers.search.kernels`.
        c: linear term, shape (n,).
        d: diagonal of G, shape (n,).
        b: coupling bounds, shape (n,).
        s: ``A x``, shape (r,); kept up to date where G is empty, else unused.
        f: fields at x, shape (n,); kept up to date where G is given, else scratch.
        x: feasible state; changed in place.
        temperatures: > 0.
        margin: half-width of the window in temperatures.
        word: random state, shape (1,).

    Returns:
        Accepted swaps.
    """
    n = len(c)
    ones, zeros = np.empty(n, np.int64), np.empty(n, np.int64)
    accepted = 0
    for temperature in temperatures:
        if G.shape[0] == 0:
            f[:] = c
            add_product(F, s, f)
        m1, m0 = window(d, f, x, margin * temperature, ones, zeros)
        if m1 == 0 or m0 == 0:
            continue
        if G.shape[0] > 0:
            accepted += sweep_dense(
                F, G, d, b, f, x, ones[:m1], zeros[:m0], temperature, m1 + m0, word
            )
        else:
            accepted += sweep_factor(F, c, s, x, ones[:m1], zeros[:m0], temperature, m1 + m0, word)
    return accepted


@dataclass
class Walk:
    """A state with what the kernels keep up to date for it.

    Attributes:
        search: the problem's couplings.
        x: feasible state, shape (n,).
        word: random state, shape (1,).
    """

    search: LocalSearch
    x: Bools
    word: Word

    def __post_init__(self) -> None:
        self.x = self.x.copy()
        problem = self.search.problem
        if problem.factor is None:
            self.s, self.f = np.zeros(0), problem.fields(self.x)
        else:
            self.s = problem.factor @ self.x.astype(np.float64)
            self.f = self.s @ problem.factor + problem.linear

    @property
    def energy(self) -> float:
        """Energy of x less the problem's offset, from what is kept up to date."""
        c = self.search.problem.linear
        if self.search.dense:
            return 0.5 * float((self.f + c)[self.x].sum())
        return 0.5 * float((self.s * self.s).sum()) + float(c[self.x].sum())

    def twin(self, word: Word) -> Walk:
        """A walk that goes on from the same state with random numbers of its own."""
        twin = copy.copy(self)
        twin.x, twin.s, twin.f, twin.word = self.x.copy(), self.s.copy(), self.f.copy(), word
        return twin

    def anneal(
        self, temperatures: Floats, margin: float | None = None, deadline: Deadline = NEVER
    ) -> int:
        """One sweep at each temperature; returns the accepted swaps.

        Args:
            temperatures: > 0.
            margin: of the window, in temperatures; `usual_margin` when None.
            deadline: after which what is left of the sweeps is left out.
        """
        if margin is None:
            margin = usual_margin(len(self.x))
        search, n = self.search, len(self.x)
        # A sweep of n proposals, half of them accepted.
        work = n * (100 + (0.5 * n if search.dense else 2.0 * search.problem.rank))
        chunk = max(1, int(work_per_check(deadline) / work))
        accepted = 0
        for first in range(0, len(temperatures), chunk):
            if deadline.over:
                break
            accepted += anneal(
                search.F, search.G, search.problem.linear, search.diagonal, search.bounds, self.s,
                self.f, self.x, temperatures[first : first + chunk], margin, self.word,
            )  # fmt: skip
        return accepted


def usual_margin(n: int) -> float:
    """Half-width of the window in temperatures for n variables."""
    return MARGIN if n > WHOLE else np.inf


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
            from solvers.search.annealing_torch import checked_device

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
        from solvers.search.annealing_torch import anneal_batch

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
