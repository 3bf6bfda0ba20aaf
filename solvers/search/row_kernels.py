"""Swap search on the rows of a layer, in loops that run in the processor's vectors.

Costs of changes are arrays that are infinite where a variable is on the other side, so that no loop
branches. Least values are found on the bits of the numbers: read as integers, with all but the sign
turned over where it is negative, they are in the same order, and a least integer is found
several times as fast as a least float.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.problem import Bools
from solvers.search.randomness import RandomState, random_pair

Array = NDArray[Any]
# Least iterations that a variable which moved stays where it is; as many more at random.
TENURE = 10
# Descents of a row at the most, each from fields made anew.
ROUNDS = 6
# Inputs of a group of which every swap is looked at.
SMALL = 16
# Loops over numbers without NaN, infinite ones included, that the compiler may reorder.
LOOPS = {"nnan", "nsz", "reassoc", "contract"}


class _Row(NamedTuple):
    """One row at work; all arrays but H have shape (d,).

    Attributes:
        H: shape (d, d).
        w: weights.
        x: True where a weight is pruned.
        q: ``H(w*x)``.
        own: ``w_i^2 H_ii``.
        prune: what pruning a kept weight costs, infinite where it is pruned.
        keep: what keeping a pruned weight costs, infinite where it is kept.
        pairs: room for the costs of a swap's partners.
        bits: those three as integers, shape (3, d).
    """

    H: Array
    w: Array
    x: Bools
    q: Array
    own: Array
    prune: Array
    keep: Array
    pairs: Array
    bits: Array


def room(d: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """What `search_part` works in: numbers, and the same memory as integers, shape (3, d)."""
    numbers = np.empty((3, d), dtype)
    return numbers, numbers.view(f"i{numbers.itemsize}")


@njit(cache=True, nogil=True)
def search_part(
    H: Array, W: Array, x: Bools, m: int, steps: int, randoms: NDArray[np.uint64], tolerance: Any,
    numbers: Array, bits: Array,
) -> int:  # fmt: skip
    """Searches rows in place.

    Args:
        H: shape (d, d).
        W: weights, shape (R, d), of H's type.
        x: masks, True where a weight is pruned, shape (R, d).
        m: inputs of a group, each of which keeps its number of pruned weights.
        steps: iterations of tabu search; 0 for descent alone.
        randoms: state of each row's random numbers, shape (R, 1).
        tolerance: a swap lowers the error by more than this share of its terms, of H's type.
        numbers: of `room`.
        bits: likewise.

    Returns:
        How many swaps were made.
    """
    total = 0
    diagonal = np.diag(H)
    for r in range(W.shape[0]):
        w = W[r]
        row = _Row(
            H, w, x[r], np.empty_like(w), w * w * diagonal, numbers[0], numbers[1], numbers[2], bits
        )
        total += _descend(row, m, tolerance)
        if steps:
            total += _tabu(row, m, steps, randoms[r], tolerance)
            total += _descend(row, m, tolerance)
    return total


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _add(q: Array, a: Any, line: Array) -> None:
    """``q += a line``."""
    for j in range(len(q)):
        q[j] += a * line[j]


@njit(cache=True, nogil=True)
def _fields(row: _Row) -> None:
    """q, anew."""
    row.q[:] = 0
    for i in range(len(row.w)):
        if row.x[i]:
            _add(row.q, row.w[i], row.H[i])


@njit(cache=True, nogil=True)
def _swap(row: _Row, into: int, out: int) -> None:
    """Prunes `into` and keeps `out` again."""
    row.x[into], row.x[out] = True, False
    _add(row.q, row.w[into], row.H[into])
    _add(row.q, -row.w[out], row.H[out])


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _costs(
    w: Array, x: Bools, q: Array, own: Array, tolerance: Any, prune: Array, keep: Array
) -> None:
    far = prune.dtype.type(np.inf)
    for i in range(len(w)):
        cross = w[i] * q[i]
        cross += cross
        change = own[i] - cross if x[i] else own[i] + cross
        change += tolerance * (abs(cross) + own[i])
        prune[i] = far if x[i] else change
        keep[i] = change if x[i] else far


@njit(cache=True, nogil=True)
def _refresh(row: _Row, low: int, high: int, tolerance: Any) -> None:
    """The costs of a group's changes, each with what of its own terms may be rounding on top."""
    part = slice(low, high)
    _costs(
        row.w[part], row.x[part], row.q[part], row.own[part], tolerance, row.prune[part],
        row.keep[part],
    )  # fmt: skip


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _pair_costs(pairs: Array, costs: Array, w: Array, line: Array, a: Any) -> None:
    """``costs - 2 a w line``: of the partners of a change of a weight a, its own left out."""
    twice = a + a
    for j in range(len(pairs)):
        pairs[j] = costs[j] - twice * w[j] * line[j]


@njit(cache=True, nogil=True)
def _partners(row: _Row, costs: Array, i: int, low: int, high: int) -> None:
    """Into `pairs`, what swaps of i with each weight of a group cost, i's own cost left out."""
    part = slice(low, high)
    _pair_costs(row.pairs[part], costs[part], row.w[part], row.H[i, part], row.w[i])


@njit(cache=True, nogil=True)
def _least(bits: Array) -> Any:
    """The least of some numbers, by their bits, in the order of integers."""
    most = np.iinfo(bits.dtype).max
    least = most
    for i in range(len(bits)):
        least = min(least, bits[i] ^ most if bits[i] < 0 else bits[i])
    return least


@njit(cache=True, nogil=True)
def _cheapest(bits: Array) -> int:
    """Where the least of some numbers is, by their bits."""
    least = _least(bits)
    own = least ^ np.iinfo(bits.dtype).max if least < 0 else least
    where = len(bits)
    for i in range(len(bits)):
        where = min(where, i if bits[i] == own else len(bits))
    return where


@njit(cache=True, nogil=True)
def _descend(row: _Row, m: int, tolerance: Any) -> int:
    """Swaps that lower the error, until none is left; groups take turns.

    q is made anew until nothing is found with it as it is, since what a large column left in it by
    rounding may hide, or feign, a swap of small ones. The first time greedy swaps will do.
    """
    swaps = 0
    for number in range(ROUNDS):
        _fields(row)
        made = _descend_on(row, m, tolerance, number == 0)
        swaps += made
        if number and not made:
            break
    return swaps


@njit(cache=True, nogil=True)
def _descend_on(row: _Row, m: int, tolerance: Any, greedy: bool) -> int:
    count = len(row.w) // m
    swaps, u, idle = 0, 0, 0
    while idle < count:
        low, high = u * m, (u + 1) * m
        _refresh(row, low, high, tolerance)
        if m <= SMALL:
            into, out = _best_swap(row, low, high)
        else:
            into, out = _greedy_swap(row, low, high)
            if into < 0 and not greedy:
                into, out = _any_swap(row, low, high)
        if into >= 0:
            _swap(row, into, out)
            swaps += 1
            idle = 0
        else:
            u = (u + 1) % count
            idle += 1
    return swaps


@njit(cache=True, nogil=True)
def _best_swap(row: _Row, low: int, high: int) -> tuple[int, int]:
    """The best swap of a small group; -1 if it is no help."""
    least, into, out = row.own.dtype.type(0), -1, -1
    for i in range(low, high):
        if not row.x[i]:
            twice = row.w[i] + row.w[i]
            for j in range(low, high):
                if row.x[j]:
                    delta = row.prune[i] + row.keep[j] - twice * row.w[j] * row.H[i, j]
                    if delta < least:
                        least, into, out = delta, i, j
    return into, out


@njit(cache=True, nogil=True)
def _greedy_swap(row: _Row, low: int, high: int) -> tuple[int, int]:
    """The better of two swaps in a group, each with one end of least cost; -1 if it is no help."""
    i, j = low + _cheapest(row.bits[0, low:high]), low + _cheapest(row.bits[1, low:high])
    if row.prune[i] == np.inf or row.keep[j] == np.inf:
        return -1, -1
    _partners(row, row.keep, i, low, high)
    out = low + _cheapest(row.bits[2, low:high])
    first = row.prune[i] + row.pairs[out]
    _partners(row, row.prune, j, low, high)
    into = low + _cheapest(row.bits[2, low:high])
    second = row.keep[j] + row.pairs[into]
    if min(first, second) >= 0:
        return -1, -1
    return (i, out) if first <= second else (into, j)


@njit(cache=True, nogil=True)
def _any_swap(row: _Row, low: int, high: int) -> tuple[int, int]:
    """A swap in a group that helps; -1 for none."""
    cheapest = row.prune[low + _cheapest(row.bits[0, low:high])]
    # |H_ij| <= sqrt(H_ii H_jj): many are ruled out without a look at H.
    largest = row.own.dtype.type(0)
    for i in range(low, high):
        if not row.x[i]:
            largest = max(largest, row.own[i])
    for j in range(low, high):
        if row.x[j] and row.keep[j] + cheapest < 2 * np.sqrt(row.own[j] * largest):
            _partners(row, row.prune, j, low, high)
            i = low + _cheapest(row.bits[2, low:high])
            if row.keep[j] + row.pairs[i] < 0:
                return i, j
    return -1, -1


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _without(values: Array, tabu: Bools, limit: Any) -> None:
    """Makes those of tabu weights infinite that are not below the limit."""
    far = values.dtype.type(np.inf)
    for i in range(len(values)):
        values[i] = far if tabu[i] and values[i] >= limit else values[i]


@njit(cache=True, nogil=True)
def _tabu(row: _Row, m: int, steps: int, random: RandomState, tolerance: Any) -> int:
    """Tabu iterations from a local optimum; x ends at the best state, q is left behind."""
    d = len(row.w)
    ones = int(row.x.sum())
    tenure = min(TENURE, (ones - 1) // 2, (d - ones - 1) // 2)
    if tenure < 1:
        return 0
    free_at = np.zeros(d, np.int64)
    best, error, best_error, swaps = row.x.copy(), 0.0, 0.0, 0
    for now in range(steps):
        tabu = free_at > now
        delta, into, out = np.inf, -1, -1
        for u in range(d // m):
            change, a, b = _tabu_swap(row, tabu, best_error - error, u * m, (u + 1) * m)
            if change < delta:
                delta, into, out = change, a, b
        if into < 0:
            continue
        terms = 2 * abs(row.w[into] * row.q[into]) + 2 * abs(row.w[out] * row.q[out])
        terms += row.own[into] + row.own[out]
        _swap(row, into, out)
        swaps += 1
        error += delta
        more, extra = random_pair(random, tenure + 1, tenure + 1)
        free_at[into] = now + 1 + tenure + more
        free_at[out] = now + 1 + tenure + extra
        if best_error - error > tolerance * terms:
            best_error = error
            best[:] = row.x
    row.x[:] = best
    return swaps


@njit(cache=True, nogil=True)
def _tabu_swap(
    row: _Row, tabu: Bools, aspired: float, low: int, high: int
) -> tuple[float, int, int]:
    """The best of a group's swaps with one end of least cost; one end may be tabu if it aspires."""
    part, room, zero = slice(low, high), row.pairs, row.own.dtype.type(0)
    _refresh(row, low, high, zero)
    delta, into, out = np.inf, -1, -1
    for side in range(2):
        costs, others = (row.prune, row.keep) if side == 0 else (row.keep, row.prune)
        room[part] = costs[part]
        _without(room[part], tabu[part], -np.inf)
        i = low + _cheapest(row.bits[2, low:high])
        if room[i] == np.inf:
            continue
        _partners(row, others, i, low, high)
        _without(room[part], tabu[part], aspired - costs[i])
        j = low + _cheapest(row.bits[2, low:high])
        if costs[i] + room[j] < delta:
            delta = costs[i] + room[j]
            into, out = (i, j) if side == 0 else (j, i)
    return delta, into, out
