"""The weight-conserving circuits as native solvers on Aer and Braket."""

import dimod
import numpy as np
import pytest
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, depolarizing_error
from qiskit_aer.primitives import SamplerV2

from solvers.base import Budget
from solvers.qaoa.angles import Angles
from solvers.qaoa.braket import BraketLocalQAOASampler, BraketLocalSubspaceQAOA
from solvers.qaoa.circuit.ansatz import Ising, parameter_values, x_ansatz
from solvers.qaoa.qiskit import AerSubspaceQAOA, to_qiskit
from solvers.qaoa.simulator.subspace import Simulator
from tests.solvers.circuits import problem

SOLVERS = [AerSubspaceQAOA, BraketLocalSubspaceQAOA]
by_solver = pytest.mark.parametrize("cls", SOLVERS)


@by_solver
@pytest.mark.parametrize("mixer", ["ring", "complete", "grover"])
def test_every_shot_is_feasible_and_the_mean_is_the_simulated_one(cls, mixer):
    instance = problem(6, 2)
    angles = Angles.given([0.1, 0.2], [0.5, 0.3])
    samples = cls().sample_problem(
        instance, seed=1, mixer=mixer, angles=angles, budget=Budget(reads=4000)
    )
    rows = samples.record.sample
    assert instance.is_feasible(rows).all()
    np.testing.assert_array_equal(samples.record.raw_sample, rows)
    assert samples.info["feasible_shots"] == 1
    simulated = "complete-trotter" if mixer == "complete" else mixer
    expected = Simulator(instance, simulated).expectation(angles)
    error = samples.record.energy.std() / np.sqrt(4000)
    assert abs(samples.record.energy.mean() - expected) < 4.5 * error


@by_solver
def test_trained_circuit_finds_the_optimum(cls):
    instance = problem(6, 3)
    dimod.testing.assert_sampler_api(cls())
    seen = []
    samples = cls().sample_problem(
        instance, seed=2, depth=2, on_incumbent=seen.append, budget=Budget(reads=300)
    )
    again = cls().sample_problem(instance, seed=2, depth=2, budget=Budget(reads=300))
    np.testing.assert_array_equal(samples.record.sample, again.record.sample)
    assert samples.first.energy == pytest.approx(Simulator(instance, "grover").costs.min())
    assert instance.energy(seen[-1]) == pytest.approx(samples.first.energy)
    info = samples.info
    assert info["angles"] == "trained per instance: L-BFGS"
    assert info["gates"]["cx"] > 0 < info["two_qubit_depth"]
    assert info["timing"]["training"] >= info["training_seconds"] > 0


def test_noisy_shots_are_repaired_and_counted():
    noise = NoiseModel(basis_gates=["cx", "ry", "rz", "rzz", "x", "xx_plus_yy"])
    noise.add_all_qubit_quantum_error(depolarizing_error(0.05, 2), ["cx", "rzz"])

    def primitive(seed):
        return SamplerV2(seed=seed, options={"backend_options": {"noise_model": noise}})

    instance = problem(5, 2)
    solver = AerSubspaceQAOA(primitive=primitive)
    samples = solver.sample_problem(
        instance, seed=1, depth=1, angles="ramp", budget=Budget(reads=200)
    )
    raw = samples.record.raw_sample
    share = instance.is_feasible(raw).mean()
    assert 0.05 < share < 0.95
    assert samples.info["feasible_shots"] == share
    assert instance.is_feasible(samples.record.sample).all()


@by_solver
def test_what_is_refused(cls):
    with pytest.raises(TypeError, match="mixer is 'x'"):
        cls().sample_problem(problem(), mixer="x")
    with pytest.raises(TypeError, match="no parameter 'shots'"):
        cls().sample_problem(problem(), shots=3)
    with pytest.raises(dimod.exceptions.BinaryQuadraticModelSizeError, match="at most 12"):
        cls().sample_problem(problem(13, 3))


def test_braket_noise_is_depolarising_after_each_two_qubit_gate():
    instance = problem(4, 2)
    ising = Ising.from_bqm(instance.to_bqm(0.5))
    circuit = x_ansatz(4, ising.edges, 2)
    values = parameter_values(ising, Angles.given([0.2, 0.4], [0.6, 0.3]))
    noise = 0.05
    sampler = BraketLocalQAOASampler(noise=noise)
    found = sampler.probabilities(sampler._prepared(circuit, values))
    # Aer's parameter mixes the pair fully at 1: one of 16 Paulis, the identity among them.
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(16 / 15 * noise, 2), ["rzz"])
    rendered = to_qiskit(circuit).assign_parameters(list(values))
    rendered.save_probabilities()
    aer = AerSimulator(method="density_matrix", noise_model=model)
    expected = aer.run(rendered, shots=1).result().data()["probabilities"]
    reversed_bits = np.reshape(expected, [2] * 4).transpose().ravel()
    np.testing.assert_allclose(found, reversed_bits, atol=1e-9)


def test_noise_leaves_the_feasible_states_and_repair_returns():
    instance = problem(5, 2)
    samples = BraketLocalSubspaceQAOA(noise=0.02).sample_problem(
        instance, seed=1, mixer="ring", depth=1, angles="ramp"
    )
    assert 0.2 < samples.info["feasible_shots"] < 0.99
    assert instance.is_feasible(samples.record.sample).all()
    assert not instance.is_feasible(samples.record.raw_sample).all()


@pytest.mark.parametrize("noise", [-0.1, 0.95, float("nan")])
def test_noise_that_cannot_be(noise):
    with pytest.raises(TypeError, match="noise is"):
        BraketLocalQAOASampler(noise=noise)
