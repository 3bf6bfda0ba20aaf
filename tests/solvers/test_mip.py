"""HiGHS and SCIP on the factored form: against enumeration, against the clock, from a start."""

import itertools
import time

import numpy as np
import pytest

from solvers import Budget, make
from tests.solvers.factories import FAMILIES, member
from tests.solvers.reference import magnitude

each = pytest.mark.parametrize("name", ["milp", "miqp"])


@each
@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_enumeration(name, family):
    solver, enumerate_ = make(name), make("enumerate")
    for seed, n in itertools.product(range(2), (3, 8)):
        problem = member(family, seed, n)
        found = []
        samples = solver.sample_problem(problem, seed=0, on_incumbent=found.append)
        best = enumerate_.sample_problem(problem).first.energy
        size = magnitude(problem)
        assert samples.first.energy == pytest.approx(best, abs=1e-7 * size), (seed, n)
        assert best - 1e-5 * size <= samples.info["lower_bound"] <= best + 1e-11 * size
        assert samples.info["proved_optimal"] is True
        assert problem.is_feasible(np.array(found)).all()
        assert problem.energy(found[-1]) == samples.first.energy


@each
def test_time_limit_leaves_incumbent_and_honest_bound(name):
    problem = member("quadratic only", 0, 90)
    start = time.perf_counter()
    samples = make(name).sample_problem(problem, budget=Budget(time_limit=0.5), seed=0)
    assert time.perf_counter() - start < 10
    assert samples.info["proved_optimal"] is False
    assert samples.info["lower_bound"] < samples.first.energy


@each
def test_never_worse_than_the_start_it_was_given(name):
    problem = member("strong", 1, 60)
    good = make("annealing").sample_problem(problem, budget=Budget(reads=3), seed=0).first
    start = np.array([good.sample[i] for i in range(60)])
    heard = []
    samples = make(name).sample_problem(
        problem, budget=Budget(time_limit=0.3), seed=0, initial=start, on_incumbent=heard.append
    )
    assert (heard[0] == start).all()
    assert samples.first.energy <= good.energy
