"""All rows of a layer at once: one H for every row, O(d) a swap, never d^2 numbers a row.

The error of a row with weights w and x_i = 1 for *prune* is ``e(x) = (w*x)'H(w*x)``, with
``H = X'X / N`` of the inputs that all rows share. With ``q = H(w*x)`` kept up to date,

    pruning i   changes e by   2 w_i q_i + w_i^2 H_ii
    keeping j   changes e by  -2 w_j q_j + w_j^2 H_jj
    both at once             less  2 w_i w_j H_ij  on top

and a swap changes q by two columns of H. The searches are those of `solvers.search.kernels` and
`solvers.search.tabu`, row by row, rows side by side on all threads.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from solvers.arguments import whole
from solvers.errors import ParameterError, ProblemError
from solvers.problem import Bools, Floats
from solvers.search.kernels import Integers
from solvers.search.randomness import RandomState, random_pair
from solvers.search.reads import checked_threads

Method = Literal["one-swap", "tabu"]
# Least iterations that a variable which moved stays where it is; as many more at random.
TENURE = 10
# Descents of a row at the most, each from fields made anew.
ROUNDS = 5
# Rows that a thread takes at a time.
ROWS_AT_A_TIME = 16
# A swap must lower the error by more than this share of its own terms: one of small columns counts
# beside columns that are larger by any factor.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@dataclass(frozen=True)
class RowsResult:
    """What a search over rows ends with.

    Attributes:
        pruned: True where a weight is pruned, shape (R, d).
        errors: ``(w*x)'H(w*x)`` of each row, computed anew in float64, shape (R,).
        swaps: that were made, of all rows.
        seconds: wall time of the search, compilation left out.
    """

    pruned: Bools
    errors: Floats
    swaps: int
    seconds: float


def search_rows(
    H: ArrayLike,
    weights: ArrayLike,
    pruned: ArrayLike,
    *,
    method: Method = "one-swap",
    pattern_m: int | None = None,
    iterations: int = 20,
    seed: int = 0,
    num_threads: int | None = None,
) -> RowsResult:
    """Better masks for all rows of a layer, each with as many pruned weights as it has.

    Args:
        H: symmetric and positive semidefinite, float32 or float64, which the search is made in;
            shape (d, d).
        weights: of each row, shape (R, d).
        pruned: the masks to begin with, True where a weight is pruned, shape (R, d).
        method: ``one-swap`` ends where no swap of a kept and a pruned weight of a row lowers its
            error; ``tabu`` goes on from there.
        pattern_m: every so many consecutive inputs keep their number of pruned weights; None for
            the row as a whole.
        iterations: of ``tabu``, in units of d a row.
        seed: of ``tabu``'s tenures.
        num_threads: one a usable CPU when None.

    Raises:
        ProblemError: arrays that do not fit each other or are not finite, a d that `pattern_m` does
            not divide.
        ParameterError: an unknown method, iterations below 1.
    """
    H, W, x = _checked(H, weights, pruned, pattern_m)
    if method not in ("one-swap", "tabu"):
        raise ParameterError(f"method is {method!r}, expected one-swap or tabu")
    steps = whole("iterations", iterations, 1) * H.shape[0] if method == "tabu" else 0
    d = H.shape[0]
    groups = np.arange(d) // (pattern_m or d)
    rng = np.random.default_rng(seed)
    randoms = rng.integers(2**64, size=(len(W), 1), dtype=np.uint64)
    tolerance = TOLERANCE[H.dtype.name]
    # Compiled for these types before the clock starts: on no row.
    _some_rows(H, W[:0], x[:0], groups, steps, randoms[:0], tolerance)
    parts = [slice(first, first + ROWS_AT_A_TIME) for first in range(0, len(W), ROWS_AT_A_TIME)]
    start = time.perf_counter()
    with ThreadPoolExecutor(checked_threads(num_threads)) as pool:
        swaps = pool.map(
            lambda part: _some_rows(H, W[part], x[part], groups, steps, randoms[part], tolerance),
            parts,
        )
        total = sum(map(int, swaps))
    seconds = time.perf_counter() - start
    return RowsResult(x, row_errors(H, W, x), total, seconds)


def row_errors(H: ArrayLike, weights: ArrayLike, pruned: ArrayLike) -> Floats:
    """``(w*x)'H(w*x)`` of each row in float64, shape (R,)."""
    V = np.asarray(weights, np.float64) * np.asarray(pruned)
    return np.asarray(np.einsum("ri,ri->r", V @ np.asarray(H, np.float64), V))


def _checked(
    H: ArrayLike, weights: ArrayLike, pruned: ArrayLike, m: int | None
) -> tuple[NDArray[Any], NDArray[Any], Bools]:
    H = np.asarray(H)
    if H.dtype not in (np.float32, np.float64):
        H = H.astype(np.float64)
    H = np.ascontiguousarray(H)
    W = np.ascontiguousarray(weights, H.dtype)
    x = np.array(pruned, dtype=np.bool_, order="C")
    if H.ndim != 2 or H.shape[0] != H.shape[1] or W.ndim != 2 or W.shape[1] != H.shape[0]:
        raise ProblemError(
            f"H has shape {H.shape} and weights {W.shape}, expected (d, d) and (rows, d)"
        )
    if x.shape != W.shape:
        raise ProblemError(f"pruned has shape {x.shape}, expected {W.shape}, that of weights")
    for name, values in (("H", H), ("weights", W)):
        if not np.isfinite(values).all():
            raise ProblemError(f"{name} holds NaN or infinity: check the model's weights and data")
    if np.abs(H - H.T).max(initial=0.0) > 1e-5 * np.abs(H).max(initial=0.0):
        raise ProblemError("H is not symmetric: pass X'X / N of the layer's inputs")
    if m is not None and (m < 1 or H.shape[0] % m):
        raise ProblemError(f"pattern_m is {m}, which does not divide {H.shape[0]} inputs")
    return H, W, x


@njit(cache=True, nogil=True)
def _some_rows(
    H: NDArray[Any], W: NDArray[Any], x: Bools, groups: Integers, steps: int,
    randoms: NDArray[np.uint64], tolerance: float,
) -> int:  # fmt: skip
    """Searches every row in place; how many swaps were made."""
    total = 0
    for r in range(W.shape[0]):
        total += _one_row(H, W[r], x[r], groups, steps, randoms[r], tolerance)
    return total


@njit(cache=True, nogil=True)
def _one_row(
    H: NDArray[Any], w: NDArray[Any], x: Bools, groups: Integers, steps: int,
    random: RandomState, tolerance: float,
) -> int:  # fmt: skip
    q = np.empty_like(w)
    swaps = _descend(H, w, x, q, groups, tolerance)
    if steps:
        swaps += _tabu(H, w, x, q, groups, steps, random, tolerance)
        swaps += _descend(H, w, x, q, groups, tolerance)
    return swaps


@njit(cache=True, nogil=True)
def _fields(H: NDArray[Any], w: NDArray[Any], x: Bools, q: NDArray[Any]) -> None:
    """``q = H(w*x)``, anew."""
    q[:] = 0
    for i in range(len(w)):
        if x[i]:
            for j in range(len(w)):
                q[j] += w[i] * H[i, j]


@njit(cache=True, nogil=True)
def _terms(H: NDArray[Any], w: NDArray[Any], q: NDArray[Any], i: int) -> float:
    """Size of what a change of i is a sum of."""
    return 2 * abs(w[i] * q[i]) + w[i] * w[i] * H[i, i]


@njit(cache=True, nogil=True)
def _prune(H: NDArray[Any], w: NDArray[Any], q: NDArray[Any], i: int) -> float:
    """Change of the error when a kept i is pruned."""
    return 2 * w[i] * q[i] + w[i] * w[i] * H[i, i]


@njit(cache=True, nogil=True)
def _keep(H: NDArray[Any], w: NDArray[Any], q: NDArray[Any], j: int) -> float:
    """Change of the error when a pruned j is kept again."""
    return -2 * w[j] * q[j] + w[j] * w[j] * H[j, j]


@njit(cache=True, nogil=True)
def _swap(H: NDArray[Any], w: NDArray[Any], x: Bools, q: NDArray[Any], into: int, out: int) -> None:
    """Prunes `into` and keeps `out` again."""
    x[into], x[out] = True, False
    a, b = w[into], w[out]
    for j in range(len(w)):
        q[j] += a * H[into, j] - b * H[out, j]


@njit(cache=True, nogil=True)
def _descend(
    H: NDArray[Any], w: NDArray[Any], x: Bools, q: NDArray[Any], groups: Integers,
    tolerance: float,
) -> int:  # fmt: skip
    """Swaps that lower the error, until none is left; groups take turns.

    q is made anew before and after, since what a large column left in it by rounding may hide, or
    feign, a swap of small ones.
    """
    d = len(w)
    count = groups[d - 1] + 1
    m = d // count
    swaps = 0
    for _ in range(ROUNDS):
        _fields(H, w, x, q)
        before, u, idle = swaps, 0, 0
        while idle < count:
            into, out = _best_of_group(H, w, x, q, u * m, (u + 1) * m, tolerance)
            if into >= 0:
                _swap(H, w, x, q, into, out)
                swaps += 1
                idle = 0
            else:
                u = (u + 1) % count
                idle += 1
        if swaps == before:
            break
    return swaps


@njit(cache=True, nogil=True)
def _counts(
    H: NDArray[Any], w: NDArray[Any], q: NDArray[Any], i: int, j: int, delta: float,
    tolerance: float,
) -> bool:  # fmt: skip
    """Whether a change of the error is more than rounding."""
    return -delta > tolerance * (_terms(H, w, q, i) + _terms(H, w, q, j))


@njit(cache=True, nogil=True)
def _best_of_group(
    H: NDArray[Any], w: NDArray[Any], x: Bools, q: NDArray[Any], low: int, high: int,
    tolerance: float,
) -> tuple[int, int]:  # fmt: skip
    """A swap that helps: the better of two greedy ones, else any; -1 for none."""
    prune_i, keep_j = -1, -1
    prune_cost, keep_cost = np.inf, np.inf
    for i in range(low, high):
        if x[i]:
            cost = _keep(H, w, q, i)
            if cost < keep_cost:
                keep_j, keep_cost = i, cost
        else:
            cost = _prune(H, w, q, i)
            if cost < prune_cost:
                prune_i, prune_cost = i, cost
    if prune_i < 0 or keep_j < 0:
        return -1, -1
    best, into, out = 0.0, -1, -1
    for i in range(low, high):
        if x[i]:
            delta = prune_cost + _keep(H, w, q, i) - 2 * w[prune_i] * w[i] * H[prune_i, i]
            if delta < best and _counts(H, w, q, prune_i, i, delta, tolerance):
                best, into, out = delta, prune_i, i
        else:
            delta = keep_cost + _prune(H, w, q, i) - 2 * w[keep_j] * w[i] * H[keep_j, i]
            if delta < best and _counts(H, w, q, i, keep_j, delta, tolerance):
                best, into, out = delta, i, keep_j
    if into >= 0:
        return into, out
    # |H_ij| <= sqrt(H_ii H_jj): most pairs are ruled out without a look at H.
    largest = 0.0
    for i in range(low, high):
        if not x[i]:
            largest = max(largest, abs(w[i]) * np.sqrt(H[i, i]))
    for j in range(low, high):
        if not x[j]:
            continue
        cost = _keep(H, w, q, j)
        own = 2 * abs(w[j]) * np.sqrt(H[j, j])
        if cost + prune_cost - own * largest >= 0:
            continue
        for i in range(low, high):
            if not x[i]:
                bare = cost + _prune(H, w, q, i)
                if bare - own * abs(w[i]) * np.sqrt(H[i, i]) < best:
                    delta = bare - 2 * w[i] * w[j] * H[i, j]
                    if delta < best and _counts(H, w, q, i, j, delta, tolerance):
                        best, into, out = delta, i, j
        if into >= 0:
            return into, out
    return into, out


@njit(cache=True, nogil=True)
def _tabu(
    H: NDArray[Any], w: NDArray[Any], x: Bools, q: NDArray[Any], groups: Integers, steps: int,
    random: RandomState, tolerance: float,
) -> int:  # fmt: skip
    """Tabu iterations from a local optimum; x ends at the best state, q is left behind."""
    d = len(w)
    count = groups[d - 1] + 1
    m = d // count
    kept = 0
    for i in range(d):
        kept += not x[i]
    tenure = min(TENURE, (d - kept - 1) // 2, (kept - 1) // 2)
    if tenure < 1:
        return 0
    free_at = np.zeros(d, np.int64)
    best, error, swaps = x.copy(), 0.0, 0
    best_error = 0.0
    for now in range(steps):
        delta, into, out = np.inf, -1, -1
        aspired = best_error - error
        for u in range(count):
            low, high = u * m, (u + 1) * m
            prune_i, keep_j = -1, -1
            prune_cost, keep_cost = np.inf, np.inf
            for i in range(low, high):
                if free_at[i] <= now:
                    if x[i]:
                        cost = _keep(H, w, q, i)
                        if cost < keep_cost:
                            keep_j, keep_cost = i, cost
                    else:
                        cost = _prune(H, w, q, i)
                        if cost < prune_cost:
                            prune_i, prune_cost = i, cost
            for i in range(low, high):
                change, a, b = np.inf, -1, -1
                if x[i]:
                    if prune_i >= 0:
                        change = prune_cost + _keep(H, w, q, i)
                        change -= 2 * w[prune_i] * w[i] * H[prune_i, i]
                        a, b = prune_i, i
                elif keep_j >= 0:
                    change = keep_cost + _prune(H, w, q, i)
                    change -= 2 * w[keep_j] * w[i] * H[keep_j, i]
                    a, b = i, keep_j
                if change < delta and (free_at[i] <= now or change < aspired):
                    delta, into, out = change, a, b
        if into < 0:
            continue
        _swap(H, w, x, q, into, out)
        swaps += 1
        error += delta
        more, extra = random_pair(random, tenure + 1, tenure + 1)
        free_at[into] = now + 1 + tenure + more
        free_at[out] = now + 1 + tenure + extra
        if error < best_error and _counts(H, w, q, into, out, error - best_error, tolerance):
            best_error = error
            best[:] = x
    x[:] = best
    return swaps
