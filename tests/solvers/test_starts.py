"""States that reads begin at: feasible, good where columns are far apart."""

import numpy as np
import pytest

from solvers import Budget, make
from solvers.clock.deadline import Deadline
from solvers.request import Request
from solvers.search.repair import LocalSearch
from solvers.search.starts import Starts
from tests.solvers.factories import massive
from tests.solvers.reference import feasible_states


def starts(problem, initial=None):
    request = Request(Budget(), np.random.default_rng(0), initial, lambda state: None, Deadline())
    return Starts(LocalSearch(problem, dense=True), request)


@pytest.mark.parametrize("groups", [None, 3])
@pytest.mark.parametrize("k", [1, 2, 10, 29])
def test_starts_are_feasible_and_the_first_ones_as_promised(k, groups):
    problem = massive(30, k, seed=k, groups=groups)
    built, rng = starts(problem), np.random.default_rng(1)
    states = [built.state(number, rng) for number in range(8)]
    assert problem.is_feasible(np.array(states)).all()
    search = LocalSearch(problem)
    optimum = search.descend(search.fill(np.zeros(30, bool)))
    assert problem.energy(states[0]) == pytest.approx(problem.energy(optimum))
    for part in problem.members:
        ones = states[1][part]
        if 0 < ones.sum() < len(part):
            assert problem.diagonal[part][ones].max() <= problem.diagonal[part][~ones].min()
    given = search.descend(problem.random_state(rng))
    assert (starts(problem, given).state(0, rng) == given).all()


def test_later_starts_are_the_optimum_kicked_and_the_greedy_state_rebuilt():
    problem = massive(60, 30, seed=4, decades=1.0)
    built, rng = starts(problem), np.random.default_rng(1)
    greedy = LocalSearch(problem).fill(np.zeros(60, bool))
    states = [built.state(number, rng) for number in range(12)]
    assert all((state != states[0]).sum() == 6 for state in states[2::2])
    assert all((state & greedy).sum() >= 15 for state in states[3:7:2] + states[9::2])
    assert len({state.tobytes() for state in states}) >= 6


@pytest.mark.parametrize("name", ["descent", "annealing", "tempering", "tabu"])
@pytest.mark.parametrize("groups", [None, 2])
def test_searches_find_the_optimum_where_columns_are_far_apart(name, groups):
    """Few reads: built states are near it, drawn ones orders of magnitude away."""
    for seed in range(4):
        problem = massive(12, 6, seed, groups)
        states = feasible_states(problem)
        best = problem.energy(states[problem.is_feasible(states)]).min()
        found = make(name).sample_problem(problem, budget=Budget(reads=20), seed=0).first.energy
        assert found == pytest.approx(best)
