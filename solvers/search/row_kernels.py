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
        root: square roots of those.
        bound: those times the input's largest correlation with another.
        largest: that correlation of each input.
        prune: what pruning a kept weight costs, infinite where it is pruned.
        keep: what keeping a pruned weight costs, infinite where it is kept.
        pairs: room for the costs of a swap's partners.
        bits: those three as integers, shape (3, d).
        kept: room for `prune`, `root` and `bound` of the kept weights of a group, shape (3, d).
    """

    H: Array
    w: Array
    x: Bools
    q: Array
    own: Array
    root: Array
    bound: Array
    largest: Array
    prune: Array
    keep: Array
    pairs: Array
    bits: Array
    kept: Array


def room(d: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """What a search works in: numbers, and the same memory as integers, shape (6, d)."""
    numbers = np.empty((6, d), dtype)
    return numbers, numbers.view(f"i{numbers.itemsize}")


def correlations(H: Array) -> Array:
    """The largest correlation of each input with another, of H's type, shape (d,)."""
    root = np.sqrt(np.diag(H).clip(0))
    scale = np.where(root > 0, root, np.inf)
    of_all = np.abs(H / scale[:, None] / scale)
    np.fill_diagonal(of_all, 0)
    # What rounding may hide: a correlation is at most 1.
    return np.minimum(of_all.max(axis=1, initial=0) * (1 + 1e-4) + 1e-6, 1.001).astype(H.dtype)


@njit(cache=True, nogil=True)
def _row(
    H: Array, w: Array, x: Bools, q: Array, largest: Array, numbers: Array, bits: Array
) -> _Row:
    own = w * w * np.diag(H)
    root = np.sqrt(np.maximum(own, own.dtype.type(0)))
    return _Row(
        H,
        w,
        x,
        q,
        own,
        root,
        root * largest,
        largest,
        numbers[0],
        numbers[1],
        numbers[2],
        bits,
        numbers[3:],
    )


@njit(cache=True, nogil=True)
def descend_part(
    H: Array, W: Array, x: Bools, largest: Array, m: int, tolerance: Any, numbers: Array,
    bits: Array, swaps: NDArray[np.int64],
) -> None:  # fmt: skip
    """Swaps on rows, in place, that lower the error, until none is left.

    Args:
        H: shape (d, d).
        W: weights, shape (R, d), of H's type.
        x: masks, True where a weight is pruned, shape (R, d).
        largest: of `correlations`.
        m: inputs of a group, each of which keeps its number of pruned weights.
        tolerance: a swap lowers the error by more than this share of its terms, of H's type.
        numbers: of `room`.
        bits: likewise.
        swaps: how many were made on each row is put here, shape (R,).
    """
    Q = _fields(H, W, x)
    for r in range(W.shape[0]):
        row = _row(H, W[r], x[r], Q[r], largest, numbers, bits)
        swaps[r] = _descend(row, m, tolerance)


@njit(cache=True, nogil=True)
def tabu_part(
    H: Array, W: Array, x: Bools, largest: Array, m: int, tolerance: Any, numbers: Array,
    bits: Array, swaps: NDArray[np.int64], steps: int, randoms: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Tabu search on rows, in place, from local optima.

    Args: those of `descend_part`, and

        steps: iterations on a row.
        randoms: state of each row's random numbers, shape (R, 1).
    """
    Q = _fields(H, W, x)
    for r in range(W.shape[0]):
        row = _row(H, W[r], x[r], Q[r], largest, numbers, bits)
        swaps[r] = _tabu(row, m, steps, randoms[r], tolerance)


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _add(q: Array, a: Any, line: Array) -> None:
    """``q += a line``."""
    for j in range(len(q)):
        q[j] += a * line[j]


@njit(cache=True, nogil=True)
def _fields(H: Array, W: Array, x: Bools) -> Array:
    """``H(w*x)`` of each row, shape (R, d): a row of H is read once for all of them."""
    Q = np.zeros_like(W)
    for i in range(W.shape[1]):
        for r in range(W.shape[0]):
            if x[r, i]:
                _add(Q[r], W[r, i], H[i])
    return Q


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _swap(row: _Row, into: int, out: int) -> None:
    """Prunes `into` and keeps `out` again."""
    H, q = row.H, row.q
    row.x[into], row.x[out] = True, False
    a, b = row.w[into], row.w[out]
    for j in range(len(q)):
        q[j] += a * H[into, j] - b * H[out, j]


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _refresh(row: _Row, low: int, high: int, tolerance: Any) -> None:
    """The costs of a group's changes, each with what of its own terms may be rounding on top."""
    w, x, q, own, prune, keep = row.w, row.x, row.q, row.own, row.prune, row.keep
    far = prune.dtype.type(np.inf)
    for i in range(np.uint64(low), np.uint64(high)):
        cross = w[i] * q[i]
        cross += cross
        change = own[i] - cross if x[i] else own[i] + cross
        change += tolerance * (abs(cross) + own[i])
        prune[i] = far if x[i] else change
        keep[i] = change if x[i] else far


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _partners(row: _Row, costs: Array, i: int, low: int, high: int) -> None:
    """Into `pairs`, what swaps of i with each weight of a group cost, i's own cost left out."""
    H, w, pairs = row.H, row.w, row.pairs
    twice = w[i] + w[i]
    for j in range(np.uint64(low), np.uint64(high)):
        pairs[j] = costs[j] - twice * w[j] * H[i, j]


@njit(cache=True, nogil=True)
def _cheapest(row: _Row, kind: int, low: int, high: int) -> Any:
    """Where in a group the least of some numbers is, by their bits.

    kind: 0 for the costs of pruning, 1 for those of keeping, 2 for those of partners.
    """
    bits = row.bits
    most = np.iinfo(bits.dtype).max
    least = most
    for i in range(np.uint64(low), np.uint64(high)):
        least = min(least, bits[kind, i] ^ most if bits[kind, i] < 0 else bits[kind, i])
    own = least ^ most if least < 0 else least
    where: Any = np.uint64(high)
    for i in range(np.uint64(low), where):
        where = min(where, i if bits[kind, i] == own else np.uint64(high))
    return np.int64(where)


@njit(cache=True, nogil=True)
def _descend(row: _Row, m: int, tolerance: Any) -> int:
    """Swaps that lower the error, until none is left; groups take turns."""
    count = len(row.w) // m
    swaps, u, idle = 0, 0, 0
    while idle < count:
        low, high = u * m, (u + 1) * m
        _refresh(row, low, high, tolerance)
        if m <= SMALL:
            made = _small(row, low, high, tolerance)
        else:
            made = _sweep(row, low, high, tolerance)
        swaps += made
        idle = 1 if made else idle + 1
        u = (u + 1) % count
    return swaps


@njit(cache=True, nogil=True)
def _small(row: _Row, low: int, high: int, tolerance: Any) -> int:
    """Best swaps of a small group until none is left."""
    swaps = 0
    while True:
        into, out = _best_swap(row, low, high)
        if into < 0:
            return swaps
        _swap(row, into, out)
        _refresh(row, low, high, tolerance)
        swaps += 1


@njit(cache=True, nogil=True)
def _sweep(row: _Row, low: int, high: int, tolerance: Any) -> int:
    """Swaps of a group until none is left: greedy ones, and where there is none, the first other.

    The search for another goes on after the last one's end, until it is around.
    """
    swaps = _greedy_swaps(row, low, high, tolerance)
    j = _helped(row, low, low, high)
    while j >= 0:
        _partners(row, row.prune, j, low, high)
        _swap(row, _cheapest(row, 2, low, high), j)
        _refresh(row, low, high, tolerance)
        swaps += 1 + _greedy_swaps(row, low, high, tolerance)
        j = _helped(row, j, low, high)
    return swaps


@njit(cache=True, nogil=True)
def _greedy_swaps(row: _Row, low: int, high: int, tolerance: Any) -> int:
    swaps = 0
    while True:
        into, out = _greedy_swap(row, low, high)
        if into < 0:
            return swaps
        _swap(row, into, out)
        _refresh(row, low, high, tolerance)
        swaps += 1


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
    i, j = _cheapest(row, 0, low, high), _cheapest(row, 1, low, high)
    if row.prune[i] == np.inf or row.keep[j] == np.inf:
        return -1, -1
    _partners(row, row.keep, i, low, high)
    out = _cheapest(row, 2, low, high)
    first = row.prune[i] + row.pairs[out]
    _partners(row, row.prune, j, low, high)
    into = _cheapest(row, 2, low, high)
    second = row.keep[j] + row.pairs[into]
    if min(first, second) >= 0:
        return -1, -1
    return (i, out) if first <= second else (into, j)


@njit(cache=True, nogil=True, fastmath=LOOPS)
def _helped(row: _Row, start: int, low: int, high: int) -> int:
    """The first pruned weight of a group, from `start` on and around, that a swap helps; or -1.

    Most are ruled out by correlations, without a look at H:
    ``|H_ij| <= min(r_i, r_j) sqrt(H_ii H_jj)``, with r_i the largest correlation of input i.
    """
    H, w, x, prune, kept = row.H, row.w, row.x, row.prune, row.kept
    count, cheapest = 0, prune.dtype.type(np.inf)
    for i in range(low, high):
        if not x[i]:
            kept[0, count], kept[1, count], kept[2, count] = prune[i], row.root[i], row.bound[i]
            cheapest = min(cheapest, prune[i])
            count += 1
    for step in range(high - low):
        j = start + step if start + step < high else start + step - (high - low)
        if not x[j]:
            continue
        own, largest, limit, found = row.root[j] + row.root[j], row.largest[j], -row.keep[j], False
        for i in range(count):
            found |= kept[0, i] - own * min(kept[2, i], largest * kept[1, i]) < limit
        if not found:
            continue
        twice, found = w[j] + w[j], False
        for i in range(np.uint64(low), np.uint64(high)):
            found |= prune[i] - twice * w[i] * H[j, i] < limit
        if found:
            return j
    return -1


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
        i = _cheapest(row, 2, low, high)
        if room[i] == np.inf:
            continue
        _partners(row, others, i, low, high)
        _without(room[part], tabu[part], aspired - costs[i])
        j = _cheapest(row, 2, low, high)
        if costs[i] + room[j] < delta:
            delta = costs[i] + room[j]
            into, out = (i, j) if side == 0 else (j, i)
    return delta, into, out
