"""All rows of a layer at once: one-swap optima, patterns, scales, and the problem of each row."""

import itertools

import numpy as np
import pytest

from solvers import Budget, CardinalityProblem, make
from solvers.errors import ParameterError, ProblemError
from solvers.search.rows import row_errors, search_rows


def layer(rows=5, d=12, *, seed=0, apart=1.5, rank=None):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rank or 3 * d, d)) * 10 ** rng.uniform(-apart, apart, size=d)
    X += 0.5 * X.mean(axis=1, keepdims=True)
    pruned = np.zeros((rows, d), dtype=bool)
    for r in range(rows):
        pruned[r, rng.permutation(d)[: d // 2 + r % 2]] = True
    return X.T @ X / len(X), rng.normal(size=(rows, d)), pruned


def problem(H, w, pruned, m=None):
    G = 2 * w[:, None] * H * w
    groups = {}
    if m:
        groups = {"groups": np.arange(len(w)) // m, "cardinalities": pruned.reshape(-1, m).sum(1)}
    return CardinalityProblem(
        linear=np.zeros(len(w)), cardinality=int(pruned.sum()), quadratic=(G + G.T) / 2, **groups
    )


def patterned(rows, d, m, seed=1):
    rng = np.random.default_rng(seed)
    pruned = np.zeros((rows, d // m, m), dtype=bool)
    for r, g in itertools.product(range(rows), range(d // m)):
        pruned[r, g, rng.permutation(m)[: m // 2]] = True
    return pruned.reshape(rows, d)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [None, 4])
@pytest.mark.parametrize("method", ["one-swap", "tabu"])
def test_rows_end_in_one_swap_optima_of_their_problems(method, m, dtype):
    for seed in range(4):
        H, W, pruned = layer(seed=seed)
        pruned = patterned(*W.shape, m, seed) if m else pruned
        found = search_rows(H.astype(dtype), W, pruned, method=method, pattern_m=m, seed=seed)
        assert (found.errors <= row_errors(H, W, pruned) * (1 + 1e-6)).all()
        for r, x in enumerate(found.pruned):
            own = problem(H, W[r], pruned[r], m)
            assert own.is_feasible(x)
            assert float(own.energy(x)) == pytest.approx(found.errors[r], rel=1e-5)
            *_, deltas = own.swap_deltas(x)
            assert deltas.min() > -1e-5 * float(own.diagonal.sum())


def test_errors_equal_those_of_the_problem():
    H, W, pruned = layer(apart=4)
    found = search_rows(H, W, pruned)
    for r in range(len(W)):
        own = problem(H, W[r], pruned[r])
        assert float(own.energy(found.pruned[r])) == pytest.approx(found.errors[r], rel=1e-10)


def test_tabu_finds_the_optimum_of_small_rows():
    H, W, pruned = layer(rows=12, seed=3)
    swapped = search_rows(H, W, pruned)
    found = search_rows(H, W, pruned, method="tabu", iterations=60)
    assert (found.errors <= swapped.errors * (1 + 1e-12)).all()
    for r in range(len(W)):
        best = make("enumerate").sample_problem(problem(H, W[r], pruned[r]), budget=Budget())
        assert found.errors[r] == pytest.approx(float(best.first.energy), rel=1e-9)


def test_columns_far_apart_zero_columns_and_full_rows():
    H, W, pruned = layer(apart=0)
    scale = np.ones(12)
    scale[3] = 1e8
    scale[5] = 0
    H = H * np.outer(scale, scale)
    pruned[0], pruned[1] = True, False
    W[2] = 0
    found = search_rows(H, W, pruned)
    assert np.array_equal(found.pruned.sum(1), pruned.sum(1))
    assert not found.pruned[3:, 3].any()
    assert found.pruned[3:, 5].all()
    assert found.errors[1] == found.errors[2] == 0


def test_the_seed_decides_and_not_the_threads():
    H, W, pruned = layer(rows=9, d=24, seed=5)
    one = search_rows(H, W, pruned, method="tabu", iterations=5, num_threads=1)
    two = search_rows(H, W, pruned, method="tabu", iterations=5, num_threads=2)
    assert np.array_equal(one.pruned, two.pruned)
    assert one.swaps == two.swaps


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"H": np.ones((3, 4))}, ProblemError, "H has shape"),
        ({"weights": np.ones((2, 5))}, ProblemError, "weights"),
        ({"H": np.triu(np.ones((4, 4)))}, ProblemError, "not symmetric"),
        ({"pruned": np.ones((1, 4), bool)}, ProblemError, "pruned has shape"),
        ({"weights": np.full((2, 4), np.nan)}, ProblemError, "weights holds NaN"),
        ({"pattern_m": 3}, ProblemError, "pattern_m is 3"),
        ({"method": "magic"}, ParameterError, "method is 'magic'"),
        ({"method": "tabu", "iterations": 0}, ParameterError, "iterations"),
    ],
)
def test_input_that_cannot_be(changes, error, message):
    given = {"H": np.eye(4), "weights": np.ones((2, 4)), "pruned": np.eye(4, dtype=bool)[:2]}
    with pytest.raises(error, match=message):
        search_rows(**(given | changes))
