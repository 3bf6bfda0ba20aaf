"""The portfolio says what it picked, and its pool and children are what they should be."""

import numpy as np
import pytest

from solvers import Budget, make
from solvers.search.portfolio import ELITE, LINEAR_RULES, Pool, linear_share
from tests.solvers.factories import drawn, massive
from tests.solvers.reference import feasible_states


@pytest.mark.parametrize(
    ("problem", "picked"),
    [
        (massive(30, 12, 0), "memetic"),
        (massive(30, 12, 0, groups=3), "annealing: 3 groups"),
        (drawn(30, 12, 4, 0, curvature=1e-3), "annealing: the linear term rules"),
        (drawn(2100, 12, 2, 0), "annealing: more than 2048 variables"),
    ],
)
def test_the_portfolio_says_what_it_picked(problem, picked):
    samples = make("portfolio").sample_problem(problem, budget=Budget(reads=2), seed=0)
    assert samples.info["picked"].startswith(picked)


@pytest.mark.parametrize("groups", [None, 2])
def test_the_portfolio_finds_the_optimum_of_small_problems(groups):
    for seed in range(6):
        problem = massive(12, 6, seed, groups, decades=1.0)
        states = feasible_states(problem)
        best = problem.energy(states[problem.is_feasible(states)]).min()
        found = make("portfolio").sample_problem(problem, budget=Budget(reads=12), seed=0).first
        assert found.energy == pytest.approx(best)


@pytest.mark.parametrize("groups", [None, 4])
def test_children_are_feasible_and_keep_what_parents_agree_on(groups):
    problem, rng = massive(40, 17, 3, groups, decades=1.0), np.random.default_rng(0)
    pool, states = Pool(problem), [problem.random_state(rng) for _ in range(2)]
    pool.add(states[0])
    pool.add(states[0].copy())
    assert pool.child(rng) is None
    pool.add(states[1])
    agreed = states[0] == states[1]
    for _ in range(20):
        child = pool.child(rng)
        assert problem.is_feasible(child)
        assert (child[agreed] == states[0][agreed]).all()


def test_the_pool_keeps_the_best():
    problem, rng = drawn(30, 12, 5, 1), np.random.default_rng(0)
    pool, states = Pool(problem), [problem.random_state(rng) for _ in range(50)]
    for state in states:
        pool.add(state)
    kept = np.sort([energy for energy, _ in pool._states])
    assert kept == pytest.approx(np.sort(problem.energy(np.array(states)))[:ELITE])


def test_the_linear_share():
    assert linear_share(massive(20, 5, 0)) == 0
    assert linear_share(drawn(20, 5, 2, 0, curvature=1e-3)) > LINEAR_RULES
    assert linear_share(drawn(20, 5, 2, 0, curvature=0.0)) == np.inf
