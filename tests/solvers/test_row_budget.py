"""One budget for a layer: the best one where rows are convex, never worse than it began."""

import itertools

import numpy as np
import pytest

from solvers.errors import ParameterError
from solvers.search.row_budget import search_layer
from solvers.search.rows import row_errors, search_rows


def layer(rows, d, seed, couplings=1.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3 * d, d)) * 10.0 ** rng.uniform(-1, 1, d)
    H = X.T @ X / len(X)
    H = couplings * H + (1 - couplings) * np.diag(np.diag(H))
    W = rng.normal(size=(rows, d)) * 10.0 ** rng.uniform(-1, 1, (rows, 1))
    return H, W, rng.random((rows, d)).argsort(axis=1) < d // 2


@pytest.mark.parametrize("seed", range(4))
def test_without_couplings_the_least_weights_of_the_layer_go(seed):
    """Rows are convex then: the best budget is a sort of all weights."""
    H, W, x = layer(7, 16, seed, couplings=0.0)
    found = search_layer(H, W, x)
    assert found.pruned.sum() == x.sum()
    costs = np.sort((W * W * np.diag(H)).ravel())
    assert found.errors.sum() == pytest.approx(costs[: x.sum()].sum())


def least_errors(H, w):
    """The least error of a row for each number of pruned weights, by trying all masks."""
    masks = np.array(list(itertools.product([False, True], repeat=len(w))))
    errors = row_errors(H, np.tile(w, (len(masks), 1)), masks)
    return [errors[masks.sum(axis=1) == k].min() for k in range(len(w) + 1)]


@pytest.mark.parametrize("seed", range(6))
def test_with_couplings_it_is_the_best_of_all_budgets_where_rows_are_convex(seed):
    H, W, x = layer(3, 7, seed, couplings=0.3)
    curves = [least_errors(H, w) for w in W]
    convex = all((np.diff(curve, 2) >= 0).all() for curve in curves)
    best = min(
        sum(curve[k] for curve, k in zip(curves, counts, strict=True))
        for counts in itertools.product(range(8), repeat=3)
        if sum(counts) == x.sum()
    )
    found = search_layer(H, W, x, method="tabu")
    assert found.pruned.sum() == x.sum()
    assert found.errors == pytest.approx(row_errors(H, W, found.pruned))
    assert found.errors.sum() >= best * (1 - 1e-9)
    if convex:
        assert found.errors.sum() == pytest.approx(best)


def test_it_is_never_worse_than_rows_with_numbers_of_their_own():
    H, W, x = layer(12, 40, 5)
    rows = search_rows(H, W, x).errors.sum()
    assert search_layer(H, W, x).errors.sum() < 0.9 * rows
    assert search_layer(H, W, x, rounds=1).errors.sum() <= rows


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rows_with_nothing_to_exchange_stay(share):
    H, W, x = layer(4, 8, 1)
    x[:] = share > 0
    assert (search_layer(H, W, x).pruned == x).all()
    assert search_layer(H, W[:1], x[:1]).pruned.sum() == x[:1].sum()


def test_rounds_are_checked():
    with pytest.raises(ParameterError, match="rounds"):
        search_layer(*layer(2, 4, 0), rounds=0)
