"""The compiled loops of iterated tabu search."""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.problem import Bools, Floats
from solvers.search.group_kernels import group_tabu_search
from solvers.search.kernels import Integers
from solvers.search.randomness import RandomState, random_pair

# A search that keeps improving ends after so many times its patience, to be gone on from.
LONGEST = 4
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


@njit(cache=True, nogil=True)
def _flip(G: Floats, f: Floats, x: Bools, p: int) -> None:
    """Flips a variable; f is kept up to date."""
    sign = -1.0 if x[p] else 1.0
    x[p] = not x[p]
    for q in range(len(f)):
        f[q] += sign * G[p, q]


@njit(cache=True, nogil=True)
def _kick(
    G: Floats, f: Floats, x: Bools, start: Integers, members: Integers, swaps: int,
    random: RandomState,
) -> None:  # fmt: skip
    """Random swaps inside groups; a try may hit two equal values, and is then lost."""
    m, made = len(f), 0
    for _ in range(100 * swaps):
        a, b = random_pair(random, m, 2**31)
        u = np.searchsorted(start, a, side="right") - 1
        size = start[u + 1] - start[u]
        i, j = members[a], members[start[u] + b * size // 2**31]
        if x[i] != x[j]:
            _flip(G, f, x, i)
            _flip(G, f, x, j)
            made += 1
            if made == swaps:
                return


@njit(cache=True, nogil=True)
def iterated_tabu_search(
    G: Floats, f: Floats, x: Bools, start: Integers, members: Integers, rounds: int, count: int,
    kicked: bool, swaps: int, patience: int, worse: float, tenures: Integers, energies: Floats,
    tolerance: float, best: Bools, random: RandomState,
) -> int:  # fmt: skip
    """Tabu searches, each from the state that the last one was left with, kicked.

    Args:
        G: couplings, shape (m, m).
        f: fields at x, shape (m,); kept up to date.
        x: state, shape (m,); changed in place.
        start: places of groups in `members`.
        members: variables by group, shape (m,).
        rounds: searches at the most.
        count: iterations at the most; a search that would not have its patience is not begun, but
            for the first one.
        kicked: whether the first search begins with a kick as well.
        swaps: of a kick at the most, from 1.
        patience: iterations without improvement after which a search is ended.
        worse: a state is gone on from if it is worse than the last one by less than this.
        tenures: as of `tabu_search`.
        energies: of x and of the best state, shape (2,); kept up to date.
        tolerance: an improvement must be larger than this.
        best: the best state, shape (m,); kept up to date.
        random: its state, shape (1,).

    Returns:
        Searches made.
    """
    m = len(f)
    free_at, found, pair = np.zeros(m, np.int64), x.copy(), np.empty(2)
    last_x, last_f = x.copy(), f.copy()
    made, iterations = 0, 0
    while made < rounds and (made == 0 or iterations + patience <= count):
        if kicked or made:
            _kick(G, f, x, start, members, 1 + random_pair(random, swaps, 1)[0], random)
        pair[:] = energies[0] + _change(x, last_x, f, last_f)
        free_at[:] = 0
        found[:] = x
        now, last = 0, 0
        most = min(LONGEST * patience, count - iterations)
        while now - last < patience and now < most:
            steps = min(patience - (now - last), most - now)
            if len(start) > 2:
                improved = group_tabu_search(
                    G, f, x, start, members, free_at, now, steps, tenures, pair, tolerance, found,
                    random,
                )  # fmt: skip
            else:
                improved = tabu_search(
                    G, f, x, free_at, now, steps, tenures, pair, tolerance, found, random
                )
            last = max(last, improved)
            now += steps
        iterations += now
        made += 1
        for p in range(m):
            if x[p] != found[p]:
                _flip(G, f, x, p)
        if pair[1] < energies[1] - tolerance:
            energies[1] = pair[1]
            best[:] = x
        if pair[1] < energies[0] + worse:
            energies[0] = pair[1]
            last_x[:] = x
            last_f[:] = f
        else:
            x[:] = last_x
            f[:] = last_f
    return made


@njit(cache=True, nogil=True)
def _change(x: Bools, before: Bools, f: Floats, f_before: Floats) -> float:
    """By how much the energy has changed between two states, from their fields."""
    total = 0.0
    for p in range(len(x)):
        if x[p] != before[p]:
            mean = 0.5 * (f[p] + f_before[p])
            total += mean if x[p] else -mean
    return total
