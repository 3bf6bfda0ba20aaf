"""The Qiskit and Braket samplers as dimod samplers, and their circuits against dense matrices."""

import subprocess
import sys
import unittest

import dimod
import numpy as np
import pytest
from scipy.linalg import expm

from solvers.qaoa.angles import Angles, linear_ramp
from solvers.qaoa.braket import BraketLocalQAOASampler
from solvers.qaoa.circuit.ansatz import Ising, parameter_values, x_ansatz
from solvers.qaoa.qiskit import AerQAOASampler
from tests.solvers.circuits import (
    X,
    bits,
    braket_state,
    every_gate,
    on,
    qiskit_state,
    run_dense,
    same_up_to_phase,
)

SAMPLERS = [AerQAOASampler, BraketLocalQAOASampler]
by_sampler = pytest.mark.parametrize("cls", SAMPLERS)


@dimod.testing.load_sampler_bqm_tests(AerQAOASampler)
class TestAerModels(unittest.TestCase):
    pass


@dimod.testing.load_sampler_bqm_tests(BraketLocalQAOASampler)
class TestBraketModels(unittest.TestCase):
    pass


@pytest.fixture
def model():
    """Asymmetric biases on labels that are no integers; the optimum is no palindrome."""
    rng = np.random.default_rng(5)
    n = 5
    c = np.array([2.0, -1.5, 0.7, 1.1, -2.2])
    J = np.triu(rng.normal(scale=0.3, size=(n, n)), 1)
    labels = [("v", i) for i in range(n)]
    bqm = dimod.BinaryQuadraticModel("BINARY")
    bqm.add_linear_from(zip(labels, c, strict=True))
    for a in range(n):
        for b in range(a + 1, n):
            if (a, b) != (1, 3):
                bqm.add_quadratic(labels[a], labels[b], J[a, b])
    bqm.offset = 3.25
    return bqm


def dense_x_state(bqm, angles):
    """QAOA by matrix exponentials of cost and mixer, straight from the model's energies."""
    n = bqm.num_variables
    energy = bqm.energies((bits(n), list(bqm.variables)))
    M = -sum(on(n, **{f"q{i}": X}) for i in range(n))
    psi = np.full(2**n, 2 ** (-n / 2), complex)
    for gamma, beta in zip(angles.gammas, angles.betas, strict=True):
        psi = expm(-1j * beta * M) @ (np.exp(-1j * gamma * energy) * psi)
    return psi


@by_sampler
def test_sampler_api(cls):
    dimod.testing.assert_sampler_api(cls())
    assert cls().properties["max_variables"] == 12


@pytest.mark.parametrize("state", [qiskit_state, braket_state, run_dense])
def test_every_gate_renders_as_listed(state):
    circuit, values = every_gate()
    same_up_to_phase(run_dense(circuit, values), state(circuit, values))


@pytest.mark.parametrize("state", [qiskit_state, braket_state, run_dense])
def test_circuit_is_qaoa_of_the_model(model, state):
    ising = Ising.from_bqm(model)
    angles = linear_ramp(3, ising.std())
    circuit = x_ansatz(ising.n, ising.edges, 3)
    psi = state(circuit, parameter_values(ising, angles))
    same_up_to_phase(dense_x_state(model, angles), psi)


def test_std_is_over_all_states(model):
    energies = model.energies((bits(5), list(model.variables)))
    assert Ising.from_bqm(model).std() == pytest.approx(energies.std(), rel=1e-12)


def test_absent_couplings_have_no_gate(model):
    ising = Ising.from_bqm(model)
    assert (1, 3) not in ising.edges
    assert x_ansatz(5, ising.edges, 2).counts() == {"h": 5, "rx": 10, "rz": 10, "rzz": 18}


@by_sampler
def test_samples_follow_the_exact_distribution(cls, model):
    ising = Ising.from_bqm(model)
    angles = linear_ramp(4, ising.std())
    exact = np.abs(dense_x_state(model, angles)) ** 2
    reads = 20_000
    samples = cls().sample(model, num_reads=reads, seed=3)
    order = [list(samples.variables).index(v) for v in model.variables]
    index = samples.record.sample[:, order] @ (1 << np.arange(5))
    seen = np.bincount(index, minlength=32)
    # 31 degrees of freedom; the 0.9999 quantile of chi squared is 69.
    assert np.sum((seen - reads * exact) ** 2 / (reads * exact)) < 69
    best = dimod.ExactSolver().sample(model).first
    mode = bits(5)[seen.argmax()]
    assert dict(zip(model.variables, mode, strict=True)) == dict(best.sample)
    assert list(mode) != list(mode[::-1])


@by_sampler
def test_info(cls, model):
    info = cls().sample(model, num_reads=5, seed=1, depth=2).info
    assert set(info["timing"]) >= {"preprocess", "execute", "postprocess"}
    assert info["timing"]["execute"] > 0
    assert info["angles"] == "untrained: linear ramp"
    assert info["depth"] == len(info["gammas"]) == len(info["betas"]) == 2
    assert info["gates"]["rzz"] == info["two_qubit_gates"] == 18
    assert 0 < info["two_qubit_depth"] <= 18


@by_sampler
def test_one_row_a_read_and_seeds_repeat(cls, model):
    sampler = cls()
    first = sampler.sample(model, num_reads=50, seed=7)
    again = sampler.sample(model, num_reads=50, seed=7)
    other = sampler.sample(model, num_reads=50, seed=8)
    assert len(first) == 50
    np.testing.assert_array_equal(first.record.sample, again.record.sample)
    assert (first.record.sample != other.record.sample).any()
    big_seed = sampler.sample(model, num_reads=1, seed=2**40)
    assert big_seed.info["seed"] == 2**40
    assert len(sampler.sample(model, num_reads=2)) == 2


@by_sampler
def test_spin_and_binary_draw_the_same_states(cls, model):
    spin = model.change_vartype("SPIN", inplace=False)
    a = cls().sample(model, num_reads=20, seed=2)
    b = cls().sample(spin, num_reads=20, seed=2)
    np.testing.assert_array_equal(2 * a.record.sample - 1, b.record.sample)
    np.testing.assert_allclose(a.record.energy, b.record.energy)


@by_sampler
def test_explicit_angles(cls, model):
    angles = Angles.given([0.1, 0.2], [0.5, 0.3], "given")
    info = cls().sample(model, num_reads=1, seed=0, angles=angles).info
    assert (info["depth"], info["angles"]) == (2, "given")


@by_sampler
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"beta_range": [0, 1]}, "no parameter 'beta_range'"),
        ({"num_reads": 0}, "num_reads is 0"),
        ({"depth": 0}, "depth is 0"),
        ({"depth": 1.5}, "depth is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"angles": "ramp"}, "angles is a str"),
        ({"depth": 3, "angles": Angles.given([1], [1])}, "angles has 1 layers"),
    ],
)
def test_bad_parameters_are_refused(cls, keywords, message):
    bqm = dimod.BQM({0: 1.0}, {}, "BINARY")
    with pytest.raises(TypeError, match=message):
        cls().sample(bqm, **keywords)


@by_sampler
def test_too_many_variables(cls):
    bqm = dimod.BQM(dict.fromkeys(range(13), 1.0), {}, "BINARY")
    with pytest.raises(dimod.exceptions.BinaryQuadraticModelSizeError, match="at most 12"):
        cls().sample(bqm)
    assert len(cls(max_qubits=13).sample(bqm, num_reads=1, depth=1)) == 1
    with pytest.raises(TypeError, match="max_qubits"):
        cls(max_qubits=0)


def test_any_v2_sampler_runs_it(model):
    from qiskit.primitives import StatevectorSampler

    sampler = AerQAOASampler(primitive=lambda seed: StatevectorSampler(seed=seed))
    samples = sampler.sample(model, num_reads=200, seed=4)
    assert samples.first.energy == dimod.ExactSolver().sample(model).first.energy


def test_sdks_are_not_imported_by_the_package():
    code = (
        "import sys, solvers, solvers.qaoa.sampler; print({'qiskit', 'braket'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
