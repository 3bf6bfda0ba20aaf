"""Branch and bound against brute force, against SCIP, and against the clock."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings

from solvers import Budget, CardinalityProblem, make
from solvers.exact.diagonal_shift import diagonally_shifted
from tests.solvers.factories import FAMILIES, member
from tests.solvers.reference import feasible_states, magnitude
from tests.strategies import problems


@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_enumeration(family):
    """84 problems a family, 504 in all; `enumerate` itself is tested against itertools."""
    exact, enumerate_ = make("exact"), make("enumerate")
    for seed, n in itertools.product(range(6), range(3, 17)):
        problem = member(family, seed, n)
        samples = exact.sample_problem(problem, seed=0)
        best = enumerate_.sample_problem(problem).first.energy
        size = magnitude(problem)
        assert samples.info["proved_optimal"] is True
        assert samples.first.energy == pytest.approx(best, abs=1e-11 * size), (seed, n)
        assert best - 1e-10 * size <= samples.info["lower_bound"] <= best + 1e-11 * size


@settings(max_examples=60)
@given(problems(max_n=8, proper=True))
def test_shift_keeps_every_feasible_energy_and_stays_convex(problem):
    if problem.factor is None or problem.n > problem.rank:
        return
    states = feasible_states(problem)
    shifted = diagonally_shifted(problem)
    products = states @ shifted.A.T
    energies = 0.5 * (products**2).sum(axis=1) + states @ shifted.c + shifted.constant
    assert energies + problem.offset == pytest.approx(
        problem.energy(states), abs=1e-10 * magnitude(problem)
    )


def test_time_limit_leaves_incumbent_and_bound():
    problem = member("quadratic only", 0, 120)
    start = time.perf_counter()
    samples = make("exact").sample_problem(problem, budget=Budget(time_limit=0.5), seed=0)
    assert time.perf_counter() - start < 5
    assert samples.info["proved_optimal"] is False
    assert samples.info["lower_bound"] < samples.first.energy


@pytest.mark.slow
def test_agrees_with_scip():
    """20 problems of 64 to 256 variables: SCIP minimises ``sum z^2 / 2 + c.x``, ``z = A x``.

    Curvature from weak to strong: on the strong ones the root leaves 60 to 120 variables open.
    """
    scip = pytest.importorskip("pyscipopt")
    for seed in range(20):
        n = (64, 128, 192, 256)[seed % 4]
        rng = np.random.default_rng(seed)
        problem = CardinalityProblem(
            linear=rng.normal(size=n),
            cardinality=n // 2,
            factor=rng.normal(size=(8, n)) * np.sqrt((1.0, 10.0, 100.0)[seed % 3] / n),
        )
        samples = make("exact").sample_problem(problem, seed=0)
        assert samples.info["proved_optimal"], seed
        assert samples.first.energy == pytest.approx(scip_optimum(scip, problem), rel=1e-5)


def scip_optimum(scip, problem):
    model = scip.Model()
    model.hideOutput()
    model.setParam("limits/gap", 1e-7)
    x = [model.addVar(vtype="B") for _ in range(problem.n)]
    z = [model.addVar(lb=None) for _ in range(problem.rank)]
    model.addCons(scip.quicksum(x) == problem.cardinality)
    for row, value in zip(problem.factor, z, strict=True):
        model.addCons(scip.quicksum(a * b for a, b in zip(row, x, strict=True)) == value)
    half = model.addVar(lb=0)
    model.addCons(scip.quicksum(v * v for v in z) <= 2 * half)
    model.setObjective(half + scip.quicksum(c * b for c, b in zip(problem.linear, x, strict=True)))
    model.optimize()
    assert model.getStatus() in ("optimal", "gaplimit")
    best = np.array([model.getVal(v) > 0.5 for v in x])
    return float(problem.energy(best))
