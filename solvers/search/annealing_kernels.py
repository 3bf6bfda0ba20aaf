"""The compiled loops of swap annealing: a window of variables, and Metropolis sweeps over it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.problem import Bools, Floats
from solvers.search.kernels import SUMS, Integers, add_product, add_swap
from solvers.search.randomness import RandomState, random_pair, random_unit

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
    temperature: float, proposals: int, random: RandomState,
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
        random: its state, shape (1,).

    Returns:
        Accepted swaps.
    """
    rank = F.shape[1]
    accepted = 0
    for _ in range(proposals):
        a, b = random_pair(random, len(ones), len(zeros))
        i, j = ones[a], zeros[b]
        delta = 0.0
        for r in range(rank):
            v = F[j, r] - F[i, r]
            delta += v * (s[r] + 0.5 * v)
        delta += c[j] - c[i]
        if delta <= 0 or (
            delta < HOPELESS * temperature and random_unit(random) < np.exp(-delta / temperature)
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
    zeros: Integers, temperature: float, proposals: int, random: RandomState,
) -> int:  # fmt: skip
    """Metropolis swaps on cached fields ``f = G x + c``, shape (n,); else as `sweep_factor`.

    The bound ``|G_ij| <= b_i b_j`` refuses most swaps without a look at G, whose entries are not
    in the processor's cache.
    """
    accepted = 0
    for _ in range(proposals):
        p, q = random_pair(random, len(ones), len(zeros))
        i, j = ones[p], zeros[q]
        delta = f[j] - f[i] + 0.5 * (d[i] + d[j])
        if delta - b[i] * b[j] > HOPELESS * temperature:
            continue
        delta -= G[i, j]
        if delta <= 0 or (
            delta < HOPELESS * temperature and random_unit(random) < np.exp(-delta / temperature)
        ):
            add_swap(F, G, f, i, j)
            x[i], x[j] = False, True
            ones[p], zeros[q] = j, i
            accepted += 1
    return accepted


@njit(cache=True, nogil=True)
def anneal(
    F: Floats, G: NDArray[Any], c: Floats, d: Floats, b: Floats, s: Floats, f: Floats, x: Bools,
    temperatures: Floats, margin: float, random: RandomState,
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
        random: its state, shape (1,).

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
                F, G, d, b, f, x, ones[:m1], zeros[:m0], temperature, m1 + m0, random
            )
        else:
            accepted += sweep_factor(
                F, c, s, x, ones[:m1], zeros[:m0], temperature, m1 + m0, random
            )
    return accepted
