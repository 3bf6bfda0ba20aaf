"""Circuits that conserve the weight, against the simulator, on Qiskit and on Braket."""

from math import comb

import numpy as np
import pytest

from solvers.qaoa.angles import Angles
from solvers.qaoa.circuit.ansatz import (
    Group,
    Ising,
    groups_of,
    parameter_values,
    subspace_ansatz,
    x_ansatz,
)
from solvers.qaoa.circuit.dicke import dicke_state, inverse
from solvers.qaoa.circuit.gates import Circuit
from solvers.qaoa.simulator.subspace import Simulator
from tests.solvers.circuits import (
    bits,
    braket_state,
    problem,
    qiskit_state,
    run_dense,
    same_up_to_phase,
)

SIMULATED = {"ring": "ring", "complete": "complete-trotter", "grover": "grover"}


@pytest.mark.parametrize(
    ("n", "k"), [(n, k) for n in range(1, 6) for k in range(n + 1)] + [(6, 3), (6, 4)]
)
def test_dicke_state(n, k):
    weights = bits(n).sum(1)
    expected = (weights == k) / np.sqrt(comb(n, k))
    psi = run_dense(Circuit(n, tuple(dicke_state(n, k))))
    np.testing.assert_allclose(psi, expected, atol=1e-12)
    back = run_dense(Circuit(n, (*dicke_state(n, k), *inverse(dicke_state(n, k)))))
    assert abs(back[0]) == pytest.approx(1)


def test_dicke_cost_at_twelve():
    counts = Circuit(12, tuple(dicke_state(12, 6))).counts()
    assert counts["cx"] == 284


def schedule(p):
    rng = np.random.default_rng(p)
    return Angles.given(rng.normal(size=p) * 0.3, rng.normal(size=p))


def expected_state(simulator, angles):
    """The simulator's amplitudes spread over all 2^n states."""
    full = np.zeros(2**simulator.n, complex)
    ranks = simulator.states(np.arange(simulator.dim)) @ (1 << np.arange(simulator.n))
    full[ranks] = simulator.state(angles)
    return full


FAST_SIZES = {(4, 3), (5, 2), (6, 3), (8, 2), (10, 1)}
SIZES = [
    pytest.param(n, p, marks=[] if (n, p) in FAST_SIZES else pytest.mark.slow)
    for n in range(4, 11)
    for p in (1, 2, 3)
]


@pytest.mark.parametrize("state", [qiskit_state, braket_state])
@pytest.mark.parametrize("mixer", ["ring", "complete", "grover"])
@pytest.mark.parametrize(("n", "p"), SIZES)
def test_circuit_is_the_simulated_state(state, mixer, n, p):
    k = n // 2 - (n % 3 == 0) or 1
    instance = problem(n, k)
    ising = Ising.from_bqm(instance.to_bqm())
    circuit = subspace_ansatz(groups_of(instance), ising.edges, p, mixer)
    psi = state(circuit, parameter_values(ising, schedule(p)))
    simulator = Simulator(instance, SIMULATED[mixer])
    same_up_to_phase(expected_state(simulator, schedule(p)), psi)


@pytest.mark.parametrize("state", [qiskit_state, braket_state])
@pytest.mark.parametrize(("n", "p"), SIZES)
def test_penalised_circuit_is_the_simulated_state(state, n, p):
    instance = problem(n, n // 2)
    ising = Ising.from_bqm(instance.to_bqm(0.4))
    circuit = x_ansatz(n, ising.edges, p)
    psi = state(circuit, parameter_values(ising, schedule(p)))
    same_up_to_phase(expected_state(Simulator(instance, "x", penalty=0.4), schedule(p)), psi)


def test_what_is_refused():
    with pytest.raises(TypeError, match="ones is 0: there is one state only"):
        subspace_ansatz((Group((0, 1, 2, 3), 0),), (), 1)
    with pytest.raises(TypeError, match="mixer is 'x'"):
        subspace_ansatz((Group((0, 1, 2, 3), 2),), (), 1, "x")
