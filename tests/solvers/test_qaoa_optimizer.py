"""Qiskit's MinimumEigenOptimizer path."""

import numpy as np
import pytest

from solvers.base import Budget
from solvers.problem import CardinalityProblem
from solvers.qaoa.angles import Angles
from solvers.qaoa.optimizer import QiskitOptimizerQAOA, to_quadratic_program
from solvers.qaoa.simulator.subspace import Simulator
from tests.solvers.circuits import bits, make, problem


@pytest.mark.parametrize("dense", [False, True])
def test_quadratic_program_has_the_same_energies(dense):
    instance = problem(5, 2)
    if dense:
        instance = CardinalityProblem(
            linear=instance.linear, quadratic=instance.gram(), cardinality=2, offset=0.6
        )
    program = to_quadratic_program(instance)
    for x in bits(5):
        assert program.objective.evaluate(x) == pytest.approx(instance.energy(x), abs=1e-12)
        assert program.is_feasible(x) == (x.sum() == 2)


def test_solver_finds_the_optimum():
    instance = problem(6, 2)
    solve = QiskitOptimizerQAOA().sample_problem
    samples = solve(instance, seed=1, iterations=30, budget=Budget(reads=300))
    again = solve(instance, seed=1, iterations=30, budget=Budget(reads=300))
    np.testing.assert_array_equal(samples.record.sample, again.record.sample)
    assert len(samples) == 300
    assert instance.is_feasible(samples.record.sample).all()
    assert samples.first.energy == pytest.approx(make("grover", instance).costs.min())
    info = samples.info
    assert 0 < info["training_seconds"] == info["timing"]["training"]
    assert info["evaluations"] <= 30


def test_its_angles_mean_what_ours_mean():
    """The reported angles give the raw shots' mean energy on our simulator."""
    instance = problem(6, 2)
    samples = QiskitOptimizerQAOA(penalty=0.5).sample_problem(
        instance, seed=1, iterations=10, depth=3, budget=Budget(reads=4000)
    )
    weight = samples.info["penalty_weight"]
    simulator = Simulator(instance, "x", penalty=weight)
    raw = samples.record.raw_sample
    energies = instance.energy(raw) + weight * (raw.sum(1) - 2) ** 2
    expected = simulator.expectation(Angles.given(samples.info["gammas"], samples.info["betas"]))
    assert abs(energies.mean() - expected) < 4.5 * energies.std() / np.sqrt(4000)


def test_what_is_refused():
    with pytest.raises(TypeError, match="penalty is 0"):
        QiskitOptimizerQAOA(penalty=0)
    with pytest.raises(TypeError, match="depth is 0"):
        QiskitOptimizerQAOA().sample_problem(problem(), depth=0)
