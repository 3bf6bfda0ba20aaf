"""Compiled inner loops on the fields ``f = G x + c`` of a problem, ``G = A'A``.

Every kernel takes the pair ``(F, G)``: ``F = A'`` with shape (n, r), and ``G`` either empty, so
that nothing of size n^2 exists, or dense (n, n), so that a flip costs O(n) instead of O(n r). A
dense problem has an empty ``F``. States are bool arrays, changed in place.

Flipping i in changes the energy by ``f_i + G_ii / 2``, out by ``-f_i + G_ii / 2``; a swap (i out,
j in) by the sum of both less ``G_ij``. ``|G_ij| <= b_i b_j`` with bounds b; where a factor is given
``b_i = ||A_i||``, so that ``f_i`` moves by at most ``b_i ||ds||`` when ``s = A x`` moves by ``ds``.

Compiled code is cached on disk beside the module (numba), so a user waits for the compiler once per
installation, not once per process.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.clock.deadline import Deadline
from solvers.problem import Bools, CardinalityProblem, Floats

Integers = NDArray[np.int64]

# Sums may be reordered, so that they run in SIMD registers; NaN and infinity keep their meaning.
SUMS = {"reassoc", "contract", "nsz"}

# Building G costs n^2 r and its memory, after which an accepted swap costs n instead of n r and a
# refused one nothing instead of r. The ranks from which that pays are measured by
# `experiments.benchmarks.native crossover`: for descent 32 to 64 at n = 256 to 4096; for annealing,
# which computes no fields between swaps without G, 16 at n = 256, 80 at 1024, about 480 at 4096.
DESCENT_RANK = 48
ANNEALING_RANK_SHARE = 1 / 12
# 300 MB.
MAX_DENSE_VARIABLES = 6144
# Multiplications a second of a matrix product on one core.
PRODUCT_RATE = 2e10
# Multiplications between two looks at the clock, about 10 ms; as many times as much without a
# limit, where only Ctrl-C waits for the look.
WORK_PER_CHECK = 1e7
UNLIMITED_CHUNKS = 10


def dense_pays(problem: CardinalityProblem, least_rank: float, deadline: Deadline) -> bool:
    """Whether to build G from the factor.

    Args:
        problem: n variables.
        least_rank: from which rank on it saves time.
        deadline: G must not take over 3/10 of the time left.
    """
    n, r = problem.n, problem.rank
    seconds = n * n * r / PRODUCT_RATE
    return n <= MAX_DENSE_VARIABLES and r >= least_rank and seconds < 0.3 * deadline.left


def work_per_check(deadline: Deadline) -> float:
    """Multiplications that a kernel makes before it comes back for a look at the clock."""
    return WORK_PER_CHECK * (1 if deadline.limited else UNLIMITED_CHUNKS)


def couplings(problem: CardinalityProblem, dense: bool) -> tuple[Floats, Floats]:
    """The pair ``(F, G)`` of a problem.

    Args:
        problem: n variables.
        dense: whether to build G from a factor.
    """
    if problem.quadratic is not None:
        return np.empty((0, 0)), problem.quadratic
    assert problem.factor is not None
    G = problem.factor.T @ problem.factor if dense else np.empty((0, 0))
    return np.ascontiguousarray(problem.factor.T), G


@njit(cache=True, nogil=True, fastmath=SUMS)
def coupling(F: Floats, G: Floats, i: int, j: int) -> float:
    """``G_ij``."""
    if G.shape[0] > 0:
        return float(G[i, j])
    total = 0.0
    for r in range(F.shape[1]):
        total += F[i, r] * F[j, r]
    return total


@njit(cache=True, nogil=True, fastmath=SUMS)
def add_product(F: Floats, v: Floats, f: Floats) -> None:
    """``f += F v``."""
    for i in range(len(f)):
        total = 0.0
        for r in range(len(v)):
            total += F[i, r] * v[r]
        f[i] += total


@njit(cache=True, nogil=True, fastmath=SUMS)
def add_swap(F: Floats, G: Floats, f: Floats, out: int, into: int) -> None:
    """``f += G[:, into] - G[:, out]``: the fields after a swap."""
    if G.shape[0] > 0:
        for j in range(len(f)):
            f[j] += G[into, j] - G[out, j]
    else:
        add_product(F, F[into] - F[out], f)


@njit(cache=True, nogil=True)
def greedy_fill_dense(G: Floats, f: Floats, x: Bools, k: int, max_work: float) -> None:
    """`greedy_fill` on a dense G."""
    excess = int(x.sum()) - k
    sign = 1.0 if excess < 0 else -1.0
    for flip in range(abs(excess)):
        if 2 * flip * len(f) > max_work:
            break
        best, best_cost = -1, np.inf
        for i in range(len(f)):
            if x[i] == (sign < 0):
                cost = sign * f[i] + 0.5 * G[i, i]
                if cost < best_cost:
                    best, best_cost = i, cost
        x[best] = sign > 0
        for i in range(len(f)):
            f[i] += sign * G[best, i]


@njit(cache=True, nogil=True, fastmath=SUMS)
def greedy_fill(
    F: Floats, d: Floats, b: Floats, f: Floats, x: Bools, k: int, max_work: float
) -> None:
    """Adds or removes the variable of best energy change until x has k ones.

    The choice is the exact one, but few costs are computed for it: those of a window, at first the
    ``sqrt(n)`` cheapest variables, are kept up to date. Another variable's cost was right when the
    window was opened and has fallen by at most ``b_i ||ds||`` since; one that could be the best by
    that bound is computed and joins the window. A window of 4 sqrt(n) variables is closed and a
    new one opened.

    Args:
        F: factor, shape (n, r).
        d: diagonal of G, shape (n,).
        b: coupling bounds, shape (n,).
        f: fields at x, shape (n,); kept up to date.
        x: state, any weight; changed in place.
        k: ones wanted.
        max_work: multiplications after which to stop, with at least one flip made.
    """
    n, rank = F.shape
    excess = int(x.sum()) - k
    sign = 1.0 if excess < 0 else -1.0
    left = abs(excess)
    work = 0
    width = int(np.sqrt(n)) + 1
    members = np.empty(5 * width, np.int64)
    costs = np.empty(n)
    inside = np.empty(n, np.bool_)
    moved = np.zeros(rank)
    while left and work <= max_work:
        size = _open_window(sign, d, f, x, width, costs, inside, members)
        work += F.size
        moved[:] = 0.0
        while left:
            best = _best_flip(F, b, sign, x, moved, costs, inside, members, size)
            work += n + (best[1] - size) * rank
            size = best[1]
            if size > 4 * width:
                break
            i = members[best[0]]
            x[i] = sign > 0
            left -= 1
            size -= 1
            members[best[0]] = members[size]
            for r in range(rank):
                moved[r] += sign * F[i, r]
            for w in range(size):
                total = 0.0
                for r in range(rank):
                    total += F[i, r] * F[members[w], r]
                costs[members[w]] += total
            work += size * rank
            if work > max_work:
                break
        add_product(F, moved, f)


@njit(cache=True, nogil=True)
def _open_window(
    sign: float, d: Floats, f: Floats, x: Bools, width: int, costs: Floats, inside: Bools,
    members: Integers,
) -> int:  # fmt: skip
    """Costs of all flips; the cheapest `width` of them become members. Returns how many did."""
    n = len(f)
    candidates = 0
    for i in range(n):
        costs[i] = np.inf
        inside[i] = x[i] == (sign > 0)
        if not inside[i]:
            costs[i] = sign * f[i] + 0.5 * d[i]
            candidates += 1
    last = np.partition(costs, width - 1)[width - 1] if candidates > width else np.inf
    size = 0
    for i in range(n):
        if not inside[i] and costs[i] <= last and size < width:
            members[size] = i
            inside[i] = True
            size += 1
    return size


@njit(cache=True, nogil=True, fastmath=SUMS)
def _best_flip(
    F: Floats, b: Floats, sign: float, x: Bools, moved: Floats, costs: Floats, inside: Bools,
    members: Integers, size: int,
) -> tuple[int, int]:  # fmt: skip
    """The place in `members` of the cheapest flip; variables that could be it join first.

    Returns:
        The place and the new size; a size above 4/5 of the room means that the search was given up.
    """
    best, best_cost = -1, np.inf
    for w in range(size):
        if costs[members[w]] < best_cost:
            best, best_cost = w, costs[members[w]]
    reach = 0.0
    for r in range(len(moved)):
        reach += moved[r] * moved[r]
    reach = np.sqrt(reach)
    for i in range(len(x)):
        if not inside[i] and costs[i] - b[i] * reach < best_cost:
            total = 0.0
            for r in range(len(moved)):
                total += F[i, r] * moved[r]
            costs[i] += sign * total
            inside[i] = True
            members[size] = i
            if costs[i] < best_cost:
                best, best_cost = size, costs[i]
            size += 1
            if 5 * size >= 4 * len(members):
                return best, len(members)
    return best, size


@njit(cache=True, nogil=True)
def _best_partner(
    F: Floats, G: Floats, d: Floats, b: Floats, f: Floats, x: Bools, i: int, best: float
) -> tuple[int, float, int]:
    """The j whose swap with i changes the energy by less than `best`, or -1; that change; the work.

    Work is counted in multiplications.
    """
    sign = 1.0 if not x[i] else -1.0
    own = sign * f[i] + 0.5 * d[i]
    partner, work = -1, len(f)
    each = 1 if G.shape[0] > 0 else F.shape[1]
    for j in range(len(f)):
        if x[j] != x[i]:
            bare = own - sign * f[j] + 0.5 * d[j]
            if bare - b[i] * b[j] < best:
                work += each
                delta = bare - coupling(F, G, i, j)
                if delta < best:
                    partner, best = j, delta
    return partner, best, work


@njit(cache=True, nogil=True)
def swap_descent(
    F: Floats,
    G: Floats,
    d: Floats,
    b: Floats,
    f: Floats,
    x: Bools,
    tolerance: float,
    max_work: float,
    checked: Integers,
) -> bool:
    """Swaps that lower the energy, until none is left or `max_work` multiplications were made.

    Each step takes the better of two greedy swaps: the best partner of the one that is cheapest to
    remove, and of the zero that is cheapest to add. When neither helps, every pair is checked, so
    the final state is a true local optimum of the swap neighbourhood. ``|G_ij| <= b_i b_j`` rules
    out most pairs without their inner product. A call that ran out of work is carried on by another
    with the same arrays; where it was cut changes nothing.

    Args:
        F: couplings, see the module.
        G: couplings, see the module.
        d: diagonal of G, shape (n,).
        b: coupling bounds, shape (n,).
        f: fields at x, shape (n,); kept up to date.
        x: feasible state; changed in place.
        tolerance: a swap must lower the energy by more than this.
        max_work: multiplications after which to stop; at least one step is made.
        checked: 0 at first; 1 + i where neither the greedy swaps nor pairs of a variable below i
            help; shape (1,), kept up to date.

    Returns:
        Whether x is a local optimum.
    """
    n = len(f)
    b_max = b.max()
    update = 2 * n if G.shape[0] > 0 else F.size
    work = 0
    while True:
        out, into = -1, -1
        out_delta, into_delta = np.inf, np.inf
        for i in range(n):
            if x[i]:
                if -f[i] + 0.5 * d[i] < out_delta:
                    out, out_delta = i, -f[i] + 0.5 * d[i]
            elif f[i] + 0.5 * d[i] < into_delta:
                into, into_delta = i, f[i] + 0.5 * d[i]
        if out < 0 or into < 0:
            return True
        i, j = -1, -1
        if checked[0] == 0:
            j, delta, work_out = _best_partner(F, G, d, b, f, x, out, -tolerance)
            i, _, work_in = _best_partner(F, G, d, b, f, x, into, delta)
            work += work_out + work_in
        if i >= 0:
            out = i
        elif j >= 0:
            into = j
        else:
            partner = -1
            for i in range(max(checked[0], 1) - 1, n):
                checked[0] = i + 1
                if work > max_work:
                    return False
                if x[i] and -f[i] + 0.5 * d[i] + into_delta - b[i] * b_max < -tolerance:
                    partner, _, work_pairs = _best_partner(F, G, d, b, f, x, i, -tolerance)
                    work += work_pairs
                    if partner >= 0:
                        out, into = i, partner
                        break
            if partner < 0:
                return True
        checked[0] = 0
        x[out], x[into] = False, True
        add_swap(F, G, f, out, into)
        work += n + update
        if work > max_work:
            return False
