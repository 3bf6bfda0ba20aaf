"""A Metropolis walk over swaps, on the low-rank factor.

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
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.deadline import NEVER, Deadline
from solvers.kernels import (
    SUMS,
    Integers,
    Word,
    add_product,
    add_swap,
    random_pair,
    random_unit,
    work_per_check,
)
from solvers.problem import Bools, Floats
from solvers.repair import LocalSearch

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
        F: couplings, see `solvers.kernels`.
        G: couplings, see `solvers.kernels`.
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
