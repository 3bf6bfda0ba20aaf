"""Sub-blocks for devices: what their couplings are worth, and how they are cut."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.instances.subblocks import _shares_without, coupling_share, nested_subblocks
from solvers import CardinalityProblem
from solvers.errors import ParameterError
from tests.study_fixtures import block


def masks(n, k):
    rows = np.zeros((0, n)) if k > n else np.zeros((len(list(combinations(range(n), k))), n))
    for row, ones in zip(rows, combinations(range(n), k), strict=True):
        row[list(ones)] = 1
    return rows


def share_by_regression(problem):
    """One minus R^2 of the best linear function on all feasible masks."""
    x = masks(problem.n, problem.cardinality)
    energy = problem.energy(x)
    fit = x @ np.linalg.lstsq(x, energy, rcond=None)[0]
    total = np.var(energy)
    return np.mean((energy - fit) ** 2) / total if total > 1e-20 else 0.0


@given(st.integers(2, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))),
       st.integers(0, 99), st.floats(0.01, 10))  # fmt: skip
def test_coupling_share_is_what_regression_leaves(shape, seed, curvature):
    problem = block(shape[0], shape[1], seed, curvature=curvature)
    assert coupling_share(problem) == pytest.approx(share_by_regression(problem), abs=1e-9)


def test_share_at_its_ends():
    linear = CardinalityProblem(linear=np.arange(6.0), factor=np.zeros((1, 6)), cardinality=3)
    assert coupling_share(linear) == 0
    ring = np.roll(np.eye(6), 1, 1) + np.roll(np.eye(6), -1, 1) + 2 * np.eye(6)
    pure = CardinalityProblem(linear=np.zeros(6), quadratic=ring, cardinality=3)
    assert coupling_share(pure) == pytest.approx(1)
    constant = CardinalityProblem(linear=np.ones(6), factor=np.ones((1, 6)), cardinality=3)
    assert coupling_share(constant) == pytest.approx(0)
    for n, k in [(0, 0), (1, 1), (3, 1), (4, 0), (4, 4), (5, 4)]:
        assert coupling_share(block(n, k)) == 0


@pytest.mark.parametrize("dense", [False, True])
def test_leaving_one_out_is_the_share_of_the_rest(dense):
    problem = block(9, 4, seed=2, curvature=3, dense=dense)
    Q = problem.gram()
    biases = problem.linear + 0.5 * np.diag(Q)
    np.fill_diagonal(Q, 0)
    found = _shares_without(Q, biases, problem.initial.astype(float))
    expected = [coupling_share(problem.restricted(np.delete(np.arange(9), t))) for t in range(9)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_sub_blocks_are_nested_balanced_and_keep_the_energies():
    problem = replace(block(40, 12, curvature=4), indices=np.arange(40) + 100)
    family = nested_subblocks(problem, [12, 4, 8])
    assert list(family) == [4, 8, 12]
    for n, sub in family.items():
        assert (sub.n, sub.cardinality) == (n, n // 2)
        assert sub.energy(sub.initial) == pytest.approx(0)
        assert sub.meta["parent"] == problem.content_hash
        assert sub.meta["coupling_share"] == pytest.approx(share_by_regression(sub))
        assert sub.meta["optimum"] == pytest.approx(sub.energy(masks(n, n // 2)).min())
        full = problem.initial.copy()
        free = sub.indices - 100
        full[free] = ~sub.initial
        assert sub.energy(~sub.initial) == pytest.approx(float(problem.energy(full)))
    assert set(family[4].indices) < set(family[8].indices) < set(family[12].indices)


def test_couplings_of_the_chosen_matter_more_than_those_of_the_random():
    problem = block(60, 30, curvature=2)
    chosen = nested_subblocks(problem, [8])[8]
    rng = np.random.default_rng(0)
    ones, zeros = np.flatnonzero(problem.initial), np.flatnonzero(~problem.initial)
    by_chance = [
        coupling_share(
            problem.restricted([*rng.choice(ones, 4, False), *rng.choice(zeros, 4, False)])
        )
        for _ in range(50)
    ]
    assert chosen.meta["coupling_share"] > max(by_chance)


def test_order_does_not_tell_the_incumbent():
    starts = [nested_subblocks(block(30, seed=s), [8])[8].initial for s in range(12)]
    assert len({tuple(start) for start in starts}) > 8


def test_the_largest_blocks_are_cut_from_a_pool(monkeypatch):
    monkeypatch.setattr("experiments.instances.subblocks.POOL", 16)
    problem = block(60, 30)
    assert nested_subblocks(problem, [12])[12].n == 12


@pytest.mark.parametrize("sizes", [[], [5], [2], [42], [8, 26]])
def test_sizes_that_cannot_be(sizes):
    with pytest.raises(TypeError, match="sizes"):
        nested_subblocks(block(40, 12), sizes)


def test_no_incumbent():
    with pytest.raises(ValueError, match="no initial state"):
        nested_subblocks(block(10).blinded(), [4])


def test_parts_of_a_block_with_groups_are_whole_groups():
    rng = np.random.default_rng(5)
    A = rng.normal(size=(30, 24)) * 10 ** rng.uniform(-2, 2, size=24)
    problem = CardinalityProblem(
        linear=np.zeros(24),
        cardinality=12,
        factor=A,
        initial=np.arange(24) % 4 < 2,
        groups=np.arange(24) // 4,
        cardinalities=np.full(6, 2),
    ).permuted(rng)
    family = nested_subblocks(problem, [8, 16])
    for n, sub in family.items():
        assert sub.n == n
        assert sub.group_ones.tolist() == [2] * (n // 4)
        assert np.bincount(sub.groups).tolist() == [4] * (n // 4)
        assert sub.energy(sub.initial) == pytest.approx(problem.energy(problem.initial))
    with pytest.raises(ParameterError, match="whole groups give 8"):
        nested_subblocks(problem, [10])


def test_large_parts_have_no_proof():
    sub = nested_subblocks(block(80, 40), [60])[60]
    assert sub.n == 60
    assert "optimum" not in sub.meta
