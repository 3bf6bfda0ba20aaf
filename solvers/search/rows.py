"""All rows of a layer at once: one H for every row, O(d) a swap, never d^2 numbers a row.

The error of a row with weights w and x_i = 1 for *prune* is ``e(x) = (w*x)'H(w*x)``, with
``H = X'X / N`` of the inputs that all rows share. With ``q = H(w*x)`` kept up to date,

    pruning i   changes e by   2 w_i q_i + w_i^2 H_ii
    keeping j   changes e by  -2 w_j q_j + w_j^2 H_jj
    both at once             less  2 w_i w_j H_ij  on top

and a swap changes q by two columns of H. The searches are those of `solvers.search.kernels` and
`solvers.search.tabu`, row by row, rows side by side on all threads; see
`solvers.search.row_kernels`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.arguments import whole
from solvers.errors import ParameterError, ProblemError
from solvers.problem import Bools, Floats
from solvers.search.reads import checked_threads
from solvers.search.row_kernels import correlations, descend_part, room, tabu_part

Array = NDArray[Any]
Method = Literal["one-swap", "tabu"]
# Rows that a thread takes at a time.
ROWS_AT_A_TIME = 16
# Descents of a row at the most, each from fields made anew.
ROUNDS = 6
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
    search = _Search(H, W, x, pattern_m or H.shape[0], seed, checked_threads(num_threads))
    # Compiled for these types before the clock starts: on no row.
    none = np.empty(0, np.int64)
    search.descend(none)
    if steps:
        search.tabu(none, steps)
    start = time.perf_counter()
    rows = np.arange(len(W))
    swaps = search.descend(rows)
    if steps:
        swaps += search.tabu(rows, steps) + search.descend(rows)
    seconds = time.perf_counter() - start
    return RowsResult(x, row_errors(H, W, x), swaps, seconds)


class _Search:
    """Rows that share H, worked on in place on several threads."""

    def __init__(self, H: Array, W: Array, x: Bools, m: int, seed: int, threads: int) -> None:
        self._H, self._W, self._x, self._m, self._threads = H, W, x, m, threads
        self._largest = correlations(H)
        self._tolerance = H.dtype.type(TOLERANCE[H.dtype.name])
        rng = np.random.default_rng(seed)
        self._randoms = rng.integers(2**64, size=(len(W), 1), dtype=np.uint64)

    def descend(self, rows: NDArray[np.int64]) -> int:
        """Until no swap helps, by fields that are made anew until none is found with them.

        What a large column left in the fields by rounding may hide, or feign, a swap of small ones.
        """
        total = 0
        for _ in range(ROUNDS):
            swaps = self._each(descend_part, rows)
            total += int(swaps.sum())
            rows = rows[swaps > 0]
            if not len(rows):
                break
        return total

    def tabu(self, rows: NDArray[np.int64], steps: int) -> int:
        """Tabu search from where each row is."""
        return int(self._each(tabu_part, rows, steps).sum())

    def _each(
        self, part: Callable[..., None], rows: NDArray[np.int64], steps: int = 0
    ) -> NDArray[np.int64]:
        """How many swaps a search made on each row."""
        H, d = self._H, self._H.shape[0]
        W, x, randoms = self._W[rows], self._x[rows], self._randoms[rows]
        swaps = np.zeros(len(rows), np.int64)
        parts = [slice(i, i + ROWS_AT_A_TIME) for i in range(0, max(1, len(rows)), ROWS_AT_A_TIME)]

        def search(own: slice) -> None:
            more = (steps, randoms[own]) if steps else ()
            part(
                H, W[own], x[own], self._largest, self._m, self._tolerance, *room(d, H.dtype),
                swaps[own], *more,
            )  # fmt: skip

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(search, parts))
        self._x[rows], self._randoms[rows] = x, randoms
        return swaps


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
