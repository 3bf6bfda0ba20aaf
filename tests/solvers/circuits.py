"""An independent reference for solvers.qaoa: dense matrices from Kronecker products."""

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from qiskit.quantum_info import Statevector

from solvers.cloud.paid import BraketSubspaceQAOA
from solvers.problem import CardinalityProblem
from solvers.qaoa.braket import BraketLocalSubspaceQAOA, to_braket
from solvers.qaoa.circuit.gates import Circuit, Gate
from solvers.qaoa.qiskit import AerSubspaceQAOA, to_qiskit
from solvers.qaoa.simulator.subspace import Simulator
from solvers.qaoa.subspace import SubspaceQAOA

I2 = np.eye(2)

X = np.array([[0, 1], [1, 0]], complex)

Y = np.array([[0, -1j], [1j, 0]])

Z = np.diag([1.0, -1.0]).astype(complex)

H = (X + Z) / np.sqrt(2)


each_subspace_sampler = pytest.mark.parametrize(
    "solver",
    [
        SubspaceQAOA(),
        AerSubspaceQAOA(),
        BraketLocalSubspaceQAOA(),
        BraketSubspaceQAOA("SV1", rehearse=True, max_cost=1e6),
    ],
    ids=lambda solver: solver.name,
)


def on(n, **factors):
    """Operator on n qubits; ``on(3, q0=X, q2=Z)``."""
    return reduce(np.kron, [factors.get(f"q{i}", I2) for i in reversed(range(n))])


def bits(n):
    """Every x of {0,1}^n in index order, shape (2^n, n)."""
    return (np.arange(2**n)[:, None] >> np.arange(n)) & 1


def generator(gate, n):
    names = [f"q{q}" for q in gate.qubits]
    pauli = {"rx": [X], "ry": [Y], "rz": [Z], "rzz": [Z, Z]}
    if gate.name == "xy":
        return sum(on(n, **dict(zip(names, [P, P], strict=True))) for P in (X, Y)) / 2
    return on(n, **dict(zip(names, pauli[gate.name], strict=True)))


def unitary(gate, values, n):
    if gate.name in ("h", "x"):
        return on(n, **{f"q{gate.qubits[0]}": {"h": H, "x": X}[gate.name]})
    if gate.name == "cx":
        c, t = (f"q{q}" for q in gate.qubits)
        return on(n, **{c: (I2 + Z) / 2}) + on(n, **{c: (I2 - Z) / 2, t: X})
    # P^3 = P for every generator P, Pauli products and (XX + YY)/2 alike.
    P, half = generator(gate, n), gate.angle(values) / 2
    return np.eye(2**n) + (np.cos(half) - 1) * P @ P - 1j * np.sin(half) * P


def run_dense(circuit, values=()):
    """Final state of a gate list, shape (2^n,)."""
    psi = np.zeros(2**circuit.num_qubits, complex)
    psi[0] = 1
    for gate in circuit.gates:
        psi = unitary(gate, values, circuit.num_qubits) @ psi
    return psi


def same_up_to_phase(a, b, tolerance=1e-9):
    assert np.linalg.norm(a) == pytest.approx(1)
    assert abs(np.vdot(a, b)) == pytest.approx(1, abs=tolerance)
    phase = np.vdot(a, b)
    np.testing.assert_allclose(b, a * phase / abs(phase), atol=tolerance)


def every_gate(n=4):
    """A circuit with each gate kind on pairs in both orders, far pairs included."""
    pairs = [(0, 1), (3, 1), (0, 2), (2, 3), (1, 0), (0, 3)]
    gates = [Gate("h", (i,)) for i in range(n)] + [Gate("x", (2,))]
    for step, (a, b) in enumerate(pairs):
        gates += [
            Gate("ry", (a,), 0.3 + step),
            Gate("rx", (b,), -2.0, step),
            Gate("cx", (a, b)),
            Gate("rz", (b,), 0.7, step),
            Gate("rzz", (a, b), 1.1 + 0.1 * step),
            Gate("xy", (b, a), 0.9, step),
        ]
    return Circuit(n, tuple(gates), len(pairs)), np.linspace(-1.3, 2.1, len(pairs))


def qiskit_state(circuit, values=()):
    rendered = to_qiskit(circuit)
    return Statevector(rendered.assign_parameters(list(values))).data


def braket_state(circuit, values=()):
    from braket.devices import LocalSimulator

    rendered = to_braket(circuit, values)
    state = LocalSimulator().run(rendered.state_vector(), shots=0).result().values[0]
    n = circuit.num_qubits
    return np.asarray(state).reshape([2] * n).transpose().ravel()


def problem(n=6, k=2, seed=1):
    """Asymmetric linear terms and a factor of rank 3."""
    rng = np.random.default_rng(seed)
    return CardinalityProblem(
        linear=np.linspace(-1.7, 2.3, n) ** 2 - rng.normal(size=n),
        factor=rng.normal(size=(3, n)),
        cardinality=k,
        offset=0.6,
    )


def grouped_problem(sizes, ones, seed=1):
    """`problem` with its variables dealt out to groups at random."""
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    bare = problem(len(groups), sum(ones), seed)
    return replace(bare, groups=groups, cardinalities=np.array(ones))


def make(mixer, instance, **options):
    return Simulator(instance, mixer, penalty=0.3 if mixer == "x" else None, **options)
