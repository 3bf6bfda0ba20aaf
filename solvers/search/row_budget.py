"""One number of pruned weights for a whole layer, shared out over its rows.

Rows exchange: one row keeps some more of its weights, another prunes as many more, and both are
searched again. Exchanges that lower the sum of their errors stay. They begin with many weights at a
time and end with single ones.

Where each row's least error is a convex function of its number of pruned weights, and the search
finds it, the outcome is a best one: no exchange of one weight helps, and for a sum of convex
functions that suffices (Gross, 1956). Without couplings both hold. With them neither has to: the
outcome is then a state that no exchange of single weights, each followed by a search, improves.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.arguments import whole
from solvers.problem import Bools, Floats
from solvers.search.rows import Method, RowsResult, row_errors, search_rows

# Weights of a row that the first exchanges move, as a share of the row.
FIRST_SHARE = 1 / 8


def search_layer(
    H: ArrayLike,
    weights: ArrayLike,
    pruned: ArrayLike,
    *,
    method: Method = "one-swap",
    iterations: int = 20,
    rounds: int = 1000,
    seed: int = 0,
    num_threads: int | None = None,
) -> RowsResult:
    """Better masks for a layer that keeps its number of pruned weights, rows not theirs.

    Args:
        H: as of `search_rows`, shape (d, d).
        weights: of each row, shape (R, d).
        pruned: the masks to begin with, True where a weight is pruned, shape (R, d).
        method: as of `search_rows`.
        iterations: as of `search_rows`.
        rounds: of exchanges at the most; in one each row takes part once.
        seed: as of `search_rows`.
        num_threads: as of `search_rows`.

    Raises:
        ProblemError, ParameterError: as of `search_rows`; rounds below 1.
    """
    rounds = whole("rounds", rounds, 1)
    begun = time.perf_counter()

    def searched(rows: NDArray[np.intp], x: Bools) -> RowsResult:
        return search_rows(
            H, W[rows], x, method=method, iterations=iterations, seed=seed,
            num_threads=num_threads,
        )  # fmt: skip

    W = np.asarray(weights)
    found = searched(np.arange(len(W)), np.asarray(pruned, np.bool_))
    x, errors, swaps = found.pruned, found.errors, found.swaps
    step = max(1, int(FIRST_SHARE * W.shape[-1]))
    for _ in range(rounds):
        givers, takers, trial = _exchanges(H, W, x, step)
        if len(givers):
            rows = np.concatenate([givers, takers])
            found = searched(rows, trial)
            swaps += found.swaps
            new, old = found.errors.reshape(2, -1).sum(0), errors[rows].reshape(2, -1).sum(0)
            better = np.tile(new < old * (1 - 1e-12), 2)
            x[rows[better]], errors[rows[better]] = found.pruned[better], found.errors[better]
        if not len(givers) or not better.any():
            if step == 1:
                break
            step //= 2
    return RowsResult(x, row_errors(H, W, x), swaps, time.perf_counter() - begun)


def _exchanges(
    H: ArrayLike, W: NDArray[np.floating], x: Bools, step: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], Bools]:
    """Pairs of rows that should exchange, by what single flips cost, each row in one pair at most.

    Args:
        H: shape (d, d).
        W: weights, shape (R, d).
        x: masks, shape (R, d).
        step: weights that a pair exchanges.

    Returns:
        Rows that keep more, rows that prune more, shape (p,) each, and the masks of both, those of
        the former first, shape (2 p, d).
    """
    V = np.asarray(W, np.float64)
    M = np.asarray(H, np.float64)
    cross = 2 * V * ((V * x) @ M)
    own = V * V * np.diag(M)
    keep, gain = _cheapest(np.where(x, own - cross, np.inf), step)
    prune, cost = _cheapest(np.where(x, np.inf, own + cross), step)
    givers, takers = _paired(-gain, cost)
    trial = np.concatenate([x[givers], x[takers]])
    np.put_along_axis(trial[: len(givers)], keep[givers], False, axis=1)
    np.put_along_axis(trial[len(givers) :], prune[takers], True, axis=1)
    return givers, takers, trial


def _cheapest(costs: Floats, step: int) -> tuple[NDArray[np.intp], Floats]:
    """The places of each row's least costs, shape (R, step), and their sums, shape (R,)."""
    places = np.argpartition(costs, step - 1, axis=1)[:, :step]
    return places, np.take_along_axis(costs, places, axis=1).sum(axis=1)


def _paired(gain: Floats, cost: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The largest gains with the least costs of other rows, as long as they are larger.

    Args:
        gain: of each row as a giver, shape (R,); -inf where it has too few.
        cost: of each row as a taker, shape (R,); inf where it has too few.
    """
    used = np.zeros(len(gain), np.bool_)
    takers = [int(row) for row in np.argsort(cost, kind="stable") if np.isfinite(cost[row])]
    pairs: list[tuple[int, int]] = []
    for giver in np.argsort(-gain, kind="stable").tolist():
        if used[giver] or not np.isfinite(gain[giver]):
            continue
        taker = next((row for row in takers if not used[row] and row != giver), None)
        if taker is None or cost[taker] >= gain[giver]:
            # Whom this row cannot pay a row of less gain cannot either, unless it was this row.
            continue
        used[giver] = used[taker] = True
        takers.remove(taker)
        pairs.append((giver, taker))
    both = np.array(pairs, np.intp).reshape(-1, 2)
    return both[:, 0], both[:, 1]
